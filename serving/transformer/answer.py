"""One request's answer while it is generated, and its outcome; a protocol writes them as JSON."""

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from infill.context.packing import Packed
from infill.text import clean
from serving.protocol import Head, usage
from serving.transformer.access import Principal
from serving.transformer.completion_cache import KeptAnswer
from serving.transformer.request import CompletionRequest
from serving.transformer.upstream import Delta


@dataclass(frozen=True, kw_only=True)
class OngoingAnswer:
    """An answer that is being generated."""

    head: Head
    packed: Packed
    request: CompletionRequest
    deltas: AsyncGenerator[Delta, None]
    context_length: int
    """Most tokens of prompt and answer together."""
    principal: Principal
    rid: str
    """The name of the request in logs."""
    began: float
    """Time when packing began, in seconds of the monotonic clock."""
    asked: float
    """Time when the predictor was asked."""
    first: float = 0.0
    """Time when its first event arrived."""
    revision: str = ""
    """Revision of the workspace from which it was packed; empty without one."""
    lane: str = ""
    """The part of the cache of completions where it is kept; empty if it is not."""
    cached: KeptAnswer | None = None
    """The earlier answer of which it is the rest; None for one that the predictor gives."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the packed prompt."""
        return self.cached.prompt_tokens if self.cached else len(self.packed.prompt.ids)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """The field `infill` of an answer: the context items in the prompt, warnings and timings."""
        names = ("path", "first_line", "last_line", "score", "strategy")
        return {
            "prompt_tokens": self.prompt_tokens,
            "prefix_tokens": self.packed.prompt.prefix_tokens,
            "suffix_tokens": self.packed.prompt.suffix_tokens,
            "context": [{name: getattr(item, name) for name in names} for item in self.packed.prompt.items],
            "why_empty": self.packed.why_empty,
            "warnings": list(self.request.warnings),
            "cached": self.cached is not None,
            "workspace_revision": self.revision or None,
            "timing_ms": {
                "packing": _milliseconds(self.asked - self.began),
                "first_token": _milliseconds(self.first - self.asked),
            },
        }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1_000, 2)


@dataclass(kw_only=True)
class PartialAnswer:
    """The part of an answer that has arrived so far; complete when its stream has ended."""

    text: str = ""
    reason: str | None = None
    pieces: int = 0
    """Number of events with text; each holds at least one token."""
    usage: dict[str, Any] | None = None
    """The predictor's usage object, if it sent one."""
    ended: float = 0.0
    """Time when the last event arrived."""

    def add(self, delta: Delta) -> None:
        """Add one event."""
        self.text += delta.text
        self.reason = delta.finish_reason or self.reason
        self.pieces += bool(delta.text)
        self.usage = delta.usage or self.usage

    def complete(self) -> "PartialAnswer":
        """Return this after its last event."""
        self.ended = time.monotonic()
        self.text = clean(self.text)
        return self

    @property
    def computed_tokens(self) -> int | None:
        """Tokens of the prompt that the predictor did not have in its cache; None if it does not say."""
        reported = self.usage or {}
        cached = (reported.get("prompt_tokens_details") or {}).get("cached_tokens")
        return None if cached is None else int(reported.get("prompt_tokens", 0)) - int(cached)

    def counts(self, answer: OngoingAnswer) -> dict[str, Any]:
        """Return the usage object, with the predictor's counts where it sent them and our own elsewhere."""
        reported = self.usage or {}
        details = reported.get("prompt_tokens_details") or {}
        cached = int(details.get("cached_tokens") or 0)
        return usage(answer.prompt_tokens, int(reported.get("completion_tokens", self.pieces)), cached)
