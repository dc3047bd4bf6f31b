"""The steps before the first stage and after the last: the preflight and the exit handler."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def preflight(preset: str, settings: str, store: str, budget: float) -> str:
    """Fail for a run that would fail later or exceed `budget` GPU-hours; return the digest of what the run reads."""
    from infill.preflight import check
    from infill.stages.step import sentence

    with sentence("preflight"):
        return check(preset=preset, settings=settings, store=store, budget=budget)


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def finish(status: dsl.PipelineTaskFinalStatus) -> None:
    """Delete the run's remaining jobs, however the run ended."""
    from infill.stages.step import finish

    finish(status.state)
