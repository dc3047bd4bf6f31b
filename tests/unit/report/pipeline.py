"""A finished pipeline run in a folder: every artifact that the report reads, with numbers that a reader can check."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from infill import storage
from infill.artifacts.examples import SCHEMA
from infill.evaluate.statistics import interval
from infill.metrics import METRICS
from tests.builders import once

HOSTILE: Final = "</pre><script>alert('x')</script>&amp;"
KINDS: Final = ("block to block", "line_start to line_middle", "token_middle to line_start")
QUALITY: Final = {"base": 0.15, "sft": 0.35, "dpo": 0.3}


@dataclass(frozen=True)
class _Config:
    name: str


def write(folder: Path, *, imported: bool = False, passed: bool = True, canary: bool = False) -> dict[str, str]:
    """Stage -> URI of its artifact, in the order in which `report.run` takes them."""
    evaluations = {
        f"evaluate-{name}": {"record.json": _record(name), "results.parquet": _results(name)} for name in QUALITY
    }
    corpus, tokenizer = _artifact(folder, "corpus", {"report.json": _corpus()}), _tokenizer(folder)
    base = {} if imported else {"history.jsonl": _history(4.8, 2.1), "samples.jsonl": _samples()}
    return {
        "corpus": corpus,
        "tokenizer": tokenizer,
        "pretrain": _artifact(folder, "pretrain", base, {} if imported else {"loss_first": 4.8, "loss_last": 2.1}),
        "examples": _artifact(folder, "examples", {"examples/test.parquet": _holes(), "report.json": {"holes": 40}}),
        "sft": _artifact(folder, "sft", {"history.jsonl": _history(2.4, 1.3)}, {"loss_first": 2.4, "loss_last": 1.3}),
        "preferences": _artifact(folder, "preferences", {"report.json": {"pairs": 12, "judge": "rules"}}),
        "dpo": _artifact(folder, "dpo", {"history.jsonl": _history(0.69, 0.52)}, {"loss_first": 0.69}),
        **{name: _artifact(folder, name, files) for name, files in evaluations.items()},
        "register": _artifact(folder, "register", {"decision.json": _decision(passed, canary)}),
    }


def _artifact(folder: Path, name: str, files: Mapping[str, Any], metrics: Mapping[str, float] | None = None) -> str:
    uri = str(folder / name)

    def body() -> Mapping[str, float]:
        for file, value in files.items():
            if isinstance(value, pa.Table):
                storage.write_table(f"{uri}/{file}", value)
            elif isinstance(value, str):
                storage.write_bytes(f"{uri}/{file}", value.encode())
            else:
                storage.write_json(f"{uri}/{file}", value)
        return metrics or {}

    once(stage=name, version=1, config=_Config(name), inputs={}, output=uri, body=body)
    return uri


def _corpus() -> dict[str, Any]:
    def group(names: list[str]) -> dict[str, dict[str, int]]:
        return {name: {"documents": 400 // (n + 1), "bytes": 9_000_000 // (n + 1)} for n, name in enumerate(names)}

    return {
        "documents_kept": 1_234,
        "documents_removed": 321,
        "bytes_kept": 51_000_000,
        "repositories": 87,
        "removed": group(["licence", "duplicate", "too_large", HOSTILE]),
        "by_licence": group(["MIT", "BSD-3-Clause", "Apache-2.0", "PSF-2.0"]),
        "by_language": group(["python", "c", "markdown", *(f"language_{n}" for n in range(14))]),
    }


def _tokenizer(folder: Path) -> str:
    report = {
        "vocab_size": 4_096,
        "held_out": True,
        "bytes_per_token": 3.37,
        "bytes_per_token_by_language": {"python": 3.5, "c": 2.9, "markdown": 3.6},
        "round_trip": 1.0,
        "unused_share": 0.07,
        "tokens": 14_200_000,
    }
    return _artifact(folder, "tokenizer", {"report.json": report})


def _history(first: float, last: float) -> str:
    rows = []
    for step in range(1, 61):
        loss = last + (first - last) * math.exp(-step / 12) + 0.04 * math.sin(step * 2.3)
        speed = {"tokens_per_s": 5_000.0 + step, "data_wait_share": 0.004, "flops": 1e9 * step, "memory_peak_mb": 812.0}
        where = {"device": "NVIDIA <H200>", "workers": 2, "mfu": 0.451}
        row = {"step": step, "tokens": step * 20_480, "loss": loss, "lr": 0.001, **speed, **where}
        rows.append(row | ({"validation_loss": loss + 0.05} if step % 15 == 0 else {}))
    return "".join(json.dumps(row) + "\n" for row in rows)


def _samples() -> str:
    """Two holes at eight times; one of them tries to write into the page."""
    written = [
        "",
        "re",
        "return",
        "return self",
        HOSTILE,
        "return self.size",
        "return size",
        "return self.size * scale",
    ]
    rows = [
        {
            "step": step,
            "tokens": 20_480 * step,
            "hole": hole,
            "path": "shapes/area.py",
            "before": "    def area(self):\n        ",
            "expected": "return self.size * scale",
            "completion": completion,
            "after": "\n",
        }
        for step, completion in enumerate(written, 1)
        for hole in (1, 2)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def _scores(model: str, hole: int) -> dict[str, float]:
    return {name: float((hole * 7 + len(name)) % 20 < 20 * QUALITY[model]) for name in METRICS}


def _record(model: str) -> dict[str, Any]:
    def figures(holes: range) -> dict[str, dict[str, float]]:
        return {
            name: interval(name, [_scores(model, hole)[name] for hole in holes], resamples=100, seed=0)
            for name in METRICS
        }

    return {
        "model_uri": f"/store/{model}",
        "model_digest": model,
        "benchmark_digest": "holes",
        "holes": 40,
        "metrics": figures(range(40)),
        "by_kind": {kind: {"holes": 13, "metrics": figures(range(n, 40, 3))} for n, kind in enumerate(KINDS)},
        "by_language": {"python": {"holes": 40, "metrics": figures(range(40))}},
    }


def _results(model: str) -> pa.Table:
    outputs = ["return self.size * scale", "", f"# {HOSTILE}", "for name in names:\n        found.append(name)"]
    return pa.Table.from_pylist(
        [
            {
                "id": f"{hole:04d}",
                "kind": KINDS[hole % 3],
                "output": outputs[(hole + len(model)) % 4],
                **_scores(model, hole),
            }
            for hole in range(40)
        ]
    )


def _holes() -> pa.Table:
    rows: list[dict[str, Any]] = [
        {
            **dict.fromkeys(SCHEMA.names, ""),
            "id": f"{hole:04d}",
            "repo": "team/shapes",
            "language": "go" if hole % 4 == 1 else "python",
            "unit": "block" if hole % 3 else "statement",
            "path": "shapes/area.py" if hole else HOSTILE,
            "prefix": "class Shape:\n    size: int\n\n    def area(self, scale: float) -> float:\n        ",
            "middle": "return self.size * scale",
            "suffix": "\n\n\ndef largest(shapes):\n    return max(shapes)\n",
            "context": [],
        }
        for hole in range(40)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _decision(passed: bool, canary: bool) -> dict[str, Any]:
    return {
        "winner": "sft",
        "passed": passed,
        "canary": canary,
        "reason": "sft has the highest kk (base 0.1500, sft 0.3500, dpo 0.3000). No floors are set.",
        "metric": "kk",
        "comparison": None,
        "model_uri": "/store/sft",
        "model_digest": "sft",
        "prompt_format_hash": "0" * 64,
        "evaluation": {"champion": _record("base")["metrics"]} if not passed else {},
        "champion_before": None,
        "name": "infill",
    }
