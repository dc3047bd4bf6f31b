"""Models and evaluations as the stages leave them: what the gate reads is real, the numbers are given."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from infill import manifest, storage
from infill.config import EvaluateConfig
from infill.evaluate.statistics import interval
from tests.builders import once, tiny_tokenizer


def model(folder: Path) -> str:
    """The URI of a folder with a manifest and a prompt format; its digest differs by the folder's name."""
    return tiny_tokenizer(folder, vocab_size=300)


def evaluation(folder: Path, model_uri: str, scores: Sequence[float], benchmark: str = "holes") -> str:
    """The URI of an evaluation that gave the hole number i the kk `scores[i]`."""
    ids = [f"hole-{number}" for number in range(len(scores))]

    def body() -> Mapping[str, float]:
        rows = pa.table({"id": ids, "language": ["python"] * len(ids), "kk": pa.array(scores, pa.float32())})
        storage.write_table(f"{folder}/results.parquet", rows)
        record = {
            "model_uri": model_uri,
            "model_digest": manifest.digest_of(model_uri),
            "benchmark_digest": hashlib.sha256(benchmark.encode()).hexdigest(),
            "holes": len(ids),
            "metrics": {"kk": interval("kk", list(scores), resamples=50, seed=0)},
            "by_kind": {},
            "by_language": {},
        }
        storage.write_json(f"{folder}/record.json", record)
        return {}

    inputs = {"model": manifest.digest_of(model_uri), "scores": repr(list(scores))}
    once(stage="evaluate", version=1, config=EvaluateConfig(), inputs=inputs, output=str(folder), body=body)
    return str(folder)
