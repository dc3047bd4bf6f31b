"""Limits that end an answer before the predictor does: its syntax, a stop string, a time, or less indentation."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final

from prometheus_client import Counter

from infill.truncation import Truncation
from serving.stops import StopFilter
from serving.transformer.upstream import Delta

INLINE_CHARS: Final = 20_000
"""In a file of up to this size a line is checked on the event loop, where parsing takes as long as a thread's turn."""
LIMIT: Final = "length"
"""The finish reason of an answer that ends here."""
_OPEN_LINE: Final = re.compile(r"\n[ \t]*\Z")


async def cut(deltas: AsyncGenerator[Delta, None], max_ms: float, min_indent: int) -> AsyncGenerator[Delta, None]:
    """Yield `deltas` up to the first line end after `max_ms`, or the first line indented by less than `min_indent`.

    Time counts from the first delta. The start of a line is held back until its indentation is known. 0 sets no limit.
    `deltas` is closed at the end.
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
    """Return `text` up to the first non-blank line after a line break that is indented by fewer than `least` blanks."""
    for line in re.finditer(r"\n([ \t]*)(?=[^\s])", text) if least else ():
        if len(line[1]) < least:
            return text[: line.start()].rstrip("\n")
    return text


async def truncated(
    deltas: AsyncGenerator[Delta, None], begin: Callable[[], Truncation | None], counter: Counter
) -> AsyncGenerator[Delta, None]:
    """Yield `deltas` in whole lines, up to the end that the filter finds. `deltas` is closed at the end.

    `begin` returns the filter, None if all passes; it is called after the first event, when the predictor computes.

    An answer that is cut is counted by its rule; it reports the events that came for it as tokens, since the
    predictor's own count no longer comes.
    """
    begun, ending, pieces = False, None, 0
    async with aclosing(deltas):
        async for delta in deltas:
            if not begun:
                begun, ending = True, begin()
            if ending is None:
                yield delta
                continue
            pieces += bool(delta.text)
            last = bool(delta.finish_reason)
            if ending.chars > INLINE_CHARS and (last or "\n" in delta.text):
                # In a thread, so that other requests continue: a line may have to be parsed in its file.
                text = await asyncio.to_thread(_fed, ending, delta.text, last)
            else:
                text = _fed(ending, delta.text, last)
            if ending.rule:
                counter.labels(ending.rule).inc()
                yield Delta(text=text, finish_reason="stop", usage=delta.usage or {"completion_tokens": pieces})
                return
            yield Delta(text=text, finish_reason=delta.finish_reason, usage=delta.usage)


def _fed(ending: Truncation, text: str, last: bool) -> str:
    """Return the text that `ending` passes when `text` arrives."""
    passed = ending.feed(text)
    return passed + ending.flush() if last and not ending.rule else passed


async def before(deltas: AsyncGenerator[Delta, None], stops: Sequence[str]) -> AsyncGenerator[Delta, None]:
    """Yield `deltas` up to the first of the `stops` in their text. `deltas` is closed at the end."""
    seen = StopFilter(stops)
    async with aclosing(deltas):
        async for delta in deltas:
            text = seen.feed(delta.text)
            if seen.stopped:
                yield Delta(text=text, finish_reason="stop")
                return
            text += seen.flush() if delta.finish_reason else ""
            yield Delta(text=text, finish_reason=delta.finish_reason, usage=delta.usage)


async def silent(deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
    """Yield only the usage at the end of `deltas`, without text: the answer to a request that warms the KV cache.

    `deltas` is closed at the end.
    """
    usage = None
    async with aclosing(deltas):
        async for delta in deltas:
            usage = delta.usage or usage
    yield Delta(finish_reason=LIMIT, usage=usage and {**usage, "completion_tokens": 0})


async def nothing() -> AsyncGenerator[Delta, None]:
    """Yield the end of an empty answer, for which the predictor is not asked."""
    yield Delta(finish_reason=LIMIT, usage={"completion_tokens": 0})


async def once(delta: Delta) -> AsyncGenerator[Delta, None]:
    """Yield the only event of an answer that is known."""
    yield delta
