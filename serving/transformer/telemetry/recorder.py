"""The telemetry as the routes see it: one object that records answers and the reports of clients."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from prometheus_client import CollectorRegistry
from starlette.requests import ClientDisconnect

from infill.feedback.feedback_row import ACCEPTED, OUTCOMES, plain
from infill.text import first_line
from serving.protocol import ApiError
from serving.transformer.answer import OngoingAnswer, PartialAnswer
from serving.transformer.request import CompletionRequest
from serving.transformer.telemetry import report as reports
from serving.transformer.telemetry.counts import Counts, Labels, language_at, language_label, left
from serving.transformer.telemetry.recent_suggestions import MAX_CHARS, Memory, Suggestion
from serving.transformer.telemetry.report import EventReport, Feedback
from serving.transformer.telemetry.writer import RowWriter, redaction
from serving.transformer.transformer_config import TransformerConfig

OFF, METRICS, FEEDBACK = "off", "metrics", "feedback"
EARLY_S: Final = 1
"""By which a report may come before its time, counted from the answer."""
NO_CONTEXT: Final = "none"
"""The strategy of a prompt without other files."""


class SuggestionRecorder:
    """Records what becomes of suggestions. All methods run on the event loop."""

    def __init__(self, config: TransformerConfig, prompt_format: str, registry: CollectorRegistry) -> None:
        """Start the writer where feedback is kept. Raises InputError when it cannot redact."""
        self._config = config
        self._prompt_format = prompt_format
        self.counts = Counts(registry)
        self.memory = Memory()
        self.clock: Callable[[], float] = time.monotonic
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._limit = RateLimitItemPerMinute(config.telemetry_events)
        self._writer = (
            RowWriter(config.feedback, self.counts, max_bytes=config.feedback_bytes, redact=redaction())
            if config.telemetry == FEEDBACK
            else None
        )

    @property
    def mode(self) -> str:
        """The reports that the operator allows: `off`, `metrics` or `feedback`."""
        return self._config.telemetry

    def close(self) -> None:
        """Write the feedback that has been taken."""
        if self._writer is not None:
            self._writer.close()

    # Answers

    def labels(self, completion: CompletionRequest) -> Labels:
        """Return the labels of a request's metrics."""
        language = completion.language or language_at(completion.fim.path)
        bare = not (completion.ids or completion.documents)
        strategy = NO_CONTEXT if bare else self._config.strategy
        return Labels(language_label(language), self._config.name, strategy)

    @contextmanager
    def observing(self, completion: CompletionRequest) -> Iterator[None]:
        """Count the request as cancelled or failed when the block raises."""
        try:
            yield
        except BaseException as error:
            gone = isinstance(error, ClientDisconnect | asyncio.CancelledError | GeneratorExit)
            if completion.sampling.max_tokens:
                self.counts.answers.labels(*self.labels(completion), "cancelled" if gone else "failed").inc()
            raise

    def answered(self, answer: OngoingAnswer, outcome: PartialAnswer) -> None:
        """Count a whole answer, and remember it where clients may report what became of it."""
        if not answer.request.sampling.max_tokens:
            return
        labels, text = self.labels(answer.request), plain(outcome.text)
        blank = not text.strip()
        self.counts.answers.labels(*labels, "blank" if blank else "answered").inc()
        self.counts.seconds.labels(*labels).observe(outcome.ended - answer.began)
        if self.mode == OFF or blank:
            return
        suggestion = Suggestion(
            labels=labels,
            text=text[:MAX_CHARS],
            chars=len(text),
            finished=outcome.reason == "stop",
            answered=self.clock(),
        )
        self.memory.put(answer.principal.tenant, answer.head.id, suggestion)

    # Reports

    async def enter(self, client: str) -> None:
        """Count a report of a client. Raises ApiError 429 for one too many."""
        if not await self._limiter.hit(self._limit, "events", client):
            self.counts.invalid.labels("too_many").inc()
            message = f"at most {self._config.telemetry_events} events a minute are allowed"
            raise ApiError(429, message, code="rate_limit_exceeded", kind="rate_limit_error", retry_after=60)

    def report(self, tenant: str, report: EventReport) -> None:
        """Count what a client reports, unless the operator has it off. Raises ApiError for what cannot be true."""
        if report.kind == reports.FEEDBACK and self.mode != FEEDBACK:
            raise self._refuse(403, "feedback_off", "this server keeps no feedback")
        if self.mode == OFF or report.kind not in reports.KINDS:
            return
        if report.kind == reports.TYPE:
            labels = Labels(language_label(report.language), self._config.name, self._config.strategy)
            self.counts.typed_chars.labels(*labels).inc(report.typed or 0)
            return
        suggestion = self.memory.get(tenant, report.completion)
        if suggestion is None:
            raise self._refuse(404, "unknown_completion", "no completion of this id was answered to you recently")
        handle: dict[str, Callable[[Suggestion, EventReport], None]] = {
            reports.VIEW: self._shown,
            reports.SELECT: self._accepted,
            reports.DISMISS: self._rejected,
            reports.PERSIST: self._persisted,
        }
        if report.feedback is not None:
            self._keep(tenant, suggestion, report.feedback)
        else:
            handle[report.kind](suggestion, report)

    def _refuse(self, status: int, code: str, message: str, param: str | None = None) -> ApiError:
        self.counts.invalid.labels(code).inc()
        return ApiError(status, message, code=code, param=param)

    def _lie(self, code: str, message: str, param: str) -> ApiError:
        return self._refuse(400, code, message, param)

    def _shown(self, suggestion: Suggestion, _: EventReport) -> None:
        if not suggestion.shown:
            suggestion.shown = True
            self.counts.shown.labels(*suggestion.labels).inc()
            self.counts.shown_chars.labels(*suggestion.labels).inc(suggestion.chars)

    def _accepted(self, suggestion: Suggestion, report: EventReport) -> None:
        """Count what was taken more than before, so that a report which comes twice counts once."""
        whole = len(first_line(suggestion.text)) if report.part == "line" else suggestion.chars
        chars = report.accepted if report.accepted is not None else max(1, whole)
        if chars > suggestion.chars:
            message = f"'accepted_chars' is {chars}, but the suggestion has {suggestion.chars} characters"
            raise self._lie("too_many_chars", message, "accepted_chars")
        self._shown(suggestion, report)
        if chars <= suggestion.accepted:
            return
        labels = suggestion.labels
        self.counts.accepted.labels(*labels).inc(not suggestion.accepted)
        self.counts.parts.labels(*labels, report.part).inc()
        self.counts.accepted_chars.labels(*labels).inc(chars - suggestion.accepted)
        suggestion.accepted = chars

    def _rejected(self, suggestion: Suggestion, report: EventReport) -> None:
        self._shown(suggestion, report)
        if not suggestion.rejected and not suggestion.accepted:
            suggestion.rejected = True
            self.counts.rejected.labels(*suggestion.labels).inc()

    def _persisted(self, suggestion: Suggestion, report: EventReport) -> None:
        after, kept = report.after_s, report.kept
        if after not in reports.AFTER_S:
            raise self._lie("invalid_value", f"'after_s' must be 15, 30 or 120, got {after}", "after_s")
        if kept is None:
            raise self._lie("invalid_value", "'kept_chars' is missing", "kept_chars")
        if not suggestion.accepted:
            raise self._lie("not_accepted", "the suggestion was not accepted", "completion_id")
        if kept > suggestion.accepted:
            message = f"'kept_chars' is {kept}, but {suggestion.accepted} characters were accepted"
            raise self._lie("too_many_chars", message, "kept_chars")
        if (passed := self.clock() - suggestion.answered) < after - EARLY_S:
            message = f"'after_s' is {after}, but the suggestion was answered {passed:.0f} s ago"
            raise self._lie("too_early", message, "after_s")
        if after not in suggestion.persisted:
            suggestion.persisted.add(after)
            labels = suggestion.labels
            self.counts.persisted.labels(*labels, str(after), left(kept, suggestion.accepted)).inc()
            self.counts.persisted_chars.labels(*labels, str(after)).inc(kept)

    # Feedback

    def _keep(self, tenant: str, suggestion: Suggestion, feedback: Feedback) -> None:
        if not feedback.consent:
            raise self._refuse(403, "no_consent", "'consent' must be true: without it nothing is kept", "consent")
        if feedback.outcome not in OUTCOMES:
            raise self._lie("invalid_value", f"'outcome' must be one of {', '.join(OUTCOMES)}", "outcome")
        if (feedback.outcome == ACCEPTED) != bool(suggestion.accepted):
            raise self._lie("not_accepted", "'outcome' contradicts what was reported before", "outcome")
        shown = feedback.shown[:MAX_CHARS]
        if not shown.strip() or not suggestion.text.startswith(shown):
            raise self._lie("not_shown", "'shown' is not what the server answered", "shown")
        if suggestion.kept or self._writer is None:
            return
        suggestion.kept = True
        self._writer.add(tenant, self._row(suggestion, feedback))

    def _row(self, suggestion: Suggestion, feedback: Feedback) -> dict[str, Any]:
        return {
            "id": uuid4().hex,
            "date": datetime.now(UTC).date().isoformat(),
            "model": self._config.name,
            "prompt_format": self._prompt_format,
            "strategy": suggestion.labels.strategy,
            "language": language_at(feedback.path),
            "path": feedback.path,
            "prefix": feedback.prefix,
            "suffix": feedback.suffix,
            "context": [dict(item) for item in feedback.context],
            "shown": feedback.shown,
            "outcome": feedback.outcome,
            "accepted_chars": min(suggestion.accepted, len(feedback.shown)),
            "finished": suggestion.finished,
            "final": feedback.final,
        }
