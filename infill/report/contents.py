"""The contents of the stages' artifacts, as the report reads them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from infill import manifest, storage
from infill.examples import read_holes
from infill.manifest import Manifest
from infill.release import decision as decisions
from infill.stages.table import MODELS, TRAINING_STAGES

Artifacts = dict[str, str]
"""URI of each stage's artifact by the stage's name in MLflow, in the order of the pipeline."""

SAMPLES: Final = 6
"""Number of holes whose completions are shown."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A hole and the models' completions."""

    path: str
    repo: str
    kind: str
    prefix: str
    middle: str
    suffix: str
    outputs: Mapping[str, str]
    """Completions by model."""
    scores: Mapping[str, float]
    """Values of the deciding metric by model."""


@dataclass(frozen=True, kw_only=True)
class Contents:
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
    decision: Mapping[str, Any]
    stages: Mapping[str, Manifest]
    samples: list[Sample]


def read(artifacts: Artifacts) -> Contents:
    """Return the contents of `artifacts`. Raises InputError when one is missing or damaged."""
    reports = {
        name: storage.read_json(storage.join(artifacts[name], "report.json"))
        for name in ("corpus", "tokenizer", "examples", "preferences")
    }
    decision = decisions.read(artifacts["register"])
    evaluations = {name: artifacts[f"evaluate-{name}"] for name in MODELS}
    return Contents(
        **reports,
        histories={name: _rows(artifacts[name], "history.jsonl") for name in TRAINING_STAGES},
        learning={name: _rows(artifacts[name], "samples.jsonl") for name in TRAINING_STAGES},
        records={name: storage.read_json(storage.join(uri, "record.json")) for name, uri in evaluations.items()},
        decision=decision,
        stages={name: manifest.load(uri) for name, uri in artifacts.items()},
        samples=_samples(artifacts["examples"], evaluations, decision["metric"]),
    )


def _rows(uri: str, name: str) -> list[dict[str, Any]]:
    file = storage.join(uri, name)
    if not storage.exists(file):
        return []
    return [json.loads(line) for line in storage.read_bytes(file).split(b"\n") if line]


def _samples(examples: str, evaluations: Mapping[str, str], metric: str) -> list[Sample]:
    """Return the first holes in the order of their ids, which are hashes, so the choice is random."""
    columns = ["id", "kind", "output", metric]
    results = {
        name: {row["id"]: row for row in storage.read_table(f"{uri}/results.parquet", columns).to_pylist()}
        for name, uri in evaluations.items()
    }
    return [
        Sample(
            path=hole["path"],
            repo=hole["repo"],
            kind=results[MODELS[0]][hole["id"]]["kind"],
            prefix=hole["prefix"],
            middle=hole["middle"],
            suffix=hole["suffix"],
            outputs={name: rows[hole["id"]]["output"] for name, rows in results.items()},
            scores={name: rows[hole["id"]][metric] for name, rows in results.items()},
        )
        for hole in read_holes(examples, "test", SAMPLES).to_pylist()
        if all(hole["id"] in rows for rows in results.values())
    ]
