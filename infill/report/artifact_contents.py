"""The contents of the stages' artifacts, as the report reads them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

from infill import manifest
from infill.artifacts import decision as decisions
from infill.artifacts.evaluation import read_record, read_results
from infill.artifacts.examples import read_holes
from infill.evaluate.statistics import Comparison, compare
from infill.manifest import Manifest
from infill.metrics import METRICS
from infill.stages.table import MODELS, TRAINING_STAGES
from infill.train import history

Artifacts = dict[str, str]
"""URI of each stage's artifact by the stage's name in MLflow, in the order of the pipeline."""

SAMPLES: Final = 100
"""Number of holes whose completions are shown."""
WORST: Final = 40
"""Number of those, at most, at which a later model did worse; the others are the first in the order of their ids."""
WORSE, BETTER, RIGHT, SAME = VERDICTS = ("worse", "better", "all right", "same")
"""A hole's verdicts: a later model scores lower there than an earlier one; higher, and none lower; all write the
author's text; all score alike."""
RESAMPLES: Final = 1_000
"""Resamples of the bootstrap of each comparison."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A hole and the models' completions."""

    path: str
    repo: str
    language: str
    unit: str
    kind: str
    prefix: str
    middle: str
    suffix: str
    outputs: Mapping[str, str]
    """Completions by model."""
    scores: Mapping[str, float]
    """Values of the deciding metric by model, in the order of training."""

    @property
    def loss(self) -> float:
        """The largest difference by which a later model scores lower than an earlier one."""
        return max(before - after for before, after in combinations(self.scores.values(), 2))

    @property
    def verdict(self) -> str:
        """One of VERDICTS."""
        if self.loss > 0:
            return WORSE
        if len(set(self.scores.values())) > 1:
            return BETTER
        return RIGHT if all(output == self.middle for output in self.outputs.values()) else SAME


@dataclass(frozen=True, kw_only=True)
class ArtifactContents:
    """The contents of a run's artifacts."""

    corpus: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    examples: Mapping[str, Any]
    preferences: Mapping[str, Any]
    histories: Mapping[str, list[dict[str, Any]]]
    """Rows of history.jsonl by training; empty for an imported base model."""
    learning: Mapping[str, list[dict[str, Any]]]
    """Rows of samples.jsonl by training: completions of fixed holes over tokens seen."""
    records: Mapping[str, Mapping[str, Any]]
    """Content of the evaluation's record.json by model."""
    comparisons: Mapping[tuple[str, str], Mapping[str, Comparison]]
    """Each metric's comparison of two models on the holes of both, the later model first."""
    decision: Mapping[str, Any]
    stages: Mapping[str, Manifest]
    samples: list[Sample]
    """Holes to show: the worst losses first, then the others in the order of their ids."""
    verdicts: Mapping[str, int]
    """Number of holes by verdict, those that are not shown included."""


def read(artifacts: Artifacts) -> ArtifactContents:
    """Return the contents of `artifacts`. Raises InputError when one is missing or damaged."""
    reports = {
        name: manifest.read_report(artifacts[name]) for name in ("corpus", "tokenizer", "examples", "preferences")
    }
    decision = decisions.read(artifacts["register"])
    evaluations = {name: artifacts[f"evaluate-{name}"] for name in MODELS}
    samples = _samples(artifacts["examples"], evaluations, decision["metric"])
    return ArtifactContents(
        **reports,
        histories={name: history.read(artifacts[name]) for name in TRAINING_STAGES},
        learning={name: history.read(artifacts[name], history.SAMPLES_FILE) for name in TRAINING_STAGES},
        records={name: read_record(uri) for name, uri in evaluations.items()},
        comparisons=_comparisons(evaluations),
        decision=decision,
        stages={name: manifest.load(uri) for name, uri in artifacts.items()},
        samples=_shown(samples),
        verdicts=Counter(sample.verdict for sample in samples),
    )


def _comparisons(evaluations: Mapping[str, str]) -> dict[tuple[str, str], dict[str, Comparison]]:
    rows = {
        name: {row.pop("id"): row for row in read_results(uri, ["id", *METRICS]).to_pylist()}
        for name, uri in evaluations.items()
    }
    result = {}
    for earlier, later in combinations(MODELS, 2):
        holes = sorted(rows[earlier].keys() & rows[later].keys())
        if holes:
            result[later, earlier] = {
                metric: compare(
                    metric,
                    [rows[later][hole][metric] for hole in holes],
                    [rows[earlier][hole][metric] for hole in holes],
                    resamples=RESAMPLES,
                    seed=0,
                )
                for metric in METRICS
            }
    return result


def _samples(examples: str, evaluations: Mapping[str, str], metric: str) -> list[Sample]:
    """Return all holes that every model completed, in the order of their ids, which are hashes."""
    columns = ["id", "kind", "output", metric]
    completions = {
        name: {row["id"]: row for row in read_results(uri, columns).to_pylist()} for name, uri in evaluations.items()
    }
    most = max(map(len, completions.values()))
    return [
        Sample(
            **{name: hole[name] for name in ("path", "repo", "language", "unit", "prefix", "middle", "suffix")},
            kind=completions[MODELS[0]][hole["id"]]["kind"],
            outputs={name: rows[hole["id"]]["output"] for name, rows in completions.items()},
            scores={name: rows[hole["id"]][metric] for name, rows in completions.items()},
        )
        for hole in read_holes(examples, "test", most).to_pylist()
        if all(hole["id"] in rows for rows in completions.values())
    ]


def _shown(samples: list[Sample]) -> list[Sample]:
    """Return the samples with the worst losses, largest first, and then the first of the others, SAMPLES in all."""
    places = sorted(range(len(samples)), key=lambda place: -samples[place].loss)  # equal losses keep their order
    worst = [place for place in places[:WORST] if samples[place].verdict == WORSE]
    others = [place for place in range(len(samples)) if place not in worst]
    return [samples[place] for place in [*worst, *others[: SAMPLES - len(worst)]]]
