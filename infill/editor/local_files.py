"""The files of a folder that the index would hold, with the digests of their texts, but without texts and index."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from infill.context.files import ContextFile, IndexLimits, LeftOut, Stamp, read, source_at, sources, why_left_out

MAX_PATH_CHARS: Final = 4_096
"""The longest path that a server accepts."""


class LocalFiles:
    """The digests of a folder's files, as they were read last; for one thread at a time."""

    def __init__(self, root: Path, limits: IndexLimits | None = None) -> None:
        self.root = root
        self.digests: dict[str, bytes] = {}
        """SHA-256 of each text in UTF-8, by path."""
        self._limits = limits or IndexLimits()
        self._stamps: dict[str, Stamp] = {}

    def scan(self) -> Iterator[str]:
        """Bring the digests up to date with the folder, and yield the path of each file that was read.

        Only files whose size, time or inode has changed are read. Raises InputError if the folder does not exist.
        """
        gone = set(self.digests)
        for source in sources(self.root, self._limits, LeftOut()):
            if self._stamps.get(source.path) == source.stamp and source.path in self.digests:
                gone.discard(source.path)
            elif self._read(source) is not None:
                gone.discard(source.path)
                yield source.path
        for path in gone:
            self._forget(path)

    def look(self, path: str) -> str | None:
        """Read a file again, which may be new, changed or removed; return its text, None if it does not belong here."""
        source = source_at(self.root, path, self._limits)
        full = path not in self.digests and len(self.digests) >= self._limits.files
        data = None if isinstance(source, str) or full else self._read(source)
        if data is None:
            self._forget(path)
            return None
        return data.decode()

    def again(self, path: str) -> str | None:
        """Read a file of the last scan again, without the ignore rules; return its text, None if there is none now."""
        try:
            data = self._read(ContextFile(path, self._stamps[path])) if path in self._stamps else None
        except OSError:
            data = None
        if data is None:
            self._forget(path)
            return None
        return data.decode()

    def may_hold(self, path: str) -> bool:
        """Return whether `path` is a folder with files that belong here, or was one."""
        place = self.root / path
        if path in self.digests or place.is_file():
            return False
        if place.is_dir():
            return why_left_out(self.root, f"{path}/any") is None
        return any(other.startswith(f"{path}/") for other in self.digests)

    def _read(self, source: ContextFile) -> bytes | None:
        """Read a file and note its digest; return its text as UTF-8, None if it does not belong here."""
        if not _can_be_named(source.path):
            return None
        text = read(self.root, source, self._limits)
        if isinstance(text, str):
            return None
        data, self._stamps[source.path] = text
        self.digests[source.path] = hashlib.sha256(data).digest()
        return data

    def _forget(self, path: str) -> None:
        self.digests.pop(path, None)
        self._stamps.pop(path, None)


def _can_be_named(path: str) -> bool:
    """Return whether a server accepts the path."""
    return len(path) <= MAX_PATH_CHARS and "\\" not in path and path[1:2] != ":"
