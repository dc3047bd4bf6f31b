"""The bytes of a byte-level tokenizer's tokens, and which tokens agree with a text that the model must write."""

from bisect import bisect_left
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


class TokenIndex:
    """The tokens of a vocabulary in the order of their bytes."""

    def __init__(self, table: Sequence[bytes]) -> None:
        """Take the bytes of each token id, as `token_bytes` returns them."""
        self.table = table
        self._order = sorted((token for token, text in enumerate(table) if text), key=lambda token: table[token])
        self._texts = [table[token] for token in self._order]

    def agreeing(self, text: bytes) -> list[int]:
        """Return the tokens that begin with `text`, and those with which it begins; never a control token."""
        first = bisect_left(self._texts, text)
        tokens = []
        for place in range(first, len(self._texts)):
            if not self._texts[place].startswith(text):
                break
            tokens.append(self._order[place])
        for length in range(1, len(text)):
            place = bisect_left(self._texts, text[:length])
            while place < len(self._texts) and self._texts[place] == text[:length]:
                tokens.append(self._order[place])
                place += 1
        return tokens

    def rest(self, text: bytes, token: int) -> bytes:
        """Return what is left to write of `text` after one of the tokens that agree with it."""
        return text[len(self.table[token]) :]
