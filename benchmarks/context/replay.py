"""A replay of typing: the share of each prompt that repeats the previous one, and its cost in coverage."""

import time
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from benchmarks.context.projects import Project
from infill.context import ProjectIndex, retrieve
from infill.context.packing import Packed, pack
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


def replay(project: Project, holes: Sequence[HiddenLines], sessions: int, budget: int, encode: Encode) -> list[Step]:
    """Type the hidden lines of the first holes that are long enough; rank and pack after every third character."""
    index = ProjectIndex.from_documents(sorted(project.items()), encode)
    long = [hole for hole in holes if len(hole.middle) >= STEPS * CHARS]
    return [step for hole in long[:sessions] for step in _session(index, hole, budget, encode)]


def _session(index: ProjectIndex, hole: HiddenLines, budget: int, encode: Encode) -> Iterator[Step]:
    last: Packed | None = None
    for step in range(STEPS + 1):
        request = _request(index, hole, step * CHARS)
        started = time.process_time()
        packed = pack(infill_format(), encode, request, previous=last, budget=budget, holds=index.holds)
        seconds = time.process_time() - started
        if last is not None:
            pairs = zip(last.prompt.ids, packed.prompt.ids, strict=False)
            shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            anew = pack(infill_format(), encode, request, budget=budget)
            wanted = hole.wanted.intersection(names(hole.middle[step * CHARS :]))
            lost = coverage(wanted, anew.prompt.items) - coverage(wanted, packed.prompt.items) if wanted else None
            yield Step(shared, len(packed.prompt.ids), lost, seconds)
        last = packed


def _request(index: ProjectIndex, hole: HiddenLines, typed: int) -> FimRequest:
    """Return the request after `typed` characters of the hidden lines, with its candidates."""
    path, prefix, suffix = hole.query.path, hole.query.prefix + hole.middle[:typed], hole.query.suffix
    request = FimRequest(path=path, prefix=prefix, suffix=suffix)
    context = retrieve(index, request)
    return FimRequest(path=path, prefix=prefix, suffix=suffix, context=context)
