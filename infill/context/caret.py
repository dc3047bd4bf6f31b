"""Where the caret stands, and the text round it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infill.errors import InputError
from infill.foreign import UnreadableError, read_bytes
from infill.text import DecodeError, decode

_IMPORT: Final = re.compile(
    r"\n[ \t]*(?=[ifpur#])"  # spares most lines the alternatives
    r"((?:import|from|(?:pub )?use|using|package) [^\n]*|# ?include[^\n]*|require[^\n]*)"
)
_IMPORT_PARTS: Final = (" from '", ' from "', "require(")
_HEAD_CHARS: Final = 8_000
"""Imports are looked for in so many characters at the start of a file."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """Where the caret stands: between `prefix` and `suffix` of the file `path`."""

    path: str
    prefix: str
    suffix: str
    recent: tuple[str, ...] = ()
    """Files that were opened or edited lately, the latest first."""


def last_lines(text: str, count: int) -> str:
    """The line that `text` ends in (it may be empty) and the `count` lines before it."""
    start = len(text)
    for _ in range(count + 1):
        start = text.rfind("\n", 0, start)
        if start < 0:
            return text
    return text[start + 1 :]


def first_lines(text: str, count: int) -> str:
    """The rest of the caret's line and the `count` lines behind it."""
    end = -1
    for _ in range(count + 1):
        end = text.find("\n", end + 1)
        if end < 0:
            return text
    return text[: end + 1]


def imports(prefix: str) -> str:
    """The lines at the start of a file that name other files, in the languages we know."""
    head = prefix[:_HEAD_CHARS]
    lines: list[str] = _IMPORT.findall(f"\n{head}")
    for part in _IMPORT_PARTS:
        place = head.find(part)
        while place >= 0:
            end = head.find("\n", place) % (len(head) + 1)
            lines.append(head[head.rfind("\n", 0, place) + 1 : end])
            place = head.find(part, end)
    return "\n".join(lines)


def read_source(file: Path) -> str:
    """Return the text of a file that a user named, without a byte order mark and with its line ends as they are.

    Raises InputError when it cannot be read or is not text.
    """
    try:
        return decode(read_bytes(file, follow_links=True).data)
    except UnreadableError as error:
        raise InputError(f"{file} {error}") from error
    except DecodeError as error:
        raise InputError(f"{file} is {error}: save it as UTF-8 first") from error


def split_at(text: str, line: int, column: int) -> tuple[str, str]:
    """What stands before and after a caret, its line and column counted from 1; the column may stand behind the line.

    Raises InputError when the text has no such place.
    """
    lines = text.split("\n")
    if not 1 <= line <= len(lines):
        raise InputError(f"there is no line {line}: the file has {len(lines)} lines, counted from 1")
    width = len(lines[line - 1].removesuffix("\r"))
    if not 1 <= column <= width + 1:
        raise InputError(f"there is no column {column} in line {line}: it has columns 1 to {width + 1}")
    offset = sum(len(each) + 1 for each in lines[: line - 1]) + column - 1
    return text[:offset], text[offset:]
