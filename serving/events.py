"""Server-sent events: write one, and read a stream of them from chunks of bytes that may be split anywhere.

A line of such a stream ends with LF, CR or CRLF and nothing else (WHATWG HTML, section 9.2.6). `str.splitlines` and
httpx's `iter_lines` also split at U+2028, U+2029, U+0085, form feeds and others, which generated text may contain.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

DONE: Final = b"data: [DONE]\n\n"
"""The last event of a stream of completions."""
_LINE: Final = re.compile(rb"([^\r\n]*)(\r\n|\n|\r(?!\Z))")
"""A line with its end. A CR at the end of the buffer may be the first half of a CRLF, so it is left for later."""


def event(value: Mapping[str, Any]) -> bytes:
    """Return `value` as an event of one line, in ASCII, so that no client takes a character for the end of a line."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


class EventReader:
    """A parser that takes the bytes of a stream and returns the data of each complete event."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of the events that `chunk` completes, without events that have no data."""
        self._rest += chunk
        complete, end = [], 0
        for line in _LINE.finditer(self._rest):
            end = line.end()
            data = self._take(line[1])
            if data is not None:
                complete.append(data)
        self._rest = self._rest[end:]
        return complete

    def _take(self, line: bytes) -> bytes | None:
        """Return the event's data when `line` is the blank line that ends it, else None."""
        if not line:
            data, self._data = self._data, []
            return b"\n".join(data) if data else None
        name, _, value = line.removeprefix(b"\xef\xbb\xbf").partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        return None


def read_events(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the data of each event of a stream."""
    reader = EventReader()
    for chunk in chunks:
        yield from reader.feed(chunk)
