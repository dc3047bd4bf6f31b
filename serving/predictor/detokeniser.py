"""Token ids to text, in pieces without partial characters."""

import codecs
from collections.abc import Mapping, Sequence
from typing import Any

from infill.errors import InputError
from infill.prompt import control_tokens


def _byte_of_character() -> dict[str, int]:
    """Return the byte of each character of GPT-2's alphabet.

    Printable bytes are written as themselves, the others as characters from U+0100 on. Source: `bytes_to_unicode` in
    openai/gpt-2, src/encoder.py; all byte-level tokenizers use it.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def token_bytes(tokenizer: Mapping[str, Any]) -> list[bytes]:
    """Return the bytes of each token id of a byte-level `tokenizer.json`; control tokens have none.

    Raises InputError for a tokenizer that is not byte-level.
    """
    alphabet = _byte_of_character()
    control = control_tokens(tokenizer)
    added = {int(token["id"]): str(token["content"]) for token in tokenizer["added_tokens"]}
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    table = [b""] * (max([*vocabulary.values(), *added]) + 1)
    for text, number in vocabulary.items():
        if number in added or number in control:
            continue
        try:
            table[number] = bytes(alphabet[character] for character in text)
        except KeyError as error:
            raise InputError(f"the tokenizer is not byte-level: token {number} is {text!r}") from error
    for number, text in added.items():
        table[number] = b"" if number in control else text.encode()
    return table


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
