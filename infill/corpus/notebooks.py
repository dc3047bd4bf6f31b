"""Jupyter notebooks as scripts in the percent format: cells of code, and prose as comments.

Outputs, metadata, raw cells, magics and shell commands are dropped. The format is that of nbformat 4, and of 3, which
keeps its cells in worksheets.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from infill import file_kinds
from infill.foreign import UnreadableError, parse
from infill.text import clean, split_lines

SUFFIX: Final = ".ipynb"
_HASH: Final = frozenset({"julia", "perl", "python", "r", "ruby", "shell"})
"""Languages whose comments begin with "#"; those of the others begin with "//"."""
_MAGIC: Final = re.compile(r"\s*(?:%{1,2}\w|!|\?)|[^#'\"]*\?\s*$|\s*\w+\s*=\s*[%!]\w")
"""A line that only IPython reads: `%matplotlib inline`, `!pip install x`, `files = !ls`, `print?`."""
_WRAPS: Final = frozenset({"capture", "memit", "prun", "time", "timeit"})
"""Magics of a whole cell whose text is code of the notebook's language all the same."""


def is_notebook(path: str) -> bool:
    """Return whether a file is a notebook by its name."""
    return path.lower().endswith(SUFFIX)


def script(text: str) -> tuple[str, str]:
    """Return a notebook's script and its language. Raises UnreadableError where there is none, with the reason."""
    try:
        value = parse(json.loads, text)
        language = _language(value)
        cells = [_cell(cell, language) for cell in _cells(value)]
    except (AttributeError, KeyError, TypeError) as error:
        raise UnreadableError(f"not a notebook: {error!r}") from error
    if not language:
        raise UnreadableError("it names no known language")
    written = [cell for cell in cells if cell]
    if not any(cell.startswith(f"{_mark(language)} %%\n") for cell in written):
        raise UnreadableError("it holds no code")
    text = clean("\n\n".join(written) + "\n")
    if "\0" in text:
        raise UnreadableError("it contains a zero byte")
    return text, language


def _language(value: Any) -> str:
    metadata = value.get("metadata", {})
    info, kernel = metadata.get("language_info", {}), metadata.get("kernelspec", {})
    extension = str(info.get("file_extension") or "")
    if extension and (language := file_kinds.language_of(f"x{extension}")):
        return language
    named = str(info.get("name") or kernel.get("language") or kernel.get("name") or "").lower()
    named = re.sub(r"\d+$", "", named.removeprefix("i"))  # ir, python3
    return next((each for each in ("python", "r", "julia", "scala", "javascript") if each == named), "")


def _cells(value: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "cells" in value:
        yield from value["cells"]
        return
    for sheet in value["worksheets"]:
        yield from sheet["cells"]


def _cell(cell: Mapping[str, Any], language: str) -> str:
    """Return a cell as it is written in the script; empty for one without code or prose."""
    source = cell.get("source", cell.get("input", ""))
    text = "".join(map(str, source)) if isinstance(source, list) else str(source)
    mark = _mark(language)
    if cell["cell_type"] == "code":
        body = _code(text) if language == "python" else text.strip("\n")
        return f"{mark} %%\n{body}" if body.strip() else ""
    if cell["cell_type"] in ("markdown", "heading") and text.strip():
        prose = (f"{mark} {line}".rstrip() for line in split_lines(text.strip("\n")))
        return "\n".join([f"{mark} %% [markdown]", *(line.rstrip("\r\n") for line in prose)])
    return ""


def _mark(language: str) -> str:
    return "#" if language in _HASH else "//"


def _code(text: str) -> str:
    """Return a cell's Python without what only IPython reads; empty where another program reads the cell."""
    lines = text.split("\n")
    first = next((line for line in lines if line.strip()), "")
    if first.startswith("%%") and first[2:].split(" ")[0].strip() not in _WRAPS:
        return ""
    return "\n".join(line.rstrip() for line in lines if not _MAGIC.match(line)).strip("\n")
