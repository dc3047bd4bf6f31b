"""Which documents are copies of others.

Only exact copies so far, by a digest of the text as `same_text` leaves it. Near copies will be found the same way: a
function from the documents' signatures, in corpus order, to `Copies`.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Final

Copies = dict[int, int]
"""Position of a copy in the corpus -> position of the document that is kept in its place."""
_BREAK: Final = re.compile(r"\r\n?")


def same_text(text: str) -> str:
    """Return `text` without what an editor or git changes unasked: the form of line ends, blanks before them and at the
    end of the file, byte order marks."""
    text = text.lstrip("\ufeff")
    if "\r" in text:
        text = _BREAK.sub("\n", text)
    return "\n".join(line.rstrip(" \t\v\f") for line in text.split("\n")).rstrip("\n")


def digest(text: str) -> str:
    """Return the digest by which copies are found: SHA-256 of `same_text`."""
    return hashlib.sha256(same_text(text).encode()).hexdigest()


def exact_copies(digests: Iterable[str]) -> Copies:
    """Return the documents whose digest occurs before them in corpus order: the first one is kept.

    It looks across repositories, so a text of a test repository never also stands in a training repository.
    """
    first: dict[bytes, int] = {}
    copies: Copies = {}
    for position, value in enumerate(digests):
        kept = first.setdefault(bytes.fromhex(value), position)
        if kept != position:
            copies[position] = kept
    return copies
