"""The gain of drafts from the prompt: the same prompts answered with and without them, in turn, on a CPU.

Processor time is compared besides the time that passed, of which a busy machine adds to either.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.context.projects import Project
from infill import llama_cpp, machine
from infill.experiments.typed_sessions import TypedSession
from serving.predictor.folder import count_parameters
from serving.protocol import Sampling
from serving.transformer.packer import Packer
from serving.transformer.request import read_request

NEW: Final = 48
"""Tokens of an answer, which ends earlier where the model does."""
MOMENTS: Final = (4, 9)
"""Moments of each session at which it asks."""


Answer = Callable[[int, list[int]], dict[str, Any]]
"""Answer a prompt with drafts of a length: its tokens and times."""


def measured(
    folder: Path,
    packer: Packer,
    project: Project,
    sessions: Sequence[TypedSession],
    draft_tokens: Sequence[int],
    engine: str,
) -> dict[str, Any]:
    """Return the tokens per second of the answers by the length of drafts; of llama.cpp, the engine unless it is
    `transformers`, also how many drafted tokens were right."""
    lengths, rows = (0, *draft_tokens), list[dict[int, dict[str, Any]]]()
    with _torch(folder) if engine == "transformers" else _llama(folder, packer.budget + NEW, lengths) as answer:
        for number, prompt in enumerate(_prompts(packer, project, sessions)):
            order = lengths if number % 2 else lengths[::-1]
            rows.append({length: answer(length, prompt) for length in order})
    return {"prompts": len(rows), **{f"drafts_of_{length}": _figures(rows, length) for length in lengths}}


@contextmanager
def _llama(folder: Path, context: int, lengths: Sequence[int]) -> Iterator[Answer]:
    file = llama_cpp.convert(folder)
    servers = {length: _server(folder, file, context, length) for length in lengths}
    try:
        yield lambda length, prompt: _answer(servers[length], prompt)
    finally:
        for server in servers.values():
            server.close()


@contextmanager
def _torch(folder: Path) -> Iterator[Answer]:
    from serving.predictor.transformers_engine import TransformersEngine

    engine = TransformersEngine(folder, device="cpu")

    def answer(length: int, prompt: list[int]) -> dict[str, Any]:
        engine.draft_tokens, ids = length, list[int]()
        engine.cache.clear()
        with engine.session(prompt) as session:
            for token in engine.generate(session, Sampling(temperature=0.0, max_tokens=NEW), lambda: None):
                if not ids:
                    began, busy = time.perf_counter(), time.process_time()
                ids.append(token)
                if token in engine.stop_ids or len(ids) == NEW:
                    break
        passed, busy = time.perf_counter() - began, time.process_time() - busy
        return {"ids": ids, "predicted_n": len(ids), "predicted_ms": 1_000 * passed, "processor_ms": 1_000 * busy}

    yield answer
    engine.close()


def _server(folder: Path, file: Path, context: int, draft_tokens: int) -> llama_cpp.LlamaCppServer:
    threads = machine.useful_threads(count_parameters(folder))
    return llama_cpp.LlamaCppServer(file, context_length=context, slots=1, threads=threads, draft_tokens=draft_tokens)


def _prompts(packer: Packer, project: Project, sessions: Sequence[TypedSession]) -> list[list[int]]:
    """Return the packed prompts of some moments of each session, with the project's other files."""
    context = [{"path": path, "text": text} for path, text in project.items()]
    bodies = (session.body(session.moments[place]) for session in sessions for place in MOMENTS)
    return [packer.pack(read_request({**body, "context": context}, NEW)).prompt.ids for body in bodies]


def _answer(server: llama_cpp.LlamaCppServer, prompt: list[int]) -> dict[str, Any]:
    """Compute the prompt, then return its greedy answer's tokens, llama.cpp's own times of them, and this process's."""
    request = {"prompt": prompt, "cache_prompt": True, **llama_cpp.GREEDY}
    for _ in server.stream({**request, "n_predict": 1}):
        pass
    ids, last, busy = list[int](), dict[str, Any](), time.process_time()
    for event in server.stream({**request, "n_predict": NEW}):
        ids += event["tokens"] if "prompt_progress" not in event else []
        last = event
    return {"ids": ids, **last["timings"], "processor_ms": 1_000 * (time.process_time() - busy)}


def _figures(rows: Sequence[dict[int, dict[str, Any]]], length: int) -> dict[str, Any]:
    mine = [row[length] for row in rows]
    drafted, accepted = (sum(each.get(name, 0) for each in mine) for name in ("draft_n", "draft_n_accepted"))
    tokens, ms = sum(each["predicted_n"] for each in mine), sum(each["predicted_ms"] for each in mine)
    figures: dict[str, Any] = {"tokens_per_s": round(1_000 * tokens / ms, 1)}
    for name in ("predicted_ms", "processor_ms"):
        ratios = [row[length][name] / row[0][name] for row in rows]
        whole = sum(each[name] for each in mine) / sum(row[0][name] for row in rows)
        figures[f"{name}_by_plain"] = {"median": round(median(ratios), 3), "total": round(whole, 3)}
    return figures | {
        "drafted_by_token": round(drafted / tokens, 3),
        "accepted": round(accepted / drafted, 3) if drafted else None,
        "same_answers": sum(row[length]["ids"] == row[0]["ids"] for row in rows),
    }
