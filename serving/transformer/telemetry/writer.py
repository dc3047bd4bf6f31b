"""The writer of the feedback dataset: redacts rows and writes whole files, in one folder for each tenant."""

import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from infill import storage
from infill.errors import InfillError, InputError
from infill.feedback import feedback_row
from serving.transformer.telemetry.counts import Counts, language_at

log = logging.getLogger("kserve.infill")

WAITING: Final = 1_000
"""Rows that may wait for their redaction; more are dropped."""
FILE_ROWS: Final = 256
FILE_BYTES: Final = 4_000_000
"""A file is written when it has this many rows or bytes, or FLUSH_S after its first row."""
FLUSH_S: Final = 15.0
NOBODY: Final = "_"
"""The folder where there are no tenants; no tenant can have this name."""
LEAST: Final = 6
"""Characters of a value that, found in one part of a row, is replaced in all others."""
REDACTED: Final = "REDACTED"
SECRET, BUSY, FULL, FAILED = "secret", "busy", "full", "failed"

Row = Mapping[str, Any]
Redact = Callable[[Row], Row | None]


def redaction() -> Redact:
    """Return the function that redacts a row. Raises InputError when its packages are not installed."""
    try:
        import kingfisher_sdk  # noqa: F401

        from infill.corpus import privacy
        from infill.syntax import LANGUAGES, grammar

        for language in LANGUAGES:
            grammar(language)
    except (ImportError, InputError) as error:
        raise InputError(
            f"feedback needs packages that replace secrets before anything is stored ({error}): pip install "
            "'infill[stages]'"
        ) from error

    def redact(row: Row) -> Row | None:
        """Return a row without secrets and personal data; None if the suggestion itself holds or touches one."""
        prefix, suffix, language = row["prefix"], row["suffix"], row["language"]
        parts = [(row["path"], ""), (prefix, language), (suffix, language)]
        parts += [(item["text"], language_at(item["path"])) for item in row["context"]]
        known = {text[span.start : span.end] for text, of in parts for span in privacy.find(text, of)}
        known = {value for value in known if len(value) >= LEAST}
        for text in {row["shown"], row["final"] or ""}:
            start, end = len(prefix), len(prefix) + len(text)
            spans = privacy.find(prefix + text + suffix, language)
            if any(span.start < end and span.end > start for span in spans) or any(value in text for value in known):
                return None

        def plain(text: str, language: str) -> str:
            """Return a text redacted, also of what is a secret only by where else in the row it stands."""
            text = privacy.redact(text, language).text
            for value in known:
                text = text.replace(value, REDACTED)
            return text

        context = [
            {**item, "path": plain(item["path"], ""), "text": plain(item["text"], language_at(item["path"]))}
            for item in row["context"]
        ]
        return {
            **row,
            "path": plain(row["path"], ""),
            "prefix": plain(prefix, language),
            "suffix": plain(suffix, language),
            "context": context,
        }

    return redact


@dataclass
class _File:
    """Rows of one tenant that are not written yet."""

    since: float
    lines: list[bytes] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(map(len, self.lines))


class RowWriter:
    """Writes rows in a thread of its own, so that no request waits for it. What it does not write, it counts."""

    def __init__(
        self, folder: str, counts: Counts, *, max_bytes: int, redact: Redact, flush_s: float = FLUSH_S
    ) -> None:
        self._folder = folder
        self._counts = counts
        self._max_bytes = max_bytes
        self._redact = redact
        self._flush_s = flush_s
        self._queue: queue.Queue[tuple[str, Row] | None] = queue.Queue(WAITING)
        self._files: dict[str, _File] = {}
        self._thread = threading.Thread(target=self._run, name="feedback", daemon=True)
        self._thread.start()

    def add(self, tenant: str, row: Row) -> None:
        """Take a row; one for which there is no room is dropped and counted."""
        try:
            self._queue.put_nowait((tenant, row))
        except queue.Full:
            self._drop(BUSY)

    def close(self) -> None:
        """Write what has been taken, and end."""
        self._queue.put(None)
        self._thread.join()

    def _drop(self, reason: str, rows: int = 1) -> None:
        self._counts.dropped.labels(reason).inc(rows)

    def _run(self) -> None:
        while True:
            try:
                entry = self._queue.get(timeout=self._flush_s / 2)
            except queue.Empty:
                self._flush()
                continue
            if entry is None:
                self._flush(everything=True)
                return
            try:
                self._take(*entry)
            except Exception as error:  # a row costs itself, and its message may hold code
                log.error("feedback is dropped: %s", type(error).__name__)
                self._drop(FAILED)
            self._flush()

    def _take(self, tenant: str, row: Row) -> None:
        redacted = self._redact(row)
        if redacted is None:
            self._drop(SECRET)
            return
        file = self._files.setdefault(tenant or NOBODY, _File(time.monotonic()))
        file.lines.append(feedback_row.line(redacted))

    def _flush(self, *, everything: bool = False) -> None:
        now = time.monotonic()
        for tenant, file in [*self._files.items()]:
            full = len(file.lines) >= FILE_ROWS or file.size >= FILE_BYTES
            if everything or full or now - file.since >= self._flush_s:
                del self._files[tenant]
                self._write(tenant, file)

    def _write(self, tenant: str, file: _File) -> None:
        """Write a file. The rows of one that cannot be written, or for which there is no room, are dropped."""
        count, data = len(file.lines), b"".join(file.lines)
        folder = storage.join(self._folder, tenant)
        name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f"-{uuid.uuid4().hex[:12]}{feedback_row.ENDING}"
        try:
            if sum(storage.sizes(folder).values()) + len(data) > self._max_bytes:
                log.error("%s holds as much feedback as it may: %d rows are dropped", folder, count)
                self._drop(FULL, count)
                return
            storage.write_bytes(storage.join(folder, name), data)
        except (InfillError, OSError) as error:
            log.error("feedback cannot be written, %d rows are dropped: %s", count, error)
            self._drop(FAILED, count)
        else:
            self._counts.rows.inc(count)
