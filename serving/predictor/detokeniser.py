"""Token ids to text, in pieces without partial characters."""

import codecs
from collections.abc import Sequence


class Detokeniser:
    """A decoder of a growing list of tokens, which returns a character when its last byte has arrived.

    Bytes that are not UTF-8 become U+FFFD; a character that is incomplete at the end is left out.
    """

    def __init__(self, table: Sequence[bytes]) -> None:
        self._table = table
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> str:
        """Return the characters that `token` completes; an id without a token has no text."""
        return self._decoder.decode(self._table[token] if token < len(self._table) else b"")
