"""Read a feedback dataset."""

import hashlib
import json
import logging
from collections.abc import Iterator
from typing import Any

from infill import storage
from infill.errors import InputError
from infill.feedback.feedback_row import ENDING, VERSION, why_not

log = logging.getLogger(__name__)


def digest(folder: str) -> str:
    """Return a digest of the names and sizes of a dataset's files, none of which ever changes."""
    sizes = {name: size for name, size in storage.sizes(folder).items() if name.endswith(ENDING)}
    return hashlib.sha256(json.dumps(sorted(sizes.items())).encode()).hexdigest()


def read(folder: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a dataset in the order of their files; none before users have given any feedback.

    A row that cannot be read costs itself and is logged. Raises InputError when a file was written in a later version
    of the format.
    """
    for file in storage.list_files(folder, ENDING):
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
        why = why_not(row)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        row, why = {}, f"it is not a row of feedback ({type(error).__name__})"
    if why:
        log.warning("%s is left out: %s", where, why)
        return None
    return dict(row)
