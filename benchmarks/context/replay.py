"""A replay of typing: the share of each prompt that repeats the previous one, and its cost in coverage."""

import time
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from benchmarks.context.projects import Project
from infill.context import ProjectIndex, retrieve
from infill.context.packing import RULES, Packed, PackingRules, pack
from infill.experiments.needed_names import HiddenLines, coverage, names
from infill.experiments.typed_sessions import CHARS, STEPS
from infill.prompt import Encode, FimRequest, infill_format


class Step(NamedTuple):
    """One prompt of a replay."""

    shared: int
    """Tokens of the longest common prefix with the previous prompt."""
    tokens: int
    """Tokens of the whole prompt."""
    lost: float | None
    """Coverage of a freshly packed prompt minus that of this one; None if there is nothing to find."""
    seconds: float
    """Processor time of packing after the previous prompt."""


def replay(
    project: Project, holes: Sequence[HiddenLines], sessions: int, budget: int, encode: Encode, *rules: PackingRules
) -> list[list[Step]]:
    """Type the hidden lines of the first holes that are long enough; rank and pack after every third character.

    Returns the steps with each of the `rules`, all from the same rankings; without any, with the default ones.
    """
    index = ProjectIndex.from_documents(sorted(project.items()), encode)
    long = [hole for hole in holes if len(hole.middle) >= STEPS * CHARS]
    rows = [row for hole in long[:sessions] for row in _session(index, hole, budget, encode, rules or (RULES,))]
    return [list(steps) for steps in zip(*rows, strict=True)] or [[] for _ in rules or (RULES,)]


def _session(
    index: ProjectIndex, hole: HiddenLines, budget: int, encode: Encode, rules: Sequence[PackingRules]
) -> Iterator[list[Step]]:
    """Yield the steps with each of the rules, after each third character."""
    last: list[Packed] = []
    for step in range(STEPS + 1):
        request = request_after(index, hole, step * CHARS)
        packed, seconds = [], []
        for number, each in enumerate(rules):
            started = time.process_time()
            previous = last[number] if last else None
            packed.append(
                pack(infill_format(), encode, request, previous=previous, budget=budget, holds=index.holds, rules=each)
            )
            seconds.append(time.process_time() - started)
        if last:
            anew = pack(infill_format(), encode, request, budget=budget)
            wanted = hole.wanted.intersection(names(hole.middle[step * CHARS :]))
            yield [_step(*turn, anew, wanted) for turn in zip(last, packed, seconds, strict=True)]
        last = packed


def _step(last: Packed, packed: Packed, seconds: float, anew: Packed, wanted: frozenset[str]) -> Step:
    pairs = zip(last.prompt.ids, packed.prompt.ids, strict=False)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    lost = coverage(wanted, anew.prompt.items) - coverage(wanted, packed.prompt.items) if wanted else None
    return Step(shared, len(packed.prompt.ids), lost, seconds)


def request_after(index: ProjectIndex, hole: HiddenLines, typed: int) -> FimRequest:
    """Return the request after `typed` characters of the hidden lines, with its candidates."""
    path, prefix, suffix = hole.query.path, hole.query.prefix + hole.middle[:typed], hole.query.suffix
    request = FimRequest(path=path, prefix=prefix, suffix=suffix)
    context = retrieve(index, request)
    return FimRequest(path=path, prefix=prefix, suffix=suffix, context=context)
