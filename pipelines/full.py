"""The whole pipeline: preflight, train, release, report, clean-up, compiled once for laptop and cluster."""

from pathlib import Path

from kfp import compiler, dsl

from components.around import finish, preflight
from components.release import report
from infill.stages import MODELS
from pipelines.cluster import on_cluster
from pipelines.release import release
from pipelines.train import train


@dsl.pipeline(name="infill", description="from code to a registered completion model")
def infill(
    store: str,
    preset: str = "demo",
    settings: str = "{}",
    budget: float = 24.0,
) -> None:
    """Train, release and report, after a preflight that must pass; clean up at the end.

    Args:
        store: folder or object-store prefix for the bytes of all artifacts.
        preset: debug, demo, finetune, adapter, base, small, mellum_4b or mellum_4b_gqa.
        settings: changes to the preset, as the text of a JSON object: {"pretrain.train.steps": 100}. A
            parameter of type dict would turn its integers into floats.
        budget: GPU-hours; a run whose estimate is higher is refused.
    """
    run = {"preset": preset, "settings": settings, "store": store}
    # KFP allows no output inside an exit handler, so `pipelines.local.report_of` finds the report instead.
    last = on_cluster(finish()).set_caching_options(enable_caching=False)
    with dsl.ExitHandler(last, name="run"):
        checked = on_cluster(preflight(**run, budget=budget), retries=0).set_caching_options(enable_caching=False)
        trained = train(**run, content=checked.output).outputs
        names = ("examples", *MODELS, *(f"evaluation_{name}" for name in MODELS))
        decision = release(**run, **{name: trained[name] for name in names}).output
        on_cluster(report(**run, **trained, decision=decision))


def compile_pipeline(file: Path) -> None:
    """Write the compiled pipeline (KFP's intermediate representation) to `file`, a YAML file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(infill, str(file))
