"""Measure what an engine on a GPU gives with the transformer in front: latency, and requests per second.

    python -m benchmarks.capacity --predictor URL --model FOLDER [--upstream-name NAME] [--repo DIR] [--rates N ...]

The engine (vLLM, or a predictor) runs already; the transformer is started here and has the project as a workspace. The
parts, in this order:

- `prompt`: prompts of random tokens that fill the context, sent to the engine, one after the other: the time to the
  first token of a new prompt, and of one whose last CHANGED tokens are new.
- `together`: new prompts, TOGETHER of them at once: how many the engine computes in a second.
- `typed`: the sessions of `infill.experiments.typed_sessions`, one request after the other, through the transformer:
  the time to the first event and to the end, of the first requests of `--sessions`, and of all later ones of WHOLE.
- `rates`: for each of `--rates`, requests that arrive at random at that rate, from as many users as a pause of a second
  between their requests takes; each user types one session after the other.

The weights do not matter for the time, so vLLM may run with `--load-format dummy`: then the tokens are noise, and every
answer has as many as it may have, or ends with its syntax.
"""

import argparse
import asyncio
import json
import random
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp

import infill
from benchmarks.context import projects
from benchmarks.keystrokes.layer import NAME, percentiles, transformer
from infill import entry, storage
from infill.cli_options import absolute_uri, input_folder, integer
from infill.errors import InputError
from infill.experiments.typed_sessions import TypedSession, sessions
from serving.events import EventReader

CHANGED: Final = 64
TOGETHER: Final = 8
PROMPTS: Final = 20
WHOLE: Final = 3
PLACES: Final = 20
"""Sessions from which users choose."""
PAUSE_S: Final = 1.0
"""Seconds between two requests of a user."""
Noise = Callable[[str, int], list[int]]
TIMEOUT: Final = aiohttp.ClientTimeout(total=120)


class Answer(NamedTuple):
    """The figures of one request; times in milliseconds."""

    first_ms: float
    total_ms: float
    prompt: int
    cached: int
    tokens: int


class Endpoint(NamedTuple):
    """A server and the fields that each request to it has."""

    http: aiohttp.ClientSession
    url: str
    settings: Mapping[str, Any]

    async def ask(self, body: Mapping[str, Any]) -> Answer:
        """Return the figures of a streamed answer. Raises aiohttp.ClientError for an answer that is an error.

        Raises InputError for a stream without usage.
        """
        asked = {**self.settings, **body, "stream": True, "stream_options": {"include_usage": True}, "temperature": 0}
        reader, first, counts, started = EventReader(), 0.0, dict[str, Any](), time.perf_counter()
        async with self.http.post(f"{self.url}/v1/completions", json=asked) as response:
            response.raise_for_status()
            async for chunk in response.content.iter_any():
                first = first or time.perf_counter()
                for data in reader.feed(chunk):
                    event = {} if data == b"[DONE]" else json.loads(data)
                    counts = event.get("usage") or counts
        ended = time.perf_counter()
        if not counts.get("prompt_tokens"):
            raise InputError(f"{self.url} sends no usage at the end of a stream, so that nothing can be counted")
        cached = (counts.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        times = (1_000 * (first - started), 1_000 * (ended - started))
        return Answer(*times, counts.get("prompt_tokens", 0), cached, counts.get("completion_tokens", 0))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = entry.Parser(prog="python -m benchmarks.capacity", description="Latency and requests/s of an engine.")
    parser.add_argument("--predictor", required=True, metavar="URL", help="the engine")
    parser.add_argument("--upstream-name", default="", metavar="NAME", help="the model's name at the engine")
    parser.add_argument("--model", type=absolute_uri, required=True, metavar="URI", help="its folder: the tokenizer")
    parser.add_argument(
        "--repo", type=input_folder, default=Path(infill.__file__).parent.parent, metavar="DIR", help="the project"
    )
    parser.add_argument("--rates", type=float, nargs="*", default=[11.0, 22.0], metavar="N", help="requests a second")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="N", help="how long each rate is tried")
    parser.add_argument(
        "--max-tokens", type=integer("the number of tokens", 1), default=32, metavar="N", help="of an answer"
    )
    count = integer("the number of sessions", 1)
    parser.add_argument("--sessions", type=count, default=20, metavar="N", help="whose first request counts")
    options = parser.parse_args(arguments)
    if min(options.rates, default=1.0) <= 0 or options.seconds <= 0:
        parser.error("--rates and --seconds must be above 0")
    try:
        print(json.dumps(_measured(options)))
    except (aiohttp.ClientError, TimeoutError) as error:
        said = str(error) or f"no answer within {TIMEOUT.total:g} s"
        raise InputError(
            f"{options.predictor}: {said}; is the engine started, and is --upstream-name its model?"
        ) from None


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of all parts."""
    config = storage.read_json(f"{options.model}/config.json")
    noise = partial(_noise, config["vocab_size"], secrets.token_hex(4))
    length = config["max_position_embeddings"] - options.max_tokens
    if length <= CHANGED:
        raise InputError(
            f"--max-tokens {options.max_tokens} leaves no room for a prompt in the context of {options.model}"
        )
    project = dict(projects.files(options.repo))
    typed = sessions(project, max(options.sessions, PLACES), options.repo.name)
    if not typed:
        raise InputError(f"{options.repo} has no lines to hide that are long enough: give --repo another folder")
    _log(f"{len(project)} files, {sum(map(len, project.values())):,} characters, {len(typed)} sessions")
    settings = {"model": options.upstream_name} if options.upstream_name else {}
    figures = asyncio.run(_engine(options.predictor, settings, noise, length))
    # Without the cache of completions, so that the engine computes each request.
    choices = ["--max_new_tokens", str(options.max_tokens), "--completion_cache_bytes", "0"]
    choices += ["--upstream_name", options.upstream_name] if options.upstream_name else []
    with transformer(options.model, options.predictor, project, choices, _log) as front:
        figures |= asyncio.run(_front(front.url, typed, options.sessions, options.max_tokens))
        figures["rates"] = {}
        for rate in options.rates:
            measured = asyncio.run(_arrivals(front.url, typed, rate, options.seconds, options.max_tokens))
            figures["rates"][f"{rate:g}"] = measured
            _log(f"{rate:g} requests/s: {json.dumps(measured)}")
    return figures


async def _engine(url: str, settings: Mapping[str, Any], noise: Noise, length: int) -> dict[str, Any]:
    """Return the parts that need no transformer; `length` is that of a prompt in tokens."""
    async with aiohttp.ClientSession(timeout=TIMEOUT) as http:
        engine = Endpoint(http, url, {**settings, "max_tokens": 1, "ignore_eos": True})
        await engine.ask({"prompt": noise("first", length)})  # allocates memory and loads kernels
        new, again = list[Answer](), list[Answer]()
        for number in range(PROMPTS):
            ids = noise(f"new {number}", length)
            new.append(await engine.ask({"prompt": ids}))
            ids[-CHANGED:] = noise(f"changed {number}", CHANGED)
            again.append(await engine.ask({"prompt": ids}))
        alone = {"tokens": length, "new": _first(new), "changed": _first(again)}
        _log(f"prompt: {json.dumps(alone)}")
        started = time.perf_counter()
        lanes = (_lane(engine, noise, length, lane) for lane in range(TOGETHER))
        answers = [answer for lane in await asyncio.gather(*lanes) for answer in lane]
        rate = len(answers) / (time.perf_counter() - started)
        many = {"requests_per_s": round(rate, 2), "tokens_per_s": round(rate * length), **_first(answers)}
        _log(f"together: {json.dumps(many)}")
    return {"prompt": alone, "together": many}


async def _lane(engine: Endpoint, noise: Noise, length: int, lane: int) -> list[Answer]:
    return [await engine.ask({"prompt": noise(f"lane {lane} {number}", length)}) for number in range(PROMPTS // 2)]


async def _front(url: str, typed: Sequence[TypedSession], count: int, max_tokens: int) -> dict[str, Any]:
    """Return what the first requests of `count` sessions took, and all later ones of WHOLE sessions."""
    async with aiohttp.ClientSession(timeout=TIMEOUT) as http:
        front = Endpoint(http, url, {"workspace": NAME, "max_tokens": max_tokens})
        await front.ask(_body(typed[-1], 0, "first"))
        starts = [await front.ask(_body(session, 0, f"typed-{n}")) for n, session in enumerate(typed[:count])]
        later = [
            await front.ask(_body(session, place, f"typed-{n}"))
            for n, session in enumerate(typed[:WHOLE])
            for place in range(1, len(session.moments))
        ]
    measured = {"start": _whole(starts), "later": _whole(later)}
    _log(f"typed: {json.dumps(measured)}")
    return {"typed": measured}


async def _arrivals(
    url: str, typed: Sequence[TypedSession], rate: float, seconds: float, max_tokens: int
) -> dict[str, Any]:
    """Return the figures of requests that arrive at random, `rate` of them a second, whatever the answers take."""
    chance, failed = random.Random(rate), list[str]()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=TIMEOUT) as http:
        front = Endpoint(http, url, {"workspace": NAME, "max_tokens": max_tokens})
        users = [_requests(typed, number, rate) for number in range(max(1, round(rate * PAUSE_S)))]
        answers = list[Answer]()

        async def one(body: Mapping[str, Any]) -> None:
            try:
                answers.append(await front.ask(body))
            except (aiohttp.ClientError, TimeoutError) as error:
                failed.append(str(error))

        started, due, asked = time.perf_counter(), 0.0, list[asyncio.Task[None]]()
        while due < seconds:
            await asyncio.sleep(started + due - time.perf_counter())
            asked.append(asyncio.create_task(one(next(chance.choice(users)))))
            due += chance.expovariate(rate)
        await asyncio.gather(*asked)
        spent = time.perf_counter() - started
    if not answers:
        raise InputError(f"none of {len(failed)} requests at {rate:g} a second was answered: {failed[:1]}")
    return {"requests_per_s": round(len(answers) / spent, 2), "failed": len(failed), **_whole(answers)}


def _requests(typed: Sequence[TypedSession], user: int, rate: float) -> Iterator[dict[str, Any]]:
    """Yield a user's requests: one session after the other, each with a session's name of its own."""
    chance, turn = random.Random(f"{rate} {user}"), 0
    while True:
        session, turn = chance.choice(typed), turn + 1
        for place in range(len(session.moments)):
            yield _body(session, place, f"rate-{rate:g}-{user}-{turn}")


def _body(session: TypedSession, place: int, name: str) -> dict[str, Any]:
    return session.body(session.moments[place], session=name)


def _first(answers: Sequence[Answer]) -> dict[str, Any]:
    return {"first_ms_p50_p90": percentiles([each.first_ms for each in answers], 50, 90), "cached": _cached(answers)}


def _whole(answers: Sequence[Answer]) -> dict[str, Any]:
    return {
        "requests": len(answers),
        "first_ms_p50_p90_p99": percentiles([each.first_ms for each in answers], 50, 90, 99),
        "total_ms_p50_p90_p99": percentiles([each.total_ms for each in answers], 50, 90, 99),
        "prompt_tokens": round(sum(each.prompt for each in answers) / len(answers)),
        "completion_tokens": round(sum(each.tokens for each in answers) / len(answers), 1),
        "cached": _cached(answers),
    }


def _cached(answers: Sequence[Answer]) -> float:
    """Return the share of the prompts' tokens that came from the KV cache."""
    return round(sum(each.cached for each in answers) / sum(each.prompt for each in answers), 4)


def _noise(vocabulary: int, salt: str, seed: str, length: int) -> list[int]:
    """Return `length` random tokens of the vocabulary's middle, without control tokens; the same ones for a seed."""
    return random.Random(salt + seed).choices(range(vocabulary // 4, 3 * vocabulary // 4), k=length)


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.capacity", main))
