"""Git's ignore rules (gitignore(5)): whether a `.gitignore` or `.git/info/exclude` ignores a path, as git decides it.

As in git, every sequence of bytes is a valid file of rules: a pattern that cannot match anything (`[`, a backslash at
the end, an unknown `[:class:]`) affects no other. Each pattern becomes a regular expression whose choices are atomic
where the leftmost one is as good as any other, so no pattern takes exponential time.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from infill.foreign import UnreadableError, read_bytes
from infill.text import decode

_SPECIAL: Final = re.compile(rb"[*?\[\\]")
_MAX_BYTES: Final = 8_192
"""Longer patterns match nothing: paths on Linux have at most 4,096 bytes."""
_MAX_FILE: Final = 1_000_000
_FOLDER: Final = b"\0"
"""Appended to the path of a folder before matching; no path contains it."""
_ANY, _STAR, _CROSS, _FOLDERS = rb"[^/\0]", b"*", b"**", b"**/"

_CLASSES: Final = {
    b"alnum": rb"[A-Za-z0-9]",
    b"alpha": rb"[A-Za-z]",
    b"blank": rb"[ \t]",
    b"cntrl": rb"[\x00-\x1f\x7f]",
    b"digit": rb"[0-9]",
    b"graph": rb"[!-~]",
    b"lower": rb"[a-z]",
    b"print": rb"[ -~]",
    b"punct": rb"[!-/:-@[-`{-~]",
    b"space": rb"[ \t-\r]",
    b"upper": rb"[A-Z]",
    b"xdigit": rb"[0-9A-Fa-f]",
}


class _NoMatchError(ValueError):
    """A malformed pattern, which matches nothing in git."""


class _Pattern(NamedTuple):
    text: bytes
    negative: bool
    folders_only: bool

    @property
    def is_name(self) -> bool:
        """Whether the pattern is compared only with the last part of a path."""
        return b"/" not in self.text


@dataclass(frozen=True)
class _Table:
    """Patterns that are compared with the same text: literal ones by their text, the others in one expression."""

    literals: dict[bytes, int]
    """Number of the last pattern with each text (with `_FOLDER` for a pattern that matches only folders)."""
    regex: re.Pattern[bytes] | None
    """One group per pattern, the last pattern first."""
    numbers: tuple[int, ...]
    """Number of the pattern of each group."""

    def last(self, text: bytes, *, folder: bool) -> int:
        """Return the number of the last pattern that matches; -1 if none does."""
        number = self.literals.get(text, -1)
        if folder:
            text += _FOLDER
            number = max(number, self.literals.get(text, -1))
        match = self.regex.fullmatch(text) if self.regex else None
        return number if match is None or match.lastindex is None else max(number, self.numbers[match.lastindex - 1])


class IgnoreRules:
    """The rules of one file, for paths relative to its folder."""

    def __init__(self, data: bytes) -> None:
        """Read the bytes of the file; they may be anything."""
        patterns = list(_patterns(data))
        self._negative = [pattern.negative for pattern in patterns]
        self._names = _table(patterns, names=True)
        self._paths = _table(patterns, names=False)

    def verdict(self, path: str, *, folder: bool) -> bool | None:
        """Return whether the last rule that matches `path` ignores it; None when no rule matches."""
        text = os.fsencode(path)
        number = self._names.last(text.rpartition(b"/")[2], folder=folder)
        number = max(number, self._paths.last(text, folder=folder))
        return None if number < 0 else not self._negative[number]

    def ignore(self, path: str, *, folder: bool = False) -> bool:
        """Return whether `path` or a folder above it is ignored; no rule can include a file in an ignored folder."""
        parts = path.split("/")
        above = ("/".join(parts[:count]) for count in range(1, len(parts)))
        return any(self.verdict(each, folder=True) for each in above) or bool(self.verdict(path, folder=folder))


def load(file: Path, *, follow_links: bool = False) -> IgnoreRules | None:
    """Return the rules in the first megabyte of `file`; None when it cannot be read.

    Like git, which follows links only for its exclude file, ignore a `.gitignore` that is a link.
    """
    try:
        return IgnoreRules(read_bytes(file, _MAX_FILE, follow_links=follow_links).data)
    except UnreadableError:
        return None


def _patterns(data: bytes) -> Iterator[_Pattern]:
    """Yield the patterns in the bytes of a file, in order (dir.c: add_patterns_from_buffer, parse_path_pattern)."""
    # Git skips a UTF-8 byte order mark and reads UTF-16 as bytes; we decode UTF-16, which its author surely meant.
    plain = decode(data, "surrogateescape").encode("utf-8", "surrogateescape")
    for line in plain.split(b"\n"):
        text = _trimmed(line.removesuffix(b"\r").partition(b"\0")[0])
        if line.startswith(b"#") or not 0 < len(text) <= _MAX_BYTES:
            continue
        negative = text.startswith(b"!")
        text = text[negative:]
        yield _Pattern(text.removesuffix(b"/"), negative, text.endswith(b"/"))


def _trimmed(text: bytes) -> bytes:
    """Return `text` without trailing spaces, except one after a backslash."""
    kept = text.rstrip(b" ")
    backslashes = len(kept) - len(kept.rstrip(b"\\"))
    return text[: len(kept) + 1] if backslashes % 2 and len(kept) < len(text) else kept


def _table(patterns: list[_Pattern], *, names: bool) -> _Table:
    literals: dict[bytes, int] = {}
    groups: list[tuple[int, bytes]] = []
    for number, pattern in enumerate(patterns):
        if pattern.is_name != names:
            continue
        text = pattern.text.removeprefix(b"/")
        if not _SPECIAL.search(text):
            literals[text + _FOLDER * pattern.folders_only] = number
        elif (regex := _regex(text, crosses=not names)) is not None:
            groups.append((number, regex + _FOLDER + b"?" * (not pattern.folders_only)))
    groups.reverse()
    joined = re.compile(b"|".join(b"(%b)" % regex for _, regex in groups), re.DOTALL) if groups else None
    return _Table(literals, joined, tuple(number for number, _ in groups))


def _regex(text: bytes, *, crosses: bool) -> bytes | None:
    """Return the regular expression of a pattern; None if nothing can match. With `crosses`, `**` matches slashes."""
    # Git compares the text before the first special character separately, so a `**` after it is at a start.
    special = _SPECIAL.search(text)
    start = special.start() if special else len(text)
    try:
        return re.escape(text[:start]) + _assembled([*_tokens(text[start:], crosses)])
    except _NoMatchError:
        return None


def _tokens(text: bytes, crosses: bool) -> Iterator[bytes]:
    """Yield expressions that match one byte, and the three wildcards (wildmatch.c: dowild)."""
    place, last = 0, b""
    while place < len(text):
        token, end = _token(text, place, crosses)
        if token != last or token not in {_STAR, _CROSS, _FOLDERS}:
            yield token
        place, last = end, token


def _token(text: bytes, place: int, crosses: bool) -> tuple[bytes, int]:
    """Return the token at `place` and the offset after it."""
    char = text[place : place + 1]
    if char == b"*":
        return _star(text, place, crosses)
    if char == b"?":
        return _ANY, place + 1
    if char == b"[":
        return _bracket(text, place + 1)
    if char == b"\\":
        if place + 1 == len(text):
            raise _NoMatchError
        return re.escape(text[place + 1 : place + 2]), place + 2
    return re.escape(char), place + 1


def _star(text: bytes, place: int, crosses: bool) -> tuple[bytes, int]:
    end = place
    while text[end : end + 1] == b"*":
        end += 1
    rest = text[end : end + 2]
    aligned = place == 0 or text[place - 1 : place] == b"/"
    if crosses and end - place > 1 and aligned and (not rest or rest[:1] == b"/" or rest == b"\\/"):
        return (_FOLDERS, end + 1) if rest[:1] == b"/" else (_CROSS, end)
    return _STAR, end


def _bracket(text: bytes, place: int) -> tuple[bytes, int]:
    """Return the set of bytes whose members start at `place`, and the offset after it."""
    negated = text[place : place + 1] in {b"!", b"^"}
    place += negated
    members, previous, first = set[int](), 0, place
    while place == first or text[place : place + 1] != b"]":
        char, end = _member(text, place)
        if text[place : place + 1] == b"-" and previous and text[place + 1 : place + 2] not in {b"", b"]"}:
            last, place = _member(text, place + 1)
            members |= set(range(previous, last + 1))
            previous = 0
        elif (name := _class_name(text, place)) is not None:
            if name not in _CLASSES:
                raise _NoMatchError
            members |= {byte for byte in range(256) if re.match(_CLASSES[name], bytes([byte]))}
            previous, place = 0, place + len(name) + 4
        else:
            members.add(char)
            previous, place = char, end
    return _set(members, negated), place + 1


def _set(members: set[int], negated: bool) -> bytes:
    """Return the expression of one byte that is in `members` (not in them if `negated`) and not a slash."""
    members = (set(range(256)) - members if negated else members) - {0, ord("/")}
    starts = sorted(byte for byte in members if byte - 1 not in members)
    ends = sorted(byte for byte in members if byte + 1 not in members)
    runs = [b"\\x%02x-\\x%02x" % run for run in zip(starts, ends, strict=True)]
    return b"[%b]" % b"".join(runs) if runs else b"(?!)"


def _class_name(text: bytes, place: int) -> bytes | None:
    """Return the name in the `[:name:]` at `place`; None if there is none."""
    if text[place : place + 2] != b"[:":
        return None
    end = text.find(b"]", place + 2)
    if end < 0:
        raise _NoMatchError
    return text[place + 2 : end - 1] if end > place + 2 and text[end - 1 : end] == b":" else None


def _member(text: bytes, place: int) -> tuple[int, int]:
    """Return the byte at `place` of a set, without its backslash if it has one, and the offset after it."""
    place += text[place : place + 1] == b"\\"
    if place >= len(text):
        raise _NoMatchError
    return text[place], place + 1


def _assembled(tokens: list[bytes]) -> bytes:
    """Return one expression for all tokens. If another wildcard follows, the shortest match is as good as any."""
    parts, star, crossing = list[bytes](), False, False  # whether an atomic group is open
    for number, token in enumerate(tokens):
        rest = tokens[number + 1 :]
        if token in {_CROSS, _FOLDERS}:
            parts.append(b")" * crossing)
            crossing = _CROSS in rest or _FOLDERS in rest
            parts += [b"(?>" * crossing, rb"(?:[^\0]*?/)??" if token == _FOLDERS else rb"[^\0]*?"]
        elif token == _STAR:
            parts.append(b")" * star)
            star = _STAR in rest[: rest.index(b"/") if b"/" in rest else None]
            parts += [b"(?>" * star, rb"[^/\0]*?"]
        else:
            parts.append(token)
    return b"".join(parts)
