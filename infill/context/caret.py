"""Caret positions, and the text around the caret."""

import re
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from infill.errors import InputError
from infill.foreign import UnreadableError, read_bytes
from infill.text import DecodeError, decode, first_line, line_starts

Unit = Literal["characters", "utf-16", "bytes"]
"""Unit of columns: characters (Unicode code points), UTF-16 code units (the Language Server Protocol's default, in
which an emoji counts two), or UTF-8 bytes."""
CHARACTERS: Final = "characters"
UNITS: Final[dict[Unit, tuple[str, int]]] = {
    "characters": ("utf-32-le", 4),
    "utf-16": ("utf-16-le", 2),
    "bytes": ("utf-8", 1),
}
"""An encoding for each unit, and its number of bytes per unit."""

_IMPORT: Final = re.compile(
    r"\n[ \t]*(?=[ifpur#])"  # skips the alternatives for most lines
    r"((?:import|from|(?:pub )?use|using|package) [^\n]*|# ?include[^\n]*|require[^\n]*)"
)
_IMPORT_PARTS: Final = (" from '", ' from "', "require(")
HEAD_CHARS: Final = 8_000
"""Number of characters at the start of a file in which imports are searched."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """A caret between `prefix` and `suffix` of the file `path`."""

    path: str
    prefix: str
    suffix: str
    recent: tuple[str, ...] = ()
    """Files that were recently opened or edited, the latest first."""


def last_lines(text: str, count: int) -> str:
    """Return the last line of `text` (which may be empty) and the `count` lines before it."""
    start = len(text)
    for _ in range(count + 1):
        start = text.rfind("\n", 0, start)
        if start < 0:
            return text
    return text[start + 1 :]


def first_lines(text: str, count: int) -> str:
    """Return the rest of the caret's line and the `count` lines after it."""
    end = -1
    for _ in range(count + 1):
        end = text.find("\n", end + 1)
        if end < 0:
            return text
    return text[: end + 1]


def imports(prefix: str) -> str:
    """Return the import lines at the start of a file, in the languages we know."""
    head = prefix[:HEAD_CHARS]
    lines: list[str] = _IMPORT.findall(f"\n{head}")
    for part in _IMPORT_PARTS:
        place = head.find(part)
        while place >= 0:
            end = head.find("\n", place) % (len(head) + 1)
            lines.append(head[head.rfind("\n", 0, place) + 1 : end])
            place = head.find(part, end)
    return "\n".join(lines)


def read_source(file: Path) -> str:
    """Return the text of a file that a user named, without a byte order mark and with its line ends unchanged.

    Raises InputError when it cannot be read or is not text.
    """
    try:
        return decode(read_bytes(file, follow_links=True).data)
    except UnreadableError as error:
        raise InputError(f"{file} {error}") from error
    except DecodeError as error:
        raise InputError(f"{file} is {error}: save it as UTF-8 first") from error


def split_at(source: str, line: int, column: int, unit: Unit = CHARACTERS) -> tuple[str, str]:
    """Return the text before and after a caret, whose line and column count from 1, the column in `unit`.

    Lines are those of `text.line_starts`; the column after the last character of a line is its end. Raises InputError
    when the text has no such position.
    """
    starts = line_starts(source)
    if not 1 <= line <= len(starts):
        raise InputError(f"there is no line {line}: the file has {len(starts)} lines, counted from 1")
    start = starts[line - 1]
    offset = start + _characters(first_line(source[start : [*starts, None][line]]), line, column, unit)
    return source[:offset], source[offset:]


def _characters(content: str, line: int, column: int, unit: Unit) -> int:
    """Return the number of characters of a line before a column."""
    encoding, size = UNITS[unit]
    data = content.encode(encoding)
    width = len(data) // size
    if not 1 <= column <= width + 1:
        raise InputError(f"there is no column {column} in line {line}: it has columns 1 to {width + 1} ({unit})")
    try:
        return len(data[: (column - 1) * size].decode(encoding))
    except UnicodeDecodeError as error:
        raise InputError(f"column {column} of line {line} is inside a character; count columns in {unit}") from error


def position(source: str, offset: int) -> tuple[int, int]:
    """Return the line and the column of an offset in a text, both from 1, the column in characters."""
    starts = line_starts(source)
    line = bisect_right(starts, offset)
    return line, offset - starts[line - 1] + 1
