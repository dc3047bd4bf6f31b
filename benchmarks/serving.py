"""Measure the latency that the transformer adds to the predictor, and the savings of the predictor's KV cache.

    python -m benchmarks.serving [--quick] [--model URI] [--repo DIR] [--engines] [--threads N]

It simulates one developer who types: the caret advances by a few characters per request in a file of the project, and
each request contains the other files. At each step the same prompt is sent to the predictor directly and through the
transformer, twice each in turn after a first call that fills the KV cache, and one token is returned. The difference is
HTTP, JSON, indexing, ranking, packing and tokenising. The model is tiny by default, so that the forward pass does not
hide the overhead.

With `--engines` the predictor's two engines are compared instead (`benchmarks.engines`); use a real model for that.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

import infill
from benchmarks import engines
from infill import entry
from infill.cli_options import absolute_uri, input_folder
from infill.errors import InputError
from infill.text import read_text
from serving import local
from serving.client import project_files
from serving.events import read_events
from serving.transformer.request import read_request
from serving.transformer.service import build_packer
from serving.transformer.transformer_config import TransformerConfig, prepare
from tests.builders import tiny_model

CONTEXT_LENGTH = 2_048
MAX_NEW = 16
KEYS = 3
"""Characters typed between two requests."""
DIRECT = {"max_tokens": 1, "temperature": 0, "ignore_eos": True}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = entry.Parser(prog="python -m benchmarks.serving", description="Overhead of the transformer.")
    parser.add_argument("--quick", action="store_true", help="10 steps instead of 100")
    parser.add_argument("--model", type=absolute_uri, metavar="URI", help="this model folder instead of a tiny one")
    parser.add_argument(
        "--repo", type=input_folder, default=Path(infill.__file__).parent, metavar="DIR", help="the project"
    )
    parser.add_argument("--engines", action="store_true", help="compare transformers and llama.cpp instead")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="threads of each engine; 0 for its default")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or tiny_model(Path(folder) / "model", context_length=CONTEXT_LENGTH)
        if options.engines:
            print(json.dumps(engines.compare(model, quick=options.quick, threads=options.threads, echo=_log)))
            return
        print(json.dumps(_run(model, options.repo, 10 if options.quick else 100)))


def _run(model: str, repo: Path, steps: int) -> dict[str, Any]:
    """Return all figures for `steps` requests of one typing session."""
    config = TransformerConfig(model=model, max_new_tokens=MAX_NEW)
    packer = build_packer(config, prepare(config))
    bodies = _bodies(repo, steps)
    cold, direct, through, first = [], [], [], []
    reused: list[float] = []
    both = local.servers(
        model, transformer=["--max_new_tokens", str(MAX_NEW), "--completion_cache_bytes", "0"], echo=_log
    )
    with both as (predictor, transformer), httpx.Client(timeout=120, trust_env=False) as client:
        for body in bodies:
            ids = packer.pack(read_request(body, MAX_NEW)).prompt.ids
            direct_body = {"prompt": ids, **DIRECT}
            cold.append(_timed(_first_time, client, predictor.url, direct_body, reused))
            for _ in range(2):
                direct.append(_timed(_post, client, predictor.url, direct_body))
                through.append(_timed(_post, client, transformer.url, body))
            first.append(_timed(_first_event, client, transformer.url, body))
    overhead = [after - before for before, after in zip(direct, through, strict=True)]
    return {
        "overhead_ms_p50": _percentile(overhead, 50),
        "overhead_ms_p95": _percentile(overhead, 95),
        "direct_ms_p50": _percentile(direct, 50),
        "direct_ms_p95": _percentile(direct, 95),
        "transformer_ms_p50": _percentile(through, 50),
        "transformer_ms_p95": _percentile(through, 95),
        "first_event_ms_p50": _percentile(first, 50),
        "first_event_ms_p95": _percentile(first, 95),
        "new_prompt_ms_p50": _percentile(cold, 50),
        "reused_share": round(statistics.fmean(reused[1:]), 4),
        "steps": steps,
        "prompt_tokens": len(ids),
        "body_bytes": len(json.dumps(bodies[-1])),
        "files": len(bodies[-1]["context"]),
    }


def _bodies(repo: Path, steps: int) -> list[dict[str, Any]]:
    """Return the requests of a typing session in the project's largest file, from a third of it on."""
    largest = max(repo.rglob("*.py"), key=lambda file: file.stat().st_size, default=None)
    if largest is None:
        raise InputError(f"{repo} has no Python file to type in: give --repo another folder")
    path, text = largest.relative_to(repo).as_posix(), read_text(largest)
    context = project_files(repo, path)
    suffix = text[len(text) * 2 // 3 :]
    carets = [len(text) // 3 + KEYS * step for step in range(steps)]
    same = {"path": path, "suffix": suffix, "context": context, "session": "benchmark", **DIRECT}
    return [{"prompt": text[:caret], **same} for caret in carets]


def _post(client: httpx.Client, url: str, body: dict[str, Any]) -> None:
    client.post(f"{url}/v1/completions", json=body).raise_for_status()


def _first_event(client: httpx.Client, url: str, body: dict[str, Any]) -> None:
    """Wait for the first event of a stream, then close it."""
    with client.stream("POST", f"{url}/v1/completions", json=body | {"stream": True}) as response:
        next(read_events(response.iter_bytes()))


def _first_time(client: httpx.Client, url: str, body: dict[str, Any], reused: list[float]) -> None:
    """Request a completion, and append to `reused` the share of the prompt's tokens that the KV cache held."""
    counts = client.post(f"{url}/v1/completions", json=body).raise_for_status().json()["usage"]
    reused.append(counts["prompt_tokens_details"]["cached_tokens"] / counts["prompt_tokens"])


def _timed(call: Callable[..., None], *arguments: Any) -> float:
    """Return the milliseconds that a call takes."""
    started = time.perf_counter()
    call(*arguments)
    return (time.perf_counter() - started) * 1000


def _percentile(values: Sequence[float], percent: int) -> float:
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 2)


def _log(line: str) -> None:
    if "kserve" not in line and "uvicorn" not in line:
        print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.serving", main))
