"""One request's answer in the making, and what is known when it is whole; a protocol writes it down."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from infill.context.packing import Packed
from serving.protocol import Head, usage
from serving.transformer.access import Principal
from serving.transformer.request import CompletionRequest
from serving.transformer.upstream import Delta


@dataclass(frozen=True, kw_only=True)
class Answer:
    head: Head
    packed: Packed
    request: CompletionRequest
    deltas: AsyncGenerator[Delta, None]
    context_length: int
    """Tokens of the longest prompt and answer together."""
    principal: Principal
    rid: str
    """What logs call the request."""
    began: float
    """When packing began, in seconds of the monotonic clock."""
    asked: float
    """When the predictor was asked."""
    first: float = 0.0
    """When its first event came."""

    @property
    def provenance(self) -> dict[str, Any]:
        """What stands in the prompt, and where it came from."""
        names = ("path", "first_line", "last_line", "score", "strategy")
        return {
            "prompt_tokens": len(self.packed.prompt.ids),
            "context": [{name: getattr(item, name) for name in names} for item in self.packed.prompt.items],
            "why_empty": self.packed.why_empty,
            "warnings": list(self.request.warnings),
            "timing_ms": {
                "packing": _milliseconds(self.asked - self.began),
                "first_token": _milliseconds(self.first - self.asked),
            },
        }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1_000, 2)


@dataclass(kw_only=True)
class Outcome:
    """What has come of an answer so far; whole when its stream has ended."""

    text: str = ""
    reason: str | None = None
    pieces: int = 0
    """Texts that came; each is at least a token."""
    usage: dict[str, Any] | None = None
    """As the predictor tells it."""
    ended: float = 0.0
    """When the last event came."""

    def add(self, delta: Delta) -> None:
        """Take in one event."""
        self.text += delta.text
        self.reason = delta.finish_reason or self.reason
        self.pieces += bool(delta.text)
        self.usage = delta.usage or self.usage

    def counts(self, answer: Answer) -> dict[str, Any]:
        """Return the predictor's usage, or a count of our own."""
        told = self.usage or {}
        details = told.get("prompt_tokens_details") or {}
        cached = int(details.get("cached_tokens") or 0)
        return usage(len(answer.packed.prompt.ids), int(told.get("completion_tokens", self.pieces)), cached)
