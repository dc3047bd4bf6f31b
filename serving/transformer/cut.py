"""Where an answer ends although the predictor would write on: after a time, or where the indentation falls."""

import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from serving.transformer.upstream import Delta

LIMIT: Final = "length"
"""The finish reason of an answer that is ended here."""
_OPEN_LINE: Final = re.compile(r"\n[ \t]*\Z")


async def cut(deltas: AsyncGenerator[Delta, None], max_ms: float, min_indent: int) -> AsyncGenerator[Delta, None]:
    """Yield `deltas` until `max_ms` have passed since the first and a line ends, or a line is indented too little.

    The start of a line is held back until its indentation is known. 0 sets no limit. Closes `deltas`.
    """
    held, end = "", 0.0
    async with aclosing(deltas):
        async for delta in deltas:
            now = time.monotonic()
            end = end or now + max_ms / 1_000
            text, held = held + delta.text, ""
            kept = _indented(text, min_indent)
            if kept != text:
                yield Delta(text=kept, finish_reason=LIMIT)
                return
            if max_ms and now > end and "\n" in text:
                yield Delta(text=text[: text.rindex("\n")], finish_reason=LIMIT)
                return
            if min_indent and not delta.finish_reason and (start := _OPEN_LINE.search(text)):
                text, held = text[: start.start()], text[start.start() :]
            yield Delta(text=text, finish_reason=delta.finish_reason, usage=delta.usage)


def _indented(text: str, least: int) -> str:
    """Return `text` up to its first line, after a line break, that is not blank and is indented by fewer blanks."""
    for line in re.finditer(r"\n([ \t]*)(?=[^\s])", text) if least else ():
        if len(line[1]) < least:
            return text[: line.start()].rstrip("\n")
    return text


async def silent(deltas: AsyncIterator[Delta]) -> AsyncGenerator[Delta, None]:
    """Yield the usage that `deltas` end with, of a prompt that was only to be computed, and no text."""
    usage = None
    async for delta in deltas:
        usage = delta.usage or usage
    yield Delta(finish_reason=LIMIT, usage=usage and {**usage, "completion_tokens": 0})


async def nothing() -> AsyncGenerator[Delta, None]:
    """Yield the end of an answer for which the predictor need not be asked."""
    yield Delta(finish_reason=LIMIT, usage={"completion_tokens": 0})
