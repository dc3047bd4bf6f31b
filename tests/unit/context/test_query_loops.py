"""The loops of a query give what simple code gives: they read the file with the caret, and choose blocks."""

import re
from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from infill.context import ProjectIndex, kernels, scoring
from infill.context.caret import first_lines, imports, last_lines
from tests.properties import examples
from tests.unit.context import brute

IMPORTS = [
    "import alpha, x1",
    "  from beta import gamma",
    "\tpub use delta",
    "#include <x1>",
    "alpha = nrequire('beta')",
    "alpha from 'gamma'  ",
    "} from 'beta' require(",
    "xfrom 'alpha'",
    "using",
    "alpha 'from beta'",
]
files = st.lists(st.one_of(brute.indented, st.sampled_from(IMPORTS)), max_size=40).map("\n".join)


@given(files, st.integers(0, 2_000), st.integers(0, 6), st.integers(0, 6), st.integers(0, 300))
@example("const alpha = require(", 22, 1, 1, 300)
@examples(200)
def test_surroundings_are_what_lexing_each_part_gives(text: str, at: int, before: int, after: int, head: int) -> None:
    """As for identifiers and lines of any part; imports are those of `caret.imports`."""
    table = ProjectIndex.from_documents([("a.py", "\n".join([*brute.WORDS, *IMPORTS]))]).table
    prefix, suffix = text[:at], text[at:]
    head = min(head, len(prefix)) if text.isascii() and not _cuts_import(prefix, head) else len(prefix)
    data = f"{prefix}\n{suffix}".encode()
    seen, bounds = kernels.surroundings(
        np.frombuffer(data, np.uint8),
        len(prefix.encode()),
        len(prefix[:head].encode()),
        before,
        after,
        *table.lexer(b"")[1:],
    )
    terms, away, whole, whole_away, names = (each.tolist() for each in scoring._parts(seen))
    above, below = last_lines(prefix, before), first_lines(suffix, after)
    line = above.count("\n")
    assert list(zip(terms, away, strict=False)) == _read(kernels.occurrences, table, f"{above}\n{below}", line)
    assert list(zip(whole, whole_away, strict=True)) == _read(kernels.whole_lines, table, f"{above}\n{below}", line)
    assert sorted(terms) == sorted(term for term, _ in _read(kernels.occurrences, table, f"{prefix}\n{suffix}", 0))
    wanted = imports(prefix[:head])
    assert set(names) == {term for term, _ in _read(kernels.occurrences, table, wanted, 0)}
    shown = b"\n".join(data[begin:end] for begin, end in bounds.tolist()).decode()
    assert set(re.findall(r"\w+", shown)) == set(re.findall(r"\w+", wanted))


def _cuts_import(prefix: str, head: int) -> bool:
    """Return whether the head ends in a line, whose names then count whole or not at all."""
    return prefix[head : head + 1] not in ("", "\n")


def _read(read: Any, table: Any, text: str, caret: int) -> list[tuple[int, int]]:
    terms, _, lines = read(*table.lexer(text.encode()))
    return [(int(term), int(caret - line)) for term, line in zip(terms, lines, strict=True) if term >= 0]


@given(st.integers(0, 80), st.integers(0, 12), st.sampled_from([1, 3, 1_000]), st.integers(0, 10**6))
@examples(100)
def test_blocks_are_chosen_as_by_the_plain_greedy_rule(count: int, k: int, values: int, seed: int) -> None:
    """Whatever the ties and the neighbours, and although most gains are computed late or never."""
    draw = np.random.default_rng(seed)
    ends = np.append(0, draw.integers(0, 6, count).cumsum())
    names = draw.integers(1, 30, ends[-1]).astype(np.int32)
    worth = draw.integers(0, values + 1, 30) / values
    blocks = np.sort(draw.choice(120, count, replace=False))
    file, sizes = np.arange(120, dtype=np.int32) // 7, draw.integers(1, 900, 120).astype(np.int32)
    merits, by_cost = np.ones(count), np.append(0.0, np.arange(1.0, 400.0) ** -0.9)
    wanted = _greedy(blocks, file, sizes, k, ends, names, worth.copy(), by_cost)
    chosen, gains = scoring._choose(blocks, file, merits, sizes, 3.6, 12, by_cost, k, ends, names, worth)
    assert list(zip(chosen.tolist(), gains.tolist(), strict=True)) == wanted


def _greedy(blocks: Any, file: Any, sizes: Any, k: int, ends: Any, names: Any, worth: Any, by_cost: Any) -> Any:
    """Return the chosen positions with their gains, each time from the gains of all blocks."""
    chosen: dict[int, float] = {}
    while len(chosen) < min(k, len(blocks)):
        best, ratio, gain = 0, 0.0, 0.0
        for number, block in enumerate(blocks):
            beside = any(abs(blocks[each] - block) == 1 and file[blocks[each]] == file[block] for each in chosen)
            own = sum((worth[name] for name in names[ends[number] : ends[number + 1]]), 0.0)
            cost = 1 + int(sizes[block] / 3.6) + (0 if beside else 12)
            if number not in chosen and own * by_cost[min(cost, len(by_cost) - 1)] > ratio:
                best, ratio, gain = number, own * by_cost[min(cost, len(by_cost) - 1)], own
        if not ratio:
            break
        chosen[best] = gain
        worth[names[ends[best] : ends[best + 1]]] = 0
    return list(chosen.items())
