"""Reuse of the KV cache against fresh context, with a real model: latency and what is lost; one JSON line last.

    python -m benchmarks.fresh_context --model URI --repo DIR [--repo DIR ...] [--sessions N] [--keep FILE] [--quick]

Sessions of typing are replayed as in `benchmarks.context.replay`, once for each price of computing a token of the
prompt again (`PackingRules.prefill_price`): 0 always takes the fresh items, the default keeps most, the highest keeps
all. At some moments of each session the model completes the line from the prompt of each price. The output has for each
price the tokens that are computed again between two keystrokes, the seconds that this takes at the measured speed of
this model here, the lines completed right, and the bits per byte of what was typed next; and the paired differences
from price 0.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks import completions
from benchmarks.context import projects
from benchmarks.context.replay import request_after
from infill import entry, metrics, storage
from infill.cli_options import absolute_uri, input_folder, integer
from infill.context import ProjectIndex
from infill.context.packing import RULES, Packed, PackingRules, pack
from infill.evaluate.generation import Generator
from infill.evaluate.statistics import compare
from infill.experiments import needed_names
from infill.experiments.typed_sessions import CHARS, STEPS
from infill.file_kinds import CODE, language_of

PRICES: Final = (0.0, 0.2, RULES.prefill_price, 1e9)
"""The price at which nothing is replaced has a number, since 0 times infinity has none."""
MOMENTS: Final = (13, 26, 39)
"""Keystrokes, of three characters each, after which the model is asked."""
BUDGET: Final = 1_024
NEW_TOKENS: Final = 32
RESAMPLES: Final = 2_000


class Moment(NamedTuple):
    """A prompt from which the model completes a line."""

    ids: list[int]
    rest: str
    """The rest of the line and its end."""


class Session(NamedTuple):
    """A replay with one price."""

    new_tokens: list[int]
    """Tokens computed again at each keystroke."""
    moments: list[Moment]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = entry.Parser(prog="python -m benchmarks.fresh_context", description="The KV cache or fresh context.")
    parser.add_argument("--model", type=absolute_uri, required=True, metavar="URI", help="folder of a model")
    parser.add_argument("--repo", type=input_folder, action="append", required=True, metavar="DIR", help="a project")
    parser.add_argument("--sessions", type=integer("the number of sessions", 1), default=10, metavar="N")
    completions.option(parser)
    parser.add_argument("--quick", action="store_true", help="one session of each project")
    options = parser.parse_args(arguments)
    generator = Generator(storage.fetch(options.model))
    sessions: dict[float, list[Session]] = {price: [] for price in PRICES}
    for folder in options.repo:
        for price, session in _sessions(folder, generator, 1 if options.quick else options.sessions):
            sessions[price].append(session)
    print(json.dumps(_results(generator, sessions, options)))


def _sessions(folder: Path, generator: Generator, count: int) -> Iterator[tuple[float, Session]]:
    """Yield each session of a project with each price."""
    project = dict(projects.files(folder))
    encode = generator.encoder.encode
    index = ProjectIndex.from_documents(sorted(project.items()), encode)
    holes = [hole for hole in needed_names.holes(project, 40 * count, folder.name) if len(hole.middle) >= STEPS * CHARS]
    code = [hole for hole in holes if language_of(hole.query.path) in CODE]
    for hole in code[:count]:
        yield from zip(PRICES, _replay(index, hole, generator), strict=True)


def _replay(index: ProjectIndex, hole: needed_names.HiddenLines, generator: Generator) -> list[Session]:
    """Return the session with each price."""
    rules = [PackingRules(prefill_price=price) for price in PRICES]
    sessions = [Session([], []) for _ in rules]
    last: list[Packed | None] = [None for _ in rules]
    for step in range(STEPS + 1):
        request = request_after(index, hole, step * CHARS)
        for number, each in enumerate(rules):
            before, held = last[number], index.holds
            fmt, encode = generator.format, generator.encoder.encode
            packed = pack(fmt, encode, request, previous=before, budget=BUDGET, holds=held, rules=each)
            if before is not None:
                pairs = zip(before.prompt.ids, packed.prompt.ids, strict=False)
                shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
                sessions[number].new_tokens.append(len(packed.prompt.ids) - shared)
            last[number] = packed
            rest = hole.middle[step * CHARS :].partition("\n")[0] + "\n"
            if step in MOMENTS and rest.strip():
                sessions[number].moments.append(Moment(packed.prompt.ids, rest))
    return sessions


def _results(generator: Generator, sessions: dict[float, list[Session]], options: argparse.Namespace) -> dict[str, Any]:
    values = {price: _measure(generator, each, options) for price, each in sessions.items()}
    seconds = _seconds_per_token(generator, [moment for each in sessions[0.0] for moment in each.moments])
    rows = []
    for price, each in sessions.items():
        new = np.array([count for session in each for count in session.new_tokens])
        gains = {
            name: compare(name, values[price][name], values[0.0][name], resamples=RESAMPLES, seed=0)
            for name in values[price]
        }
        rows.append(
            {
                "price": price if price < max(PRICES) else None,
                "new_tokens_mean": round(float(new.mean()), 1),
                "prefill_s_mean_p90": [round(float(x) * seconds, 3) for x in (new.mean(), np.percentile(new, 90))],
                **{name: round(float(np.mean(column)), 4) for name, column in values[price].items()},
                "over_fresh": {
                    name: {key: round(value, 4) for key, value in asdict(gain).items() if isinstance(value, float)}
                    for name, gain in gains.items()
                },
            }
        )
    moments = len(values[0.0]["exact_match"])
    return {"moments": moments, "budget": BUDGET, "tokens_per_s": round(1 / seconds, 1), "prices": rows}


def _measure(generator: Generator, sessions: Sequence[Session], options: argparse.Namespace) -> dict[str, list[float]]:
    moments = [moment for session in sessions for moment in session.moments]
    completed = completions.complete(
        generator,
        [moment.ids for moment in moments],
        model=completions.model_key(options.model),
        max_new_tokens=NEW_TOKENS,
        references=[moment.rest for moment in moments],
        ends=False,
        keep=options.keep,
    )
    values: dict[str, list[float]] = {"exact_match": [], "edit_similarity": [], "bits_per_byte": []}
    for moment, completion in zip(moments, completed, strict=True):
        line = completion.text.partition("\n")[0].rstrip()
        wanted = moment.rest.rstrip()
        values["exact_match"].append(float(line == wanted))
        values["edit_similarity"].append(metrics.edit_similarity(line, wanted))
        values["bits_per_byte"].append(completion.bits_per_byte(moment.rest))
    return values


def _seconds_per_token(generator: Generator, moments: Sequence[Moment]) -> float:
    """Return the median time in which this model reads a token of a prompt, one prompt at a time."""
    times = []
    for moment in moments[:8]:
        started = time.perf_counter()
        generator.generate([moment.ids], max_new_tokens=1)
        times.append((time.perf_counter() - started) / len(moment.ids))
    return float(np.median(times))


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.fresh_context", main))
