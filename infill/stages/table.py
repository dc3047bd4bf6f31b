"""The table of stages, in the order in which the pipeline runs them, and what follows from it."""

from collections.abc import Mapping
from typing import Final

from infill.stages.contract import Stage, Where

MODELS: Final = ("base", "sft", "dpo")
"""The models of a run, in the order of their training."""
_EVALUATIONS: Final = tuple(f"evaluation_{name}" for name in MODELS)

_TABLE: Final = (
    Stage(
        name="corpus",
        module="infill.corpus.corpus_stage",
        where=Where.CPUS,
        command=("corpus", "build"),
        about="read sources, keep the files that may be trained on, and record why each other file was removed",
    ),
    Stage(
        name="tokenizer",
        module="infill.tokenizer",
        inputs=("corpus",),
        command=("tokenizer", "train"),
        about="train a byte-level BPE tokenizer on the corpus, or take that of a base model",
    ),
    Stage(
        name="pretrain",
        module="infill.train.pretrain",
        inputs=("corpus", "tokenizer"),
        where=Where.WORKERS,
        command=("train", "pretrain"),
        about="train a base model with file-level fill-in-the-middle, or import one",
    ),
    Stage(
        name="examples",
        module="infill.examples",
        inputs=("corpus", "tokenizer"),
        command=("examples", "build"),
        about="cut syntactic holes and find their context in the same repository",
    ),
    Stage(
        name="sft",
        module="infill.train.sft",
        inputs=("examples", "model"),
        where=Where.WORKERS,
        command=("train", "sft"),
        about="fine-tune on the middle of each hole",
    ),
    Stage(
        name="preferences",
        module="infill.preferences.preferences_stage",
        inputs=("examples", "model"),
        where=Where.GPU,
        command=("preferences", "build"),
        about="sample completions, judge them, and pair the better with the worse",
    ),
    Stage(
        name="dpo",
        module="infill.train.dpo",
        inputs=("preferences", "model"),
        where=Where.WORKERS,
        command=("train", "dpo"),
        about="prefer the chosen completion over the rejected one (direct preference optimisation)",
    ),
    Stage(
        name="evaluate",
        module="infill.evaluate.holes",
        inputs=("examples", "model"),
        where=Where.GPU,
        command=("evaluate",),
        about="complete the holes of held-out repositories and measure",
    ),
    Stage(
        name="register",
        module="infill.release.register",
        inputs=("examples", *(f"model_{name}" for name in MODELS), *_EVALUATIONS),
        command=("register",),
        about="choose the winner, compare it with the champion, and register it when the gate lets it through",
    ),
    Stage(
        name="deploy",
        module="infill.release.deploy",
        inputs=("decision",),
        about="write the deployment record that `infill serve` reads; on a cluster, serve the model by KServe",
    ),
    Stage(
        name="report",
        module="infill.report",
        inputs=("corpus", "tokenizer", "base", "examples", "sft", "preferences", "dpo", *_EVALUATIONS, "decision"),
        command=("report",),
        about="write one HTML file with plots, and the run's summary",
    ),
)

STAGES: Final[Mapping[str, Stage]] = {stage.name: stage for stage in _TABLE}
COMMANDS: Final[Mapping[tuple[str, ...], Stage]] = {stage.command: stage for stage in _TABLE if stage.command}
"""The stage that each command runs, by the command's words."""
RAY_STAGES: Final = tuple(stage.name for stage in _TABLE if stage.where is not Where.STEP)
"""Stages that outgrow one small pod; the others run in the pipeline's own step."""
GPU_STAGES: Final = tuple(stage.name for stage in _TABLE if stage.where in (Where.GPU, Where.WORKERS))
TRAINING_STAGES: Final = tuple(stage.name for stage in _TABLE if stage.where is Where.WORKERS)
