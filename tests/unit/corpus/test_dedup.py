"""Exact copies: decided by content alone, whatever editors do to line ends and trailing blanks."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.corpus import dedup


@given(st.lists(st.integers(0, 9)))
def test_the_first_of_equal_documents_is_kept(texts: list[int]) -> None:
    copies = dedup.exact_copies(hashlib.sha256(bytes([text])).hexdigest() for text in texts)
    kept = [text for number, text in enumerate(texts) if number not in copies]
    assert sorted(kept) == sorted(set(texts))
    assert all(texts[copy] == texts[first] and first < copy for copy, first in copies.items())


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
