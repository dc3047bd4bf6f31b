"""The interface of the predictor's engines: completions in pieces."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

from serving.protocol import Sampling


@dataclass(frozen=True, kw_only=True)
class Piece:
    """The part of a completion that one step adds."""

    text: str
    finish_reason: str | None
    """`stop` or `length` in the last piece, None before."""
    tokens: int
    """Completion tokens so far."""
    cached_tokens: int
    """Leading tokens of the prompt whose keys and values an earlier request computed."""


class CompletionEngine(Protocol):
    """A loaded model that completes prompts."""

    name: str
    slots: int
    """Number of requests that the engine can work on at once, each in its own thread."""
    context_length: int
    vocab_size: int

    @property
    def cache_bytes(self) -> int:
        """Bytes of the KV caches that are kept between requests."""

    def complete(
        self, prompt: list[int], sampling: Sampling, check: Callable[[], None], salt: str = ""
    ) -> Generator[Piece, None, None]:
        """Yield pieces up to one with a finish reason; the caller looks for stop strings.

        What was computed for prompts of another `salt` is not used.

        The engine calls `check` between steps, which may raise. Closing the generator ends the work. Raises MemoryError
        when memory runs out.
        """

    def probe(self) -> None:
        """Compute one token. Raises an exception when the model or its device is broken."""

    def close(self) -> None:
        """Free the model."""
