"""Drafts of an answer from its own prompt, which answers often repeat (prompt lookup decoding)."""

from collections.abc import Iterable

from infill.llama_cpp import DRAFT_AFTER  # the same drafts as llama.cpp's


class PromptLookup:
    """The tokens of a prompt and its answer so far, with the last place of each run of DRAFT_AFTER tokens."""

    def __init__(self, prompt: Iterable[int]) -> None:
        self._ids: list[int] = []
        self._following: dict[tuple[int, ...], int] = {}
        """Place of the token after each run."""
        for token in prompt:
            self.add(token)

    def add(self, token: int) -> None:
        """Append a token."""
        if len(self._ids) >= DRAFT_AFTER:
            self._following[self._run()] = len(self._ids)
        self._ids.append(token)

    def draft(self, most: int) -> list[int]:
        """Return at most `most` tokens that followed when the last tokens stood there before; none if they did not."""
        place = self._following.get(self._run())
        return [] if place is None or most < 1 else self._ids[place : place + most]

    def _run(self) -> tuple[int, ...]:
        return tuple(self._ids[-DRAFT_AFTER:])
