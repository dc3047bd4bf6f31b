"""From token ids to text, piece by piece: no half characters, nothing that may yet turn out to be a stop string."""

import codecs
from collections.abc import Mapping, Sequence
from typing import Any

from infill.errors import InputError


def _byte_of_character() -> dict[str, int]:
    """GPT-2's reversible alphabet: printable bytes stand for themselves, the others for characters from U+0100 on.

    Source: `bytes_to_unicode` in openai/gpt-2, src/encoder.py; byte-level tokenizers all use it.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def token_bytes(tokenizer: Mapping[str, Any]) -> list[bytes]:
    """The bytes of each token id of a byte-level `tokenizer.json`; special tokens have none.

    Raises InputError for a tokenizer that is not byte-level.
    """
    alphabet = _byte_of_character()
    added = {int(token["id"]): token for token in tokenizer["added_tokens"]}
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    table = [b""] * (max([*vocabulary.values(), *added]) + 1)
    for text, number in vocabulary.items():
        if number in added:
            continue
        try:
            table[number] = bytes(alphabet[character] for character in text)
        except KeyError as error:
            raise InputError(f"the tokenizer is not byte-level: token {number} is {text!r}") from error
    for number, token in added.items():
        table[number] = b"" if token["special"] else token["content"].encode()
    return table


class Detokeniser:
    """The text of a growing list of tokens; a character comes out when its last byte has come in.

    Bytes that are no UTF-8 become U+FFFD; a character that is unfinished at the end is left out.
    """

    def __init__(self, table: Sequence[bytes]) -> None:
        self._table = table
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> str:
        """The characters that `token` completes; a row of the embedding without a token has no text."""
        return self._decoder.decode(self._table[token] if token < len(self._table) else b"")


class StopFilter:
    """Passes text on, holding back what may be the beginning of a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False
        """Whether a stop string has come; everything from its first character on is dropped."""

    def feed(self, text: str) -> str:
        """The part of what has come so far that is certain to lie before any stop string and was not yet returned."""
        if self.stopped:
            return ""
        self._held += text
        # The stop that is complete first counts, so that the text does not depend on how it was cut into pieces.
        found = [(place + len(stop), place) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._release(min(found)[1])
        return self._release(len(self._held) - self._unsure())

    def flush(self) -> str:
        """What was held back, when no more will come."""
        return "" if self.stopped else self._release(len(self._held))

    def _release(self, length: int) -> str:
        released, self._held = self._held[:length], self._held[length:]
        return released

    def _unsure(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        ends = range(min(longest, len(self._held)), 0, -1)
        return next((size for size in ends if any(stop.startswith(self._held[-size:]) for stop in self._stops)), 0)
