"""A sample in each language, and the holes that are cut into it: a change of the splitter changes every training set.

`python -m tests.golden.splits` writes `holes.jsonl` again, after a deliberate change.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from infill import fim, syntax

FOLDER: Final = Path(__file__).parent
HOLES: Final = FOLDER / "holes.jsonl"
"""One JSON object a line: file, and its holes in the order of drawing."""


def samples() -> Iterator[tuple[str, str, str]]:
    """Name, language and text of each sample, sorted."""
    for path in sorted(FOLDER.glob("sample.*")):
        yield path.name, syntax.language_of(path.name) or "", path.read_text(encoding="utf-8")


def drawn(name: str, language: str, text: str) -> list[dict[str, Any]]:
    """The first dozen holes of a sample."""
    holes = fim.syntactic_holes(text, language, fim.SplitConfig(), seed=1, epoch=2, document=name, n=12)
    return [asdict(hole) for hole in holes]


def cases() -> dict[str, list[dict[str, Any]]]:
    """The golden holes of each sample."""
    return {case["file"]: case["holes"] for case in map(json.loads, HOLES.read_text().splitlines())}
