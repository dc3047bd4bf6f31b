"""A rating set as an artifact: pairs of completions that people compare, and the ratings that they add later.

The ratings are not part of the artifact's identity. A rater's file only grows; a line that a kill cut off is skipped.
"""

import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from infill import manifest, storage
from infill.artifacts.examples import CONTEXT
from infill.errors import InputError

STAGE: Final = "rating"
_ITEMS_FILE: Final = "items.parquet"
_RATINGS_FOLDER: Final = "ratings"
_ENDING: Final = ".jsonl"
FORMAT: Final = 1
"""Version of a line of ratings."""

FIRST: Final = "first"
SECOND: Final = "second"
EQUAL: Final = "equal"
SKIP: Final = "skip"
OTHER: Final = {FIRST: SECOND, SECOND: FIRST}
CHOICES: Final = (FIRST, SECOND, EQUAL, SKIP)
PAIRS: Final = "pairs"
"""Origin of items that are pairs of the preferences: their holes may be trained on."""
EVALUATIONS: Final = "evaluations"
"""Origin of items that compare two evaluations: their holes are held out."""
RATER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

ITEMS: Final = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "repo", "path", "language", "prefix", "suffix")),
        ("context", CONTEXT),
        *((name, pa.string()) for name in (FIRST, SECOND, "origin", "judge", "judged")),
        *((f"finished_{name}", pa.bool_()) for name in (FIRST, SECOND)),
        *((f"score_{name}", pa.float32()) for name in (FIRST, SECOND)),
    ]
)
"""One row per item; `judged` is what the judge chose: FIRST, SECOND or EQUAL. Of a pair of the preferences, either text
may be the first."""

log: Final = logging.getLogger(__name__)


def load(folder: str) -> str:
    """Return the URI of the rating set at `folder`. Raises InputError if there is none."""
    artifact = manifest.load(folder)
    if artifact.stage != STAGE:
        raise InputError(f"{folder} holds the result of the stage {artifact.stage}; name a folder of infill rate build")
    return artifact.uri


def write_items(folder: str, items: pa.Table) -> None:
    """Write rows of ITEMS into the artifact at `folder`."""
    storage.write_table(storage.join(folder, _ITEMS_FILE), items)


def read_items(folder: str) -> list[dict[str, Any]]:
    """Return the items of the rating set at `folder`. Raises InputError if there is none."""
    rows: list[dict[str, Any]] = storage.read_table(storage.join(load(folder), _ITEMS_FILE)).to_pylist()
    return rows


class RatingsFile:
    """The file of one rater in a local rating set; each rating is on the disk when `add` returns."""

    def __init__(self, folder: Path, rater: str) -> None:
        self.path = folder / _RATINGS_FOLDER / f"{rater}{_ENDING}"
        self.rater = rater

    def add(self, rating: Mapping[str, Any]) -> None:
        """Append a rating and wait until it is stored."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        row = {"version": FORMAT, "rater": self.rater, **rating}
        with self.path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a kill cut the last line off
                    file.write(b"\n")
            file.write(json.dumps(row, separators=(",", ":")).encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        storage.sync_folder(self.path.parent)

    def choices(self) -> dict[str, str]:
        """Return the rater's last choice for each item."""
        rows = _rows(str(self.path)) if self.path.exists() else []
        return {row["item"]: row["choice"] for row in rows}


def read_ratings(folder: str) -> list[dict[str, Any]]:
    """Return the last rating of each rater and item in the rating set at `folder`, in the order of rater and item."""
    last: dict[tuple[str, str], dict[str, Any]] = {}
    for file in storage.list_files(storage.join(folder, _RATINGS_FOLDER), _ENDING):
        last |= {(row["rater"], row["item"]): row for row in _rows(file)}
    return [last[key] for key in sorted(last)]


def digest(folder: str) -> str:
    """Return the digest of the ratings in the rating set at `folder`, for the key of a stage that reads them."""
    files = storage.list_files(storage.join(folder, _RATINGS_FOLDER), _ENDING)
    return " ".join([manifest.digest_of(folder), *(storage.sha256(file) for file in sorted(files))])


def _rows(file: str) -> list[dict[str, Any]]:
    """Return the ratings in a file. Raises InputError for a later version of the format."""
    rows = []
    for number, line in enumerate(storage.read_bytes(file).split(b"\n"), 1):
        row = _row(line) if line else {}
        if row is None:
            log.warning("line %d of %s is left out: it is not a rating", number, file)
        elif row:
            if row["version"] > FORMAT:
                raise InputError(f"{file} has version {row['version']} of ratings, this code reads {FORMAT}")
            rows.append(row)
    return rows


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        texts = all(isinstance(row[name], str) for name in ("rater", "item", "left"))
        valid = texts and row["choice"] in CHOICES and isinstance(row["version"], int)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return dict(row) if valid else None
