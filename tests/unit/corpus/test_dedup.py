"""Exact copies: decided by content alone."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from infill.corpus import dedup


@given(st.lists(st.integers(0, 9)))
def test_the_first_of_equal_documents_is_kept(texts: list[int]) -> None:
    copies = dedup.exact_copies(hashlib.sha256(bytes([text])).hexdigest() for text in texts)
    kept = [text for number, text in enumerate(texts) if number not in copies]
    assert sorted(kept) == sorted(set(texts))
    assert all(texts[copy] == texts[first] and first < copy for copy, first in copies.items())
