"""A row of the feedback dataset: its fields, and how a client, the transformer and a reader write and check them."""

import json
from collections.abc import Mapping
from typing import Any, Final

from infill.text import line_starts

VERSION: Final = 1
ENDING: Final = ".jsonl"
TEXTS: Final = ("id", "date", "model", "prompt_format", "strategy", "language", "path", "prefix", "suffix", "shown")
"""Fields that hold a text in each row."""
ACCEPTED: Final = "accepted"
REJECTED: Final = "rejected"
OUTCOMES: Final = (ACCEPTED, REJECTED)
ITEM: Final[Mapping[str, type]] = {
    "path": str,
    "text": str,
    "first_line": int,
    "last_line": int,
    "score": float,
    "strategy": str,
}
"""Fields of a context item and their types, in a request and in a row."""


def line(row: Mapping[str, Any]) -> bytes:
    """Return a row as one line."""
    return json.dumps({"version": VERSION, **row}, separators=(",", ":")).encode("ascii") + b"\n"


def why_not(row: Mapping[str, Any]) -> str:
    """Return why a JSON object is not a row; empty if it is."""
    if wrong := [name for name in TEXTS if not isinstance(row.get(name), str)]:
        return f"{wrong[0]} is not a text"
    if row.get("outcome") not in OUTCOMES:
        return f"outcome is neither {' nor '.join(OUTCOMES)}"
    if not isinstance(row.get("final"), str | None):
        return "final is neither a text nor null"
    if not isinstance(row.get("accepted_chars"), int) or not isinstance(row.get("finished"), bool):
        return "accepted_chars or finished is missing"
    if not isinstance(row.get("context"), list) or not all(map(is_item, row["context"])):
        return "context is not a list of context items"
    return ""


def is_item(value: Any) -> bool:
    """Return whether a JSON value is a context item."""
    return isinstance(value, dict) and all(_fits(value.get(name), kind) for name, kind in ITEM.items())


def _fits(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


def plain(text: str) -> str:
    """Return a text with `\\n` as its only line end, so that characters are counted alike everywhere."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def lines_of(text: str, count: int) -> str:
    """Return the first `count` lines of a text, without the line end of the last."""
    starts = line_starts(text)
    return text if len(starts) <= count else text[: starts[count]].rstrip("\r\n")
