"""The command `infill fim split`: the holes of one file, as JSON lines or with the middle highlighted."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

from infill import fim, syntax
from infill.context.caret import position, read_source
from infill.errors import InputError
from infill.text import split_lines

_CONTEXT_LINES: Final = 3


def split_file(path: str, *, n: int, seed: int, as_json: bool) -> None:
    """Write at most `n` syntactic holes of the file at `path` to stdout, in the order of the file.

    They are JSON lines, or pictures if stdout is a terminal and `as_json` is false. If there are fewer than `n`, the
    reason goes to stderr. Raises InputError when the file cannot be read, is not text, or is in a language without a
    grammar, and when `n` is below 1.
    """
    if n < 1:
        raise InputError(f"--n must be at least 1, got {n}")
    text, language = _read(path)
    holes = fim.syntactic_holes(text, language, fim.SplitConfig(), seed=seed, epoch=0, document=Path(path).name, n=n)
    holes.sort(key=lambda hole: (hole.start, hole.end))
    show_holes(path, text, holes, as_json=as_json or not sys.stdout.isatty(), stream=sys.stdout)
    if len(holes) < n:
        sys.stderr.write(f"infill: {path}: {len(holes)} of {n} holes: {_why_fewer(text, language)}\n")


def _why_fewer(text: str, language: str) -> str:
    """Return why a text has fewer holes than requested."""
    limit = fim.SplitConfig().max_file_chars
    if not text.strip():
        return "the file is blank"
    if len(text) > limit:
        return f"the file has {len(text):,} characters, the limit is {limit:,}"
    if not fim.is_sound(text, language):
        return f"parts of the file are not valid {language}; no holes are cut there"
    return "the file is too short for more"


def show_holes(path: str, text: str, holes: Iterable[fim.Hole], *, as_json: bool, stream: TextIO) -> None:
    """Write holes to `stream`: one JSON object per line, whose prefix + middle + suffix is the file, or pictures."""
    console = Console(file=stream, highlight=False, soft_wrap=True)
    for hole in holes:
        if as_json:
            stream.write(json.dumps(_record(path, text, hole)) + "\n")
        else:
            console.print(_picture(path, text, hole))


def _read(path: str) -> tuple[str, str]:
    """Return the text of a file, with its line ends unchanged, and its language."""
    language = syntax.language_of(path)
    if language is None:
        raise InputError(
            f"{path}: no grammar for this kind of file; choose a file in one of {', '.join(syntax.LANGUAGES)}"
        )
    return read_source(Path(path)), language


def _record(path: str, text: str, hole: fim.Hole) -> dict[str, str | int]:
    line, column = position(text, hole.start)
    return {
        "path": path,
        "line": line,
        "column": column,
        "start": hole.start,
        "end": hole.end,
        "kind_start": hole.kind_start,
        "kind_end": hole.kind_end,
        "unit": hole.unit,
        "prefix": text[: hole.start],
        "middle": text[hole.start : hole.end],
        "suffix": text[hole.end :],
    }


def _picture(path: str, text: str, hole: fim.Hole) -> Text:
    """Return a heading, the last lines of the prefix, the middle in reverse video, and the first of the suffix."""
    line, column = position(text, hole.start)
    before = split_lines(text[: hole.start], keepends=True)[-_CONTEXT_LINES:]
    after = split_lines(text[hole.end :], keepends=True)[:_CONTEXT_LINES]
    picture = Text(f"{path}:{line}:{column}  {hole.kind_start} to {hole.kind_end}, {hole.unit}\n", style="bold")
    for part, style in (
        ("".join(before), "dim"),
        (text[hole.start : hole.end], "reverse green"),
        ("".join(after), "dim"),
    ):
        picture.append(_printable(part), style=f"not bold {style}")
    return picture


def _printable(text: str) -> str:
    """Return `text` without control characters, which a terminal would interpret."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)
