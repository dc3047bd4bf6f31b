"""The feedback dataset: what users made of suggestions, one JSON object a line, in a folder for each tenant.

The transformer writes it, the preferences stage reads it; docs/reference/feedback.md describes the format.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

from infill import storage
from infill.errors import InputError
from infill.text import line_starts

log = logging.getLogger(__name__)

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


def digest(folder: str) -> str:
    """Return a digest of the names and sizes of a dataset's files, none of which ever changes."""
    sizes = {name: size for name, size in storage.sizes(folder).items() if name.endswith(ENDING)}
    return hashlib.sha256(json.dumps(sorted(sizes.items())).encode()).hexdigest()


def read(folder: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a dataset in the order of their files.

    A row that cannot be read costs itself and is logged. Raises InputError when there is no file, or when one was
    written in a later version of the format.
    """
    files = storage.list_files(folder, ENDING)
    if not files:
        raise InputError(f"{folder} holds no feedback: it has no file that ends in {ENDING}")
    for file in files:
        data = storage.read_bytes(file)
        for number, text in enumerate(data.split(b"\n"), 1):
            if text:
                row = _row(text, f"line {number} of {file}")
                if row is not None:
                    yield row


def _row(text: bytes, where: str) -> dict[str, Any] | None:
    try:
        row = json.loads(text)
        version = row["version"]
        if isinstance(version, int) and version > VERSION:
            raise InputError(f"{where} has version {version} of the feedback format, this code reads {VERSION}")
        why = _why_not(row)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        row, why = {}, f"it is not a row of feedback ({type(error).__name__})"
    if why:
        log.warning("%s is left out: %s", where, why)
        return None
    return dict(row)


def _why_not(row: Mapping[str, Any]) -> str:
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
