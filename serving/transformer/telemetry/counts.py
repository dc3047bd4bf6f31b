"""The metrics of suggestions, with labels of few values: no tenant, no user, no path, no code."""

from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram

from infill.file_kinds import kind_of, language_of
from infill.syntax import LANGUAGES

NAME: Final = "infill_telemetry"
OTHER: Final = "other"
SECONDS: Final = (0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 30)
WHOLE, EDITED, GONE = "whole", "edited", "gone"
KEPT: Final = 0.5
"""The share of the accepted characters that must be left for a suggestion to count as still there."""


class Labels(NamedTuple):
    """The labels of all metrics of suggestions; each has few values."""

    language: str
    model: str
    strategy: str


def language_label(language: str) -> str:
    """Return a language's label: its name if it has a grammar, else what kind it is, else `other`."""
    if language in LANGUAGES:
        return language
    kind = kind_of(language)
    return OTHER if kind == "code" else kind


def language_at(path: str) -> str:
    """Return the language of a path, empty if its name tells none."""
    return language_of(path) or ""


class Counts:
    """The metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = Labels._fields

        def counter(name: str, about: str, *more: str, by: tuple[str, ...] = labels) -> Counter:
            return Counter(f"{NAME}_{name}", about, [*by, *more], registry=registry)

        self.answers = counter("answers", "Completions by how they ended: answered, blank, cancelled, failed", "ended")
        self.seconds = Histogram(
            f"{NAME}_answer_seconds", "To the end of an answer", labels, registry=registry, buckets=SECONDS
        )
        self.shown = counter("shown", "Suggestions that were shown")
        self.shown_chars = counter("shown_chars", "Characters of suggestions that were shown")
        self.accepted = counter("accepted", "Suggestions that were accepted, whole or in part")
        self.parts = counter("accepted_parts", "Acceptances by what was taken: word, line, all", "part")
        self.accepted_chars = counter("accepted_chars", "Characters of suggestions that were accepted")
        self.rejected = counter("rejected", "Suggestions of which nothing was accepted")
        self.persisted = counter(
            "persisted", "Accepted suggestions by what is left of them after seconds", "after", "left"
        )
        self.persisted_chars = counter("persisted_chars", "Accepted characters that are left after seconds", "after")
        self.typed_chars = counter("typed_chars", "Characters written in editors, by hand or by completion")
        self.invalid = counter("invalid", "Reports that were refused, by reason", "reason", by=())
        self.rows = counter("feedback_rows", "Rows written to the feedback dataset", by=())
        self.dropped = counter("feedback_dropped", "Feedback that was not written, by reason", "reason", by=())


def left(kept: int, accepted: int) -> str:
    """Return what is left of an accepted suggestion: `whole`, `edited` or `gone`."""
    if kept >= accepted:
        return WHOLE
    return EDITED if kept >= KEPT * accepted else GONE
