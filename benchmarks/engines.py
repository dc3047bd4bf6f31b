"""Time to first token and decode rate of the predictor's engines on a CPU, cold and warm, with 1 and 4 sessions."""

import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from infill import manifest
from infill.model import context_length
from infill.prompt import load_encoder
from infill.storage import read_json
from infill.text import read_text
from serving import local
from serving.events import read_events

REPEATS: Final[Mapping[int, int]] = {256: 3, 1_024: 1, 4_096: 1}
"""Number of measurements for each prompt length in tokens; their median counts, and long prompts take minutes."""
NEW_TOKENS: Final = 33
SESSIONS: Final = (1, 4)
WARM_SHARE: Final = 0.99
"""Share of a warm prompt that the session has sent before."""
BASELINE: Final = "transformers"
VARIANTS: Final[Mapping[str, Sequence[str]]] = {
    BASELINE: ("--engine", "transformers"),
    "llama.cpp f16": ("--engine", "llama.cpp", "--gguf-type", "f16"),
    "llama.cpp q8_0": ("--engine", "llama.cpp", "--gguf-type", "q8_0"),
}
"""Arguments of the predictor for each engine."""

Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The times of one request."""

    first_token_s: float
    decode_s: float
    """Seconds from the first token to the last."""
    cached_tokens: int


def compare(model: str, *, quick: bool, threads: int, echo: Callable[[str], None]) -> dict[str, Any]:
    """Return the figures of each engine by prompt length and case, and the speedup of llama.cpp.

    All engines get the same prompts and `threads` threads (0 for their own default). They take turns within each case,
    so that changes in the machine's load affect them equally.
    """
    folder = manifest.fetch(model)
    context = context_length(read_json(str(folder / "config.json")))
    sizes = [size for size in list(REPEATS)[: 1 if quick else None] if size + NEW_TOKENS <= context]
    ids = _code(folder)
    engines: dict[str, dict[str, dict[str, Figures]]] = {name: {} for name in VARIANTS}
    with ExitStack() as stack:
        urls = {name: stack.enter_context(_predictor(model, name, threads, echo)) for name in VARIANTS}
        for size in sizes:
            for name, cases in _measure(urls, ids, size, 1 if quick else REPEATS[size]).items():
                engines[name][str(size)] = cases
                echo(f"{name}, {size} tokens: {json.dumps(cases)}")
    speedup = {name: _speedup(engines[BASELINE], cases) for name, cases in engines.items() if name != BASELINE}
    return {"threads": threads, "cores": len(os.sched_getaffinity(0)), "speedup": speedup, "engines": engines}


def _code(folder: Path) -> list[int]:
    """Return the token ids of Python code, more than any prompt needs."""
    text = "".join(read_text(file) for file in sorted(Path(os.__file__).parent.glob("[a-d]*.py")))
    return load_encoder(folder).encode(text[: 40 * max(REPEATS)])


@contextmanager
def _predictor(model: str, name: str, threads: int, echo: Callable[[str], None]) -> Iterator[str]:
    """Run a predictor; yield its URL."""
    port = local.free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ["--model", model, *VARIANTS[name], "--device", "cpu", "--threads", str(threads)]
    arguments += ["--port", str(port), "--timeout-s", "3600"]
    with local.server("predictor", "serving.predictor", url, arguments, echo, 600):
        yield url


def _measure(urls: Mapping[str, str], ids: Sequence[int], size: int, repeats: int) -> dict[str, dict[str, Figures]]:
    """Return each engine's figures by case at one prompt length."""
    figures: dict[str, dict[str, Figures]] = {name: {} for name in urls}
    for sessions in SESSIONS:
        timings: dict[tuple[str, str], list[Timing]] = {}
        for attempt in range(repeats):
            prompts = [_code_at(ids, size, (size, sessions, attempt, number)) for number in range(sessions)]
            edited = [_edited(prompt, ids, number) for number, prompt in enumerate(prompts)]
            for name, url in urls.items():
                for case, batch in ((f"cold_{sessions}", prompts), (f"warm_{sessions}", edited)):
                    timings.setdefault((name, case), []).extend(_at_once(url, batch))
        for (name, case), measured in timings.items():
            figures[name][case] = _summary(measured, size)
    return figures


def _code_at(ids: Sequence[int], size: int, seed: object) -> list[int]:
    start = random.Random(str(seed)).randrange(len(ids) - size)
    return list(ids[start : start + size])


def _edited(prompt: Sequence[int], ids: Sequence[int], seed: int) -> list[int]:
    """Return `prompt` with a different end."""
    kept = int(len(prompt) * WARM_SHARE)
    return [*prompt[:kept], *_code_at(ids, len(prompt) - kept, seed)]


def _at_once(url: str, prompts: Sequence[Sequence[int]]) -> list[Timing]:
    with ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(lambda prompt: _complete(url, prompt), prompts))


def _complete(url: str, prompt: Sequence[int]) -> Timing:
    body = {"prompt": prompt, "max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    started = time.perf_counter()
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=3_600, trust_env=False) as response:
        response.raise_for_status()
        arrivals = [(time.perf_counter(), data) for data in read_events(response.iter_bytes())]
    usage = json.loads(arrivals[-2][1])["usage"]  # the last event is [DONE]
    return Timing(
        first_token_s=arrivals[0][0] - started,
        decode_s=arrivals[-1][0] - arrivals[0][0],
        cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
    )


def _summary(timings: Sequence[Timing], size: int) -> Figures:
    """Return the medians over `timings`."""
    first_token_s = statistics.median(timing.first_token_s for timing in timings)
    decode_s = statistics.median(timing.decode_s for timing in timings)
    return {
        "first_token_ms": round(1_000 * first_token_s, 1),
        "decode_tokens_per_s": round((NEW_TOKENS - 1) / decode_s, 1),
        "whole_s": round(statistics.median(timing.first_token_s + timing.decode_s for timing in timings), 2),
        "cached_share": round(statistics.median(timing.cached_tokens for timing in timings) / size, 3),
    }


def _speedup(
    base: Mapping[str, Mapping[str, Figures]], other: Mapping[str, Mapping[str, Figures]]
) -> dict[str, dict[str, Figures]]:
    """Return the factor by which each of `other`'s figures is better than `base`'s."""
    return {
        size: {
            case: {
                "first_token": round(base[size][case]["first_token_ms"] / figures["first_token_ms"], 2),
                "decode": round(figures["decode_tokens_per_s"] / base[size][case]["decode_tokens_per_s"], 2),
                "whole": round(base[size][case]["whole_s"] / figures["whole_s"], 2),
            }
            for case, figures in cases.items()
        }
        for size, cases in other.items()
    }
