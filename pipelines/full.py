"""The whole pipeline: train, release, report. The same compiled file runs on a laptop and on a cluster."""

from pathlib import Path

from kfp import compiler, dsl

from components.release import report
from pipelines.release import release
from pipelines.train import train


@dsl.pipeline(name="infill", description="from code to a registered completion model")
def infill(store: str, preset: str = "demo", settings: dict[str, object] = {}) -> dsl.Artifact:  # noqa: B006
    """Train, release, report.

    Args:
        store: folder or object-store prefix for the bytes of all artifacts.
        preset: debug, demo, small, mellum_4b or mellum_4b_gqa.
        settings: what differs from the preset, as {"pretrain.train.steps": 100, "sources": ["dir:/code"]}.
    """
    run = {"preset": preset, "settings": settings, "store": store}
    trained = train(**run).outputs
    names = ("base", "sft", "dpo", "evaluation_base", "evaluation_sft", "evaluation_dpo", "examples")
    decision = release(**run, **{name: trained[name] for name in names}).output
    return report(**run, **trained, decision=decision).output


def compile_pipeline(file: Path) -> None:
    """Write the compiled pipeline (KFP's intermediate representation) to `file`, a YAML file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(infill, str(file))
