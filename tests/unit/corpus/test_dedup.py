"""Copies: exact ones whatever editors do to line ends, near ones as a comparison of all pairs finds them."""

import random
import sysconfig
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infill import storage
from infill.corpus import dedup
from infill.corpus.dedup import DocumentsPart, Near
from infill.corpus.shards import CANDIDATES
from infill.text import read_text


@given(st.lists(st.integers(0, 9)), st.randoms(use_true_random=False))
def test_the_first_of_equal_documents_is_kept(texts: list[int], shuffler: random.Random) -> None:
    order = list(range(len(texts)))
    shuffler.shuffle(order)
    kept = dedup.exact_copies(np.array([bytes([text]) for text in texts], "S16"), np.array(order, np.int64))
    assert sorted(texts[place] for place in order if kept[place] < 0) == sorted(set(texts))
    for place in order:
        if kept[place] >= 0:
            assert texts[place] == texts[kept[place]]
            assert order.index(kept[place]) < order.index(place)


@pytest.mark.parametrize(
    "copy",
    ["a\r\nb\r\n", "a\rb\r", "a\nb", "a  \nb\t\n", "a\nb\n\n\n", "\ufeffa\nb\n", "a \r\nb\r\n \t", "a\f\nb\n"],
)
def test_line_ends_trailing_blanks_and_marks_make_no_other_text(copy: str) -> None:
    assert dedup.digest(copy) == dedup.digest("a\nb\n")


@pytest.mark.parametrize("other", ["a\n\nb\n", " a\nb\n", "a b\n", "a\nB\n", "ab\n", "a\u2028b\n"])
def test_other_changes_do(other: str) -> None:
    assert dedup.digest(other) != dedup.digest("a\nb\n")


@given(st.lists(st.text("ab \t", max_size=4), min_size=1), st.sampled_from(["\n", "\r\n", "\r"]), st.text(" \t\n"))
def test_copies_are_found_whatever_their_line_ends(lines: list[str], line_end: str, tail: str) -> None:
    assert dedup.digest(line_end.join(lines) + tail) == dedup.digest("\n".join(lines))


# Near copies

WORDS = [f"name_{number}" for number in range(400)]


def write_part(file: Path, contents: Sequence[str]) -> DocumentsPart:
    signatures = [dedup.sign(content.encode()) for content in contents]
    columns = {
        "content": list(contents),
        "signature": [signature.values for signature in signatures],
        "shingles": [signature.shingles for signature in signatures],
    }
    schema = pa.schema([CANDIDATES.field(name) for name in columns])
    storage.write_table(str(file), pa.table(columns, schema=schema))
    return DocumentsPart(str(file), str(file))


def find(folder: Path, contents: Sequence[str], order: Sequence[int] | None = None, shards: int = 3) -> Near:
    """The near copies at the settings' defaults, the documents in `shards` files."""
    bounds = np.linspace(0, len(contents), shards + 1).astype(int)
    parts = [
        write_part(folder / f"{number}.parquet", contents[bounds[number] : bounds[number + 1]])
        for number in range(shards)
    ]
    ranked = np.arange(len(contents)) if order is None else np.array(order)
    similar = dedup.similar(parts, ranked, count=len(contents), fixed=0, threshold=0.7, lower=0.6)
    return similar.near(np.zeros(len(contents), bool))


def mutated(text: str, share: float, shuffler: random.Random) -> str:
    """`text` with a share of its lines replaced, dropped or doubled."""
    lines = []
    for line in text.split("\n"):
        edit = shuffler.choice(("replace", "drop", "double")) if shuffler.random() < share else ""
        lines += {"replace": [f"{shuffler.choice(WORDS)} = {shuffler.random()}"], "drop": [], "double": [line] * 2}.get(
            edit, [line]
        )
    return "\n".join(lines)


def check(contents: Sequence[str], near: Near, order: Sequence[int]) -> tuple[int, int]:
    """Check what is removed and what is kept against all pairs; the pairs of 0.8 and more, and those that are dealt
    with."""
    sets = [set(dedup.shingle_set(content.encode()).tolist()) for content in contents]
    wanted = dealt = 0
    for first, second in combinations(range(len(contents)), 2):
        small, large = sorted((len(sets[first]), len(sets[second])))
        if small >= 0.8 * large > 0 and similarity(sets[first], sets[second]) >= 0.8:
            wanted += 1
            dealt += near.kept[first] >= 0 or near.kept[second] >= 0
    place = {document: number for number, document in enumerate(order)}
    for copy in np.flatnonzero(near.kept >= 0).tolist():
        kept = int(near.kept[copy])
        assert near.kept[kept] < 0
        assert place[kept] < place[copy]
        assert near.similarity[copy] == pytest.approx(similarity(sets[copy], sets[kept]), abs=1e-6)
        assert near.similarity[copy] >= 0.7
    return wanted, dealt


def similarity(first: set[int], second: set[int]) -> float:
    return len(first & second) / len(first | second)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 25), st.integers(1, 4))
def test_near_copies_are_those_that_all_pairs_show(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, shards: int
) -> None:
    shuffler = random.Random(seed)
    texts = ["\n".join(" ".join(shuffler.choices(WORDS, k=6)) for _ in range(shuffler.randint(2, 40)))]
    while len(texts) < count:
        texts.append(mutated(shuffler.choice(texts), shuffler.choice((0.01, 0.05, 0.1, 0.5, 1)), shuffler))
    order = shuffler.sample(range(count), count)
    near = find(tmp_path_factory.mktemp("near"), texts, order, shards)
    wanted, dealt = check(texts, near, order)
    assert wanted - dealt <= 0.05 * wanted
    assert all(near.kept[place] < 0 for place in near.close.reshape(-1))


def test_real_files_with_planted_copies(tmp_path: Path) -> None:
    shuffler = random.Random(0)
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-h]*.py"))
    texts = [read_text(file) for file in files]
    texts += [mutated(text, share, shuffler) for text in texts[:40] for share in (0.01, 0.03, 0.06, 0.15)]
    order = shuffler.sample(range(len(texts)), len(texts))
    wanted, dealt = check(texts, find(tmp_path, texts, order), order)
    assert wanted > 100
    assert dealt >= 0.95 * wanted


def test_what_is_kept_depends_on_the_order_alone(tmp_path: Path) -> None:
    shuffler = random.Random(3)
    texts = ["\n".join(" ".join(shuffler.choices(WORDS, k=6)) for _ in range(30)) for _ in range(4)]
    texts += [mutated(text, 0.03, shuffler) for text in texts for _ in range(5)]
    whole = find(tmp_path / "whole", texts, shards=1)
    place = shuffler.sample(range(len(texts)), len(texts))  # where each text is now
    moved = find(tmp_path / "moved", [texts[place.index(number)] for number in range(len(texts))], place, shards=5)
    assert {place[copy]: place[kept] for copy, kept in enumerate(whole.kept) if kept >= 0} == {
        copy: kept for copy, kept in enumerate(moved.kept) if kept >= 0
    }


def test_a_chain_does_not_join_what_is_unlike(tmp_path: Path) -> None:
    lines = [f"alpha_{number} beta_{number} gamma_{number} delta_{number} eps_{number}" for number in range(130)]
    texts = ["\n".join(lines[start : start + 100]) for start in range(0, 30, 6)]
    near = find(tmp_path, texts)
    wanted, dealt = check(texts, near, range(len(texts)))
    assert wanted == dealt == 4
    assert dedup.jaccard(texts[0].encode(), texts[-1].encode()) < 0.7
    assert [place for place in range(5) if near.kept[place] < 0] == [0, 3]


def test_buckets_that_are_too_full_are_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shuffler = random.Random(5)
    texts = ["\n".join(" ".join(shuffler.choices(WORDS, k=6)) for _ in range(40))]
    texts += [mutated(texts[0], 0.12, shuffler) for _ in range(60)]
    every = find(tmp_path / "every", texts)
    monkeypatch.setattr(dedup, "COMPARED", 2)
    few = find(tmp_path / "few", texts)
    wanted, dealt = check(texts, few, range(len(texts)))
    assert dealt == wanted > 100
    assert np.count_nonzero(few.kept >= 0) == pytest.approx(np.count_nonzero(every.kept >= 0), abs=3)


@pytest.mark.parametrize("text", ["", "a b c d", "+-*/ ()", "\n\n"])
def test_a_text_of_fewer_than_five_words_is_not_a_near_copy(tmp_path: Path, text: str) -> None:
    assert dedup.sign(text.encode()) == dedup.UNSIGNED
    assert (find(tmp_path, [text, text, "a b c d e"]).kept < 0).all()


def test_layout_and_punctuation_make_no_difference_and_words_do() -> None:
    one = b"def area(width, height):\n    return width * height\n"
    assert dedup.jaccard(one, b"def  area( width,height ) :\n\treturn (width*height);") == 1
    assert dedup.jaccard(one, one.replace(b"height", b"depth")) < 0.4
