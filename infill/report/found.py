"""What the report reads of the stages' artifacts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from infill import manifest, storage
from infill.examples import read_holes
from infill.manifest import Manifest

Artifacts = dict[str, str]
"""Stage as it is called in MLflow -> URI of its artifact, in the order of the pipeline."""

TRAINED: Final = ("pretrain", "sft", "dpo")
MODELS: Final = ("base", "sft", "dpo")
SAMPLES: Final = 6
"""Holes whose completions are shown."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A hole and what each model put there."""

    path: str
    repo: str
    kind: str
    prefix: str
    middle: str
    suffix: str
    outputs: Mapping[str, str]
    """Model -> completion."""
    scores: Mapping[str, float]
    """Model -> the metric that decides."""


@dataclass(frozen=True, kw_only=True)
class Found:
    corpus: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    examples: Mapping[str, Any]
    preferences: Mapping[str, Any]
    histories: Mapping[str, list[dict[str, Any]]]
    """Training -> the rows of its history.jsonl; empty where a base model was imported."""
    learning: Mapping[str, list[dict[str, Any]]]
    """Training -> the rows of its samples.jsonl: completions of fixed holes over tokens seen."""
    records: Mapping[str, Mapping[str, Any]]
    """Model -> its evaluation's record.json."""
    decision: Mapping[str, Any]
    stages: Mapping[str, Manifest]
    samples: list[Sample]


def read(artifacts: Artifacts) -> Found:
    """All of it. Raises InputError when an artifact is missing or damaged."""
    reports = {
        name: storage.read_json(storage.join(artifacts[name], "report.json"))
        for name in ("corpus", "tokenizer", "examples", "preferences")
    }
    decision = storage.read_json(storage.join(artifacts["register"], "decision.json"))
    evaluations = {name: artifacts[f"evaluate-{name}"] for name in MODELS}
    return Found(
        **reports,
        histories={name: _rows(artifacts[name], "history.jsonl") for name in TRAINED},
        learning={name: _rows(artifacts[name], "samples.jsonl") for name in TRAINED},
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
    """The first holes in the order of their ids, which are hashes: nobody has chosen them."""
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
