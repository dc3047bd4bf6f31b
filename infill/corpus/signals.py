"""Measurements of a text that do not depend on thresholds: `measure` returns them, `quality` judges them.

The corpus keeps the signals of every file that was read (`signals/*.parquet`). A later build in the same store
reuses them, so that a changed threshold measures nothing again.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from typing import Any, Final

import numpy as np
import pyarrow as pa

from infill import manifest, storage
from infill.artifacts import corpus as artifact
from infill.errors import InputError
from infill.manifest import Manifest

VERSION: Final = 1
"""Signals of another version are measured again."""
GENERATED_CHARS: Final = 1_500
"""The mark of a generated file is looked for in this much of it."""
RUN: Final = 64
"""Characters of base64 or hexadecimal digits in a row that count as encoded data (StarCoder2, arXiv 2402.19173)."""

_GENERATED: Final = re.compile(
    r"@generated\b|DO NOT EDIT|do not edit (this file|by hand|manually|directly)|[Cc]ode [Gg]enerated (by|from)|"
    r"([Aa]uto-?|[Aa]utomatically |[Mm]achine[- ])[Gg]enerated|"
    r"(file|class|module|code) (is|was|has been) (auto\w* )?generated|"
    r"^\W{0,8}[Gg]enerated by (?!hand)",
    re.MULTILINE,
)
_ESCAPES: Final = {
    "\\x": re.compile(r"\\x[0-9a-fA-F]{2}(?:\\x[0-9a-fA-F]{2}){7,}"),
    "\\u": re.compile(r"\\u[0-9a-fA-F]{4}(?:\\u[0-9a-fA-F]{4}){7,}"),
    "0x": re.compile(r"0x[0-9a-fA-F]{1,8}[uUlL]{0,3},?\s*(?:0x[0-9a-fA-F]{1,8}[uUlL]{0,3},?\s*){7,}"),
}
"""Bytes as escapes or numbers (StarCoder2), by what each pattern begins with, which the search jumps to."""
_HIDDEN: Final = re.compile(r"<(?:(!--)|(script)\b|(style)\b)?", re.IGNORECASE)
"""The start of what a browser does not show."""
_HIDDEN_ENDS: Final = (
    re.compile(">"),
    re.compile("-->"),
    re.compile(r"</script\s*>", re.IGNORECASE),
    re.compile(r"</style\s*>", re.IGNORECASE),
)
"""The ends of a tag, and of what each group of _HIDDEN starts."""
_ALPHANUMERIC: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_NOT_LETTERS: Final = bytes(range(0x80)).translate(None, _ALPHANUMERIC) + bytes(range(0x80, 0xC0))
"""ASCII that is neither letter nor digit, and the bytes inside a UTF-8 sequence (its first byte counts as a letter)."""
_INSIDE: Final = bytes(range(0x80, 0xC0))
_NOT_DIGITS: Final = bytes(range(0x100)).translate(None, b"0123456789")
_BLANKS: Final = b" \t\r\n\v\f"
_ENCODED: Final = np.isin(np.arange(256), np.frombuffer(_ALPHANUMERIC + b"+/=", np.uint8))


@dataclass(frozen=True, kw_only=True)
class Signals:
    """Lengths are in characters, shares of the characters of the whole text."""

    characters: int
    lines: int
    longest_line: int
    alphanumeric: float
    """Share of letters and digits; every character beyond ASCII counts as a letter."""
    digits: float
    blank: float
    """Share of white space."""
    longest_encoded: int
    """The longest run of base64, hexadecimal digits or escapes."""
    encoded: float
    """Share of such runs."""
    visible: float
    """Share of the text that a browser shows; 1 for what is not HTML."""
    generated: str
    """The words by which a generated file tells that it is one; empty where there are none."""

    @property
    def mean_line(self) -> float:
        """Mean length of a line."""
        return (self.characters - self.lines + 1) / self.lines


_TYPES: Final[dict[Any, pa.DataType]] = {int: pa.int64(), float: pa.float64(), str: pa.string()}
NAMES: Final = tuple(item.name for item in fields(Signals))
SCHEMA: Final = pa.schema(
    [pa.field("key", pa.binary()), *(pa.field(item.name, _TYPES[item.type]) for item in fields(Signals))]
)
"""`key` is that of `key`."""


def measure(text: str, language: str) -> Signals:
    """Return the signals of a text."""
    data = text.encode()
    characters = len(data.translate(None, _INSIDE))
    lines = text.split("\n")
    longest, encoded = _encoded(data, text)
    count = max(characters, 1)
    return Signals(
        characters=characters,
        lines=len(lines),
        longest_line=max(map(len, lines)),
        alphanumeric=len(data.translate(None, _NOT_LETTERS)) / count,
        digits=len(data.translate(None, _NOT_DIGITS)) / count,
        blank=1 - len(data.translate(None, _BLANKS)) / max(len(data), 1),
        longest_encoded=longest,
        encoded=min(encoded / count, 1.0),
        visible=len(_visible(text).strip()) / count if language == "html" else 1.0,
        generated=_mark(text),
    )


def _encoded(data: bytes, text: str) -> tuple[int, int]:
    """Return the length of the longest run of encoded data, and of all together."""
    inside = np.empty(len(data) + 2, np.int8)
    inside[[0, -1]] = 0
    inside[1:-1] = _ENCODED[np.frombuffer(data, np.uint8)]
    edges = np.flatnonzero(np.diff(inside))
    runs = edges[1::2] - edges[::2]
    starts, runs = edges[::2][runs >= RUN], runs[runs >= RUN]
    lengths = [
        int(run) for start, run in zip(starts, runs, strict=True) if _is_random(data[int(start) : int(start + run)])
    ]
    for start, pattern in _ESCAPES.items():
        if start in text:
            lengths += [match.end() - match.start() for match in pattern.finditer(text)]
    return max(lengths, default=0), sum(lengths)


def _visible(text: str) -> str:
    """Return HTML without its tags, comments, scripts and styles.

    One regular expression would search the rest of the text again for each element that has no end, which takes hours
    for a hostile file. Here the first element without an end of its kind is remembered.
    """
    shown, place = list[str](), 0
    ends: list[re.Pattern[str] | None] = [*_HIDDEN_ENDS]
    while start := _HIDDEN.search(text, place):
        kinds = (start.lastindex or 0, 0)  # an element without its own end is a tag
        end = next((end for kind in kinds if (end := _search(ends, kind, text, start.end()))), None)
        if end is None:  # nor is there another tag
            break
        shown.append(text[place : start.start()])
        place = end.end()
    return "".join([*shown, text[place:]])


def _search(ends: list[re.Pattern[str] | None], kind: int, text: str, place: int) -> re.Match[str] | None:
    """Return the next end of a kind; where there is none, no later search looks for it."""
    pattern = ends[kind]
    match = pattern.search(text, place) if pattern else None
    if match is None:
        ends[kind] = None
    return match


def _is_random(run: bytes) -> bool:
    """Return whether a run has digits, or letters of both cases, and many different ones: "=====" and paths do not."""
    return len(set(run)) >= 8 and (any(0x30 <= byte <= 0x39 for byte in run) or run != run.lower()) and b"//" not in run


def _mark(text: str) -> str:
    head = text[:GENERATED_CHARS].lower()
    if "generated" not in head and "do not edit" not in head:  # saves the search, which is slow, for nearly all files
        return ""
    match = _GENERATED.search(text, 0, GENERATED_CHARS)
    return match[0].strip() if match else ""


# The store


def key(text: str, language: str) -> bytes:
    """Return the name of a text's signals: a hash of the text, its language and VERSION."""
    return hashlib.sha256(f"{VERSION}\0{language}\0{text}".encode()).digest()


def table(measured: Mapping[bytes, Signals]) -> pa.Table:
    """Return signals by key as a table, in the order of the keys."""
    ordered = sorted(measured.items())
    columns = zip(*(astuple(each) for _, each in ordered), strict=True) if ordered else [[] for _ in NAMES]
    return pa.table([[name for name, _ in ordered], *map(list, columns)], schema=SCHEMA)


def part(folder: str, number: int) -> str:
    """Return the file with the signals of a shard."""
    return artifact.part(folder, artifact.SIGNALS, number)


def read(uris: Iterable[str]) -> dict[bytes, Signals]:
    """Return the signals in the files `uris`, by key.

    A file that is missing, cannot be read or is of another version costs a second measurement, nothing else.
    """
    known: dict[bytes, Signals] = {}
    for uri in uris:
        try:
            rows = storage.read_table(uri, SCHEMA.names)
        except (InputError, pa.ArrowException):
            continue
        values = [rows[name].to_pylist() for name in SCHEMA.names]
        known |= {name: Signals(**dict(zip(NAMES, each, strict=True))) for name, *each in zip(*values, strict=True)}
    return known


def beside(output: str) -> str:
    """Return the newest other corpus in the folder of `output` that keeps signals; empty where there is none."""
    candidates = [folder for folder in storage.list_folders(storage.parent(output)) if folder != output]
    finished = [artifact for artifact in map(_finished, candidates) if artifact is not None]
    return max(finished, key=lambda artifact: artifact.created).uri if finished else ""


def _finished(folder: str) -> Manifest | None:
    if not storage.exists(part(folder, 0)) or not storage.exists(storage.join(folder, manifest.FILE_NAME)):
        return None
    try:
        return manifest.find(folder)
    except InputError:  # damaged: it costs a measurement, nothing else
        return None


class Store:
    """The signals of one shard: those of an earlier corpus, and what is measured."""

    def __init__(self, known: Mapping[bytes, Signals]) -> None:
        self._known = known
        self.used: dict[bytes, Signals] = {}
        self.measured = 0

    def of(self, text: str, language: str) -> Signals:
        """Return the signals of a text; they are measured only where they are not known."""
        name = key(text, language)
        signals = self._known.get(name) or self.used.get(name)
        if signals is None:
            signals = measure(text, language)
            self.measured += 1
        self.used[name] = signals
        return signals
