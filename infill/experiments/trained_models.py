"""Experiments that train: the cells are models, each trained from the same one with one thing changed.

The stages write to a store in the folder of a finished run, where each of their results has an address of its own. So
a training that was killed continues, and one that an earlier experiment needed, too, is not repeated. It is not the
run's own store, whose newest artifacts are the run's.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from infill import manifest, storage
from infill.artifacts.examples import read_holes
from infill.config import EvaluateConfig, TrainConfig
from infill.errors import InputError
from infill.evaluate.generation import Generator
from infill.evaluate.holes import complete
from infill.evaluate.latency import machine_name
from infill.experiments.experiment import Measure

QUALITY: Final = (
    Measure(name="edit_similarity", label="edit similarity"),
    Measure(name="chrf", label="chrF"),
    Measure(name="kk", label="KK"),
    Measure(name="exact_match", label="exact match"),
    Measure(name="bits_per_byte", label="bits per byte of the true middle", higher_is_better=False),
    Measure(name="length_error", label="error of the length", unit="characters", higher_is_better=False),
    Measure(name="over_generation", label="too long", higher_is_better=False),
    Measure(name="under_generation", label="too short", higher_is_better=False),
    Measure(name="eot_rate", label="ended by itself"),
    Measure(name="output_chars", label="length", unit="characters", higher_is_better=None),
)
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedRun:
    """The artifacts of a run, in the folder that `infill run --out` wrote."""

    folder: Path

    @property
    def cells(self) -> str:
        """The store of what experiments build and train."""
        return str(self.folder / "experiments")

    def artifact(self, stage: str) -> str:
        """Return the newest artifact of a stage. Raises InputError if there is none."""
        file = manifest.newest(self.folder / "store", stage)
        if file is None:
            raise InputError(f"{self.folder} has no finished stage {stage}: name the --out of an `infill run`")
        return storage.parent(file)


class ModelCells:
    """Completes holes with the models of the cells, each of which is loaded once."""

    def __init__(self, config: EvaluateConfig, models: Mapping[str, str], examples: str) -> None:
        """Take the models by cell. Raises InputError when there are no test holes."""
        self.holes: list[dict[str, Any]] = read_holes(examples, "test", config.holes).to_pylist()
        if not self.holes:
            raise InputError(f"{examples} has no test holes; build examples or a benchmark that has some")
        self._config = config
        self.generator: Callable[[str], Generator] = cache(lambda cell: Generator(storage.fetch(models[cell])))

    def measure(self, cell: str, place: int) -> dict[str, Any]:
        """Return the completion of a hole, its scores and its length, and how far that is from the truth."""
        hole = self.holes[place]
        (result,) = complete(self._config, self.generator(cell), [hole], bits=True)
        length = len(result["output"])
        scores = {each.name: result[each.name] for each in QUALITY if each.name in result}
        error = float(abs(length - len(hole["middle"])))
        return {**scores, "length_error": error, "output_chars": float(length), "output": result["output"]}

    def setting(self, cell: str, trainings: str) -> list[str]:
        """Return the sentences of the report on what was measured, after `trainings`, which says how it was trained."""
        languages = ", ".join(sorted({hole["language"] for hole in self.holes}))
        middle = sum(len(hole["middle"]) for hole in self.holes) / len(self.holes)
        return [
            f"{trainings} Each model completes the same {len(self.holes)} holes ({languages}) greedily, with prompts "
            f"of at most {self._config.max_prompt_tokens:,} tokens and at most {self._config.max_new_tokens} new ones, "
            f"on {machine_name(self.generator(cell))}. A true middle has {middle:.0f} characters on average. "
            "Each model was trained once: the intervals are over holes, and another training of a cell may differ, too."
        ]


def amount(config: TrainConfig) -> str:
    """Return how much a training with these settings reads, in words."""
    return f"{config.steps:,} steps of {config.batch_tokens:,} positions"


def trained(cells: Sequence[str], train: Callable[[str], str]) -> dict[str, str]:
    """Return the folder of the model of each cell; `train` trains one, unless it is there."""
    models = {}
    for number, cell in enumerate(cells, 1):
        log.info("experiment: model %d of %d, %s", number, len(cells), cell)
        models[cell] = train(cell)
    return models
