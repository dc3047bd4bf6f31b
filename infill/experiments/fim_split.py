"""Experiment `fim-split`: holes between random characters against holes that follow the syntax, at equal tokens.

Two models are fine-tuned from the same base with the same settings on as many positions; only their holes differ. Both
complete the test holes of the run, which are those of its own settings.
"""

from dataclasses import dataclass, replace
from typing import Final

from infill.config import EvaluateConfig, ExamplesConfig, SftConfig
from infill.experiments import experiment_run
from infill.experiments.experiment import Experiment
from infill.experiments.trained_models import QUALITY, FinishedRun, ModelCells, amount, trained
from infill.manifest import Manifest
from infill.stages import execute

NAME: Final = "fim-split"
RANDOM_SHARE: Final = {"syntactic": 0.0, "random": 1.0}
"""Share of the random holes in each cell."""


@dataclass(frozen=True, kw_only=True)
class FimSplitConfig:
    name: str = NAME
    examples: ExamplesConfig
    """Settings of the examples; the cells differ from them only in the share of random holes."""
    sft: SftConfig
    evaluate: EvaluateConfig


def run(config: FimSplitConfig, finished: FinishedRun, *, output: str) -> Manifest:
    """Train what is not trained yet, write the experiment to the folder `output`; return its manifest.

    Raises InputError when the run has no finished corpus, tokenizer, base or examples.
    """
    uris = {stage: finished.artifact(stage) for stage in ("corpus", "tokenizer", "pretrain", "examples")}
    inputs = {name: experiment_run.digest(uri) for name, uri in uris.items()}

    def train(cell: str) -> str:
        split = replace(config.examples.split, random_share=RANDOM_SHARE[cell])
        sources = {name: uris[name] for name in ("corpus", "tokenizer")}
        settings = replace(config.examples, split=split)
        examples = execute("examples", settings, sources, finished.cells, label=f"examples-{cell}").uri
        parts = {"examples": examples, "model": uris["pretrain"]}
        return execute("sft", config.sft, parts, finished.cells, label=f"sft-{cell}").uri

    def experiment() -> Experiment:
        cells = ModelCells(config.evaluate, trained([*RANDOM_SHARE], train), uris["examples"])
        how = f"Both models were fine-tuned from the same base for {amount(config.sft.train)}."
        return Experiment(
            name=NAME,
            question="Does a model learn to complete, and to stop, better from syntactic holes than from random ones?",
            factor="holes",
            cells=[*RANDOM_SHARE],
            baseline="syntactic holes",
            measures=QUALITY,
            holes=[hole["id"] for hole in cells.holes],
            measure=cells.measure,
            setting=cells.setting("syntactic", how),
        )

    return experiment_run.run(experiment, config=config, inputs=inputs, output=output)
