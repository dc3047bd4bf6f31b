"""Recognition of the current file among a project's files, in any spelling of its path: it is never its own context."""

import posixpath
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

MAX_BLANKS: Final = 256
"""Maximum number of blanks at the end of a text that may differ."""
END: Final = 64
"""Characters at the end of a text that are compared first."""
_DRIVE: Final = re.compile(r"/?([A-Za-z]):(?=/|$)")


@lru_cache(maxsize=4_096)
def normalised(path: str) -> str:
    """Return one spelling of a path: slashes, no `.` and no `..` that can be resolved, composed Unicode, no file://."""
    if path.startswith("file://"):
        path = unquote(path.removeprefix("file://").removeprefix("localhost"))
    path = posixpath.normpath(unicodedata.normalize("NFC", path.replace("\\", "/")))
    path = re.sub("^//+", "/", path)
    drive = _DRIVE.match(path)
    return f"/{drive[1].lower()}{path[drive.end(1) :]}" if drive else path


def within(root: Path, path: str) -> str:
    """Return the path of a file that a user named, relative to the folder `root`, links in both resolved.

    The path of a file outside the folder is returned unchanged.
    """
    target, folder = (root / path).resolve(), root.resolve()
    return target.relative_to(folder).as_posix() if target.is_relative_to(folder) else Path(path).as_posix()


def _is_rooted(path: str) -> bool:
    """Return whether a normalised path does not begin in the project's folder."""
    return path.startswith(("/", "../"))


def _canonical(text: str | bytes) -> str:
    text = text.decode(errors="replace") if isinstance(text, bytes) else text
    text = text.removeprefix("\ufeff")
    return (text.replace("\r\n", "\n") if "\r" in text else text).rstrip()  # to look for one character is faster


@dataclass(frozen=True)
class Current:
    """The file with the caret. Another file is the same if its normalised path or its content is."""

    path: str
    text: str = ""
    """The known text of the file; empty if only the path is known."""

    def named_in(self, paths: Iterable[str]) -> set[str]:
        """Return the paths that name this file.

        If one path is absolute and the other is not, the project's folder is unknown: then the file is the one with the
        most components in common, from the end.
        """
        wanted = normalised(self.path)
        name = wanted.rpartition("/")[2]
        likely = {path: normalised(path) for path in paths if path.endswith(name) or "%" in path or not path.isascii()}
        equal = {path for path, other in likely.items() if other == wanted}
        if equal:
            return equal
        shared = {path: _shared_end(wanted, other) for path, other in likely.items()}
        longest = max(shared.values(), default=0)
        return {path for path, length in shared.items() if length == longest > 0}

    def has_text(self, text: str | bytes) -> bool:
        """Return whether `text` is this file's, except for line ends and trailing blanks; never for a blank file."""
        known = self._bytes if isinstance(text, bytes) else self._string
        return known.may_be(text) and _canonical(text) == self._string.text

    @property
    def sizes(self) -> range:
        """The sizes in bytes that a text may have for which `has_text` is true."""
        return self._bytes.sizes

    @property
    def data(self) -> bytes:
        """The text as bytes, without the line ends and blanks that may differ."""
        data: bytes = self._bytes.text
        return data

    @cached_property
    def _string(self) -> "_Known":
        return _Known(_canonical(self.text))

    @cached_property
    def _bytes(self) -> "_Known":
        return _Known(self._string.text.encode(errors="replace"))


class _Known:
    """A text, or its bytes, with a quick test that rules out most other texts."""

    def __init__(self, text: Any) -> None:
        self.text = text
        line_feeds = text.count(b"\n" if isinstance(text, bytes) else "\n")
        most = len(text) + line_feeds + 1 + MAX_BLANKS  # each may be CR LF in the other text
        self._end = text[-END:].split()[-1:]
        self.sizes = range(len(text), most + 1) if self._end else range(0)

    def may_be(self, other: Any) -> bool:
        """Return whether `other` has a possible length and the same last word."""
        if len(other) not in self.sizes:
            return False
        return bool(other[-END - MAX_BLANKS :].rstrip().endswith(self._end[0]))


def _shared_end(left: str, right: str) -> int:
    """Return the length of the relative path if it is the end of the rooted one, else 0."""
    if _is_rooted(left) == _is_rooted(right):
        return 0
    inner, rooted = (right, left) if _is_rooted(left) else (left, right)
    return len(inner) if f"/{rooted}".endswith(f"/{inner}") else 0
