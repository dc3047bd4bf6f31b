"""The interface of the predictor's engines: completions, piece by piece."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

from serving.protocol import Sampling


@dataclass(frozen=True, kw_only=True)
class Piece:
    """The part of an answer that one step adds."""

    text: str
    finish_reason: str | None
    """`stop` or `length` in the last piece, None before."""
    tokens: int
    """Completion tokens so far."""
    cached_tokens: int
    """Leading tokens of the prompt whose keys and values an earlier request had computed."""


class CompletionEngine(Protocol):
    """A loaded model."""

    name: str
    slots: int
    """Requests that it works on at once; up to as many threads call `complete`."""
    context_length: int
    vocab_size: int

    @property
    def cache_bytes(self) -> int:
        """Memory of the KV caches that are kept between requests."""

    def complete(
        self, prompt: list[int], sampling: Sampling, check: Callable[[], None], salt: str = ""
    ) -> Generator[Piece, None, None]:
        """Yield pieces until one has a finish reason; the caller looks for stop strings.

        What was computed for prompts of another `salt` is not used.

        `check` is called between steps and may raise. Closing the generator ends the work. Raises MemoryError when
        memory runs out.
        """

    def probe(self) -> None:
        """Compute one token. Raises when the model or its device is broken."""

    def close(self) -> None:
        """Free the model."""
