"""The fate of suggestions, as the editor's documents show it, reported to the server if the user agreed to that.

Acceptance is seen in the text, so that every editor's ways of accepting (all, a word, a line) count: an edit that
follows the suggestion by more than one character is not typing. Time is that of the monotonic clock of this machine.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from infill.editor.completer import Completion
from infill.editor.persistence import DocumentSpan, difference, follow, similarity
from infill.editor.user_settings import Consent
from infill.feedback.feedback_row import ITEM, lines_of, plain
from infill.file_kinds import language_of
from infill.text import first_line

AFTER_S: Final = (15, 30, 120)
TYPED_S: Final = 60.0
"""Seconds between reports of how much was typed."""
MAX_TYPED: Final = 100_000
HAND: Final = 2
"""Visible characters of an edit that a key may have made, with the closing bracket that the editor adds."""
WAITING: Final = 256
"""Reports that may wait to be sent; older ones are dropped and counted."""
FOLLOWED: Final = 256
"""Suggestions whose place is followed."""
MAX_SIDE_CHARS: Final = 20_000
"""Characters on each side of the caret that feedback holds."""
MAX_FINAL_CHARS: Final = 4_000

Report = dict[str, Any]
Later = Callable[[float, Callable[[], None]], Any]


@dataclass
class Offer:
    """A suggestion that was handed to the editor."""

    uri: str
    completion: Completion
    prefix: str
    """The document before the place where the editor inserts."""
    suffix: str
    lead: str = ""
    """The beginning of what is inserted that is not the model's: the selected entry of the editor's own list."""
    accepted: int = 0
    """Characters of the suggestion that were accepted, or typed before more were accepted."""
    taken: int = 0
    """Characters of the inserted text that are in the document."""

    @property
    def whole(self) -> str:
        """The text that the editor inserts."""
        return self.lead + self.completion.text


@dataclass
class Followed:
    """A place of a suggestion that was accepted or rejected."""

    offer: Offer
    span: DocumentSpan
    accepted: str
    """The text that was accepted, empty for a rejected suggestion."""


@dataclass
class EditorTelemetry:
    """The suggestions of one editor."""

    send: Callable[[Report], None]
    """Take a report; it must not wait."""
    later: Later
    """Call something after seconds, such as `loop.call_later`."""
    allowed: Callable[[], Consent]
    """The reports to which user and server agree now."""
    typed: Counter[str] = field(default_factory=Counter)
    """Characters written by language since the last report."""
    _open: Offer | None = None
    _passed: Offer | None = None
    """The last suggestion that was passed over."""
    _texts: dict[str, str] = field(default_factory=dict)
    """Texts of documents in which a place is followed, as they were last seen."""
    _followed: list[Followed] = field(default_factory=list)
    _counting: bool = False

    # What the editor does

    def offered(self, uri: str, completion: Completion, text: str, place: tuple[int, int], lead: str = "") -> None:
        """Note a suggestion that was handed to the editor, whose document is `text`.

        `place` are the characters that the editor replaces by `lead` and the suggestion.
        """
        if self.allowed() == "off" or not completion.id:
            return
        if self._open is not None and self._open.completion.id == completion.id:
            return  # the rest of the one that is shown
        self.rejected()
        start, end = place
        self._open = Offer(uri, completion, text[:start], text[end:], lead, taken=end - start)
        self._texts[uri] = text
        self.send({"type": "view", "completion_id": completion.id})

    def changed(self, uri: str, text: str, inserted: tuple[str, ...] = ()) -> None:
        """Note that a document now is `text`, and the texts that edits inserted, as far as they are known."""
        consent = self.allowed()
        if consent == "off":
            self.forget()
            return
        by_hand = sum(len(each) for each in inserted if len(each.strip()) <= HAND)
        self._count(uri, by_hand)
        old = self._texts.get(uri)
        if old is None or old == text:
            return
        start, end, new_end = difference(old, text)
        for each in self._followed:
            if each.offer.uri == uri:
                follow(each.span, start, end, new_end)
        self._texts[uri] = text
        if self._open is not None and self._open.uri == uri:
            self._progress(self._open, text)

    def accepted(self, identifier: str = "") -> None:
        """Note that the editor reported the acceptance of the whole suggestion.

        Most are seen in the text before; this is for an editor that changes what it inserts, for instance indents it.
        """
        offer = self._passed
        if offer is None or offer.accepted or identifier != offer.completion.id:
            return
        self._passed = None
        self._followed = [each for each in self._followed if each.offer is not offer]
        self._accept(offer, len(offer.whole))

    def rejected(self) -> None:
        """Note that the open suggestion was passed over: the user typed something else, or moved away."""
        offer, self._open = self._open, None
        if offer is None or offer.accepted or offer.taken >= len(offer.whole):
            return
        self._passed = offer
        self.send({"type": "dismiss", "completion_id": offer.completion.id})
        text = self._texts.get(offer.uri, "")
        if self.allowed() == "feedback" and text.startswith(offer.prefix):
            _, _, end = difference(offer.prefix + offer.suffix, text)
            self._follow(Followed(offer, DocumentSpan(len(offer.prefix), max(len(offer.prefix), end), grows=True), ""))
        else:
            self._tidy(offer.uri)

    def forget(self) -> None:
        """Forget everything: the user has withdrawn the consent."""
        self._open = self._passed = None
        self._followed.clear()
        self._texts.clear()
        self.typed.clear()

    # Acceptance

    def _progress(self, offer: Offer, text: str) -> None:
        """Compare the document with the open suggestion."""
        prefix, suffix, whole = offer.prefix, offer.suffix, offer.whole
        between = len(text) - len(prefix) - len(suffix)
        fits = between >= 0 and text.startswith(prefix) and text.endswith(suffix)
        if not fits or not whole.startswith(text[len(prefix) : len(prefix) + between]):
            self.rejected()
            return
        step, offer.taken = between - offer.taken, between
        if step > 1 and between > len(offer.lead):
            self._accept(offer, between)
        if between == len(whole):
            self._open = None
            self._tidy(offer.uri)

    def _accept(self, offer: Offer, end: int) -> None:
        """Note that the inserted text up to `end` was accepted."""
        text, chars = offer.completion.text, end - len(offer.lead)
        if chars <= offer.accepted:
            return
        new = text[offer.accepted : chars]
        part = "all" if chars == len(text) else "line" if new.strip() == first_line(text).strip() else "word"
        self._count(offer.uri, len(new))
        start = len(offer.prefix) + len(offer.lead)
        mine = [each for each in self._followed if each.offer is offer]
        for each in mine:
            each.accepted, each.span = text[:chars], DocumentSpan(start, start + chars)
        if not mine:
            self._follow(Followed(offer, DocumentSpan(start, start + chars), text[:chars]))
        offer.accepted = chars
        report = {"type": "select", "completion_id": offer.completion.id, "select_kind": part}
        self.send({**report, "accepted_chars": len(plain(text[:chars]))})

    # Persistence

    def _follow(self, followed: Followed) -> None:
        if len(self._followed) >= FOLLOWED:
            del self._followed[0]
        self._followed.append(followed)
        for seconds in AFTER_S:
            self.later(seconds, partial(self._look, followed, seconds))

    def _look(self, followed: Followed, seconds: int) -> None:
        """Report what is left of a suggestion."""
        if not any(each is followed for each in self._followed) or self.allowed() == "off":
            return
        text = self._texts.get(followed.offer.uri, "")
        now = plain(text[followed.span.start : followed.span.end])
        identifier = followed.offer.completion.id
        if followed.accepted:
            accepted = plain(followed.accepted)
            kept = int(len(accepted) * similarity(accepted, now))
            self.send({"type": "persist", "completion_id": identifier, "after_s": seconds, "kept_chars": kept})
        if seconds == AFTER_S[-1]:
            self._followed = [each for each in self._followed if each is not followed]
            if self.allowed() == "feedback":
                self.send(_feedback(followed, now))
            self._tidy(followed.offer.uri)

    def _tidy(self, uri: str) -> None:
        """Forget the text of a document in which nothing is followed any more."""
        used = [each.offer.uri for each in self._followed] + ([self._open.uri] if self._open else [])
        if uri not in used:
            self._texts.pop(uri, None)

    # Typing

    def _count(self, uri: str, chars: int) -> None:
        if not chars:
            return
        self.typed[language_of(uri) or ""] += chars
        if not self._counting:
            self._counting = True
            self.later(TYPED_S, self._report_typed)

    def _report_typed(self) -> None:
        self._counting = False
        for language, chars in self.typed.items():
            self.send({"type": "type", "language": language, "typed_chars": min(chars, MAX_TYPED)})
        self.typed.clear()


def _feedback(followed: Followed, now: str) -> Report:
    """Return the report for the dataset, as seen from the caret of which the model was asked."""
    completion = followed.offer.completion
    caret = completion.caret
    prefix = caret.prefix.removesuffix(completion.typed)
    shown = plain(completion.typed + completion.text)
    if followed.accepted:
        final = plain(completion.typed) + now
    else:
        final = lines_of(plain(completion.typed) + now, shown.count("\n") + 1)
    return {
        "type": "feedback",
        "completion_id": completion.id,
        "consent": True,
        "outcome": "accepted" if followed.accepted else "rejected",
        "path": caret.place.path,
        "prefix": plain(prefix[-MAX_SIDE_CHARS:]),
        "suffix": plain(caret.suffix[:MAX_SIDE_CHARS]),
        "context": [{name: getattr(item, name) for name in ITEM} for item in completion.items],
        "shown": shown,
        "final": final[:MAX_FINAL_CHARS],
    }


class Outbox:
    """Reports on their way to the server, in order; what cannot be sent is dropped and counted."""

    def __init__(self, post: Callable[[Report], Any]) -> None:
        self._post = post
        self._reports: deque[Report] = deque()
        self._task: asyncio.Task[None] | None = None
        self.sent = self.dropped = 0

    def put(self, report: Mapping[str, Any]) -> None:
        """Take a report."""
        if len(self._reports) >= WAITING:
            self._reports.popleft()
            self.dropped += 1
        self._reports.append(dict(report))
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        while self._reports:
            if await self._post(self._reports.popleft()):
                self.sent += 1
            else:
                self.dropped += 1

    async def close(self) -> None:
        """Drop what has not been sent."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
