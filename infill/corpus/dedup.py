"""Which documents are copies of others.

Only exact copies so far, by the SHA-256 of the text. Near copies will be found the same way: a function from the
documents' signatures, in corpus order, to `Copies`.
"""

from collections.abc import Iterable

Copies = dict[int, int]
"""Position of a copy in the corpus -> position of the document that is kept in its place."""


def exact_copies(digests: Iterable[str]) -> Copies:
    """The documents whose digest has been seen before, in corpus order: the first one is kept.

    It looks across repositories, so a text of a test repository never also stands in a training repository.
    """
    first: dict[bytes, int] = {}
    copies: Copies = {}
    for position, digest in enumerate(digests):
        kept = first.setdefault(bytes.fromhex(digest), position)
        if kept != position:
            copies[position] = kept
    return copies
