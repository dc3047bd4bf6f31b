"""Before the first stage and after the last: the preflight, and the exit handler."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def preflight(preset: str, settings: str, store: str, budget: float) -> str:
    """Refuse a run that would fail later or cost more GPU-hours than `budget`; returns the digest of what it reads."""
    from infill.pipeline_step import sentence
    from infill.preflight import check

    with sentence("preflight"):
        return check(preset=preset, settings=settings, store=store, budget=budget)


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def finish(status: dsl.PipelineTaskFinalStatus) -> None:
    """Sweep what is left of the run, however it ended."""
    from infill.pipeline_step import finish

    finish(status.state)
