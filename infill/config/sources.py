"""Names of sources of code: `KIND:PLACE`, and for a Git repository `@REVISION`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infill import storage
from infill.errors import InfillError, InputError

SOURCE_KINDS: Final = {
    "dir": "dir:/path/to/folder",
    "git": "git:/path/to/repository@revision",
    "archive": "archive:/path/to/archive-or-folder",
    "parquet": "parquet:/path/or/uri",
    "packages": "packages: for the installed packages",
}
"""Kind of a source -> how it is written."""


@dataclass(frozen=True)
class Source:
    kind: str
    place: str = ""
    """A path or URI; empty for `packages:`."""
    revision: str = ""
    """The revision at which a Git repository is read; empty for its HEAD."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}" + f"@{self.revision}" * bool(self.revision)


def parse_source(text: str) -> Source:
    """Return the source that a user named. Raises InputError for an unknown kind and a place that is missing."""
    kind, colon, place = text.partition(":")
    source = Source(kind, *_split_revision(place)) if kind == "git" else Source(kind, place)
    if not colon or kind not in SOURCE_KINDS or (kind == "packages") == bool(source.place):
        *others, last = SOURCE_KINDS.values()
        raise InputError(f"{text!r} is not a source: write {', '.join(others)}, or {last}")
    return source


def _split_revision(place: str) -> tuple[str, str]:
    """Return path and revision of `PATH[@REVISION]`; both may hold an `@`: the longest path where something stands."""
    ends = [match.start() for match in re.finditer("@", place)][::-1]
    for end in [len(place), *ends]:
        if _stands(place[:end]):
            return place[:end], place[end + 1 :]
    path, _, revision = place.rpartition("@") if "@" in place.rpartition("/")[2] else (place, "", "")
    return path, revision


def _stands(path: str) -> bool:
    try:
        return bool(path) and Path(storage.local_path(path)).exists()
    except (InfillError, OSError):  # a remote address, an unknown user, a name that is too long
        return False


def absolute_source(text: str) -> str:
    """Return a source of code with its path made absolute: `dir:~/code` as `dir:/home/me/code`."""
    kind, _, place = text.partition(":")
    if kind not in SOURCE_KINDS or not place:
        return text
    source = parse_source(text) if kind == "git" else Source(kind, place)
    return str(Source(kind, storage.absolute(source.place), source.revision)) if source.place else text
