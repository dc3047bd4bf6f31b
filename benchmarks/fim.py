"""The speed of the splitter against tree-sitter's parse of the same files, on one core.

    python -m benchmarks.fim [--quick] [--repo DIR]

Each file is parsed, then split from its text (which parses it again), so that the machine's load affects both equally;
only the processor time of this process counts. A file gets one hole per 500 bytes (AST-FIM, arXiv 2506.00204), at most
64.
"""

import json
import os
import random
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from infill import entry, fim, syntax
from infill.cli_options import input_folder
from infill.text import DecodeError, read_text

BYTES_PER_HOLE: Final = 500
MAX_HOLES: Final = 64
MAX_FILE_BYTES: Final = 1_000_000
"""The largest file in the sample, as in a corpus."""
CONFIG: Final = fim.SplitConfig()
SAMPLE_BYTES: Final = 20_000_000
QUICK_BYTES: Final = 2_000_000


class File(NamedTuple):
    """A source file of the sample."""

    path: str
    language: str
    source: bytes
    text: str


class Measured(NamedTuple):
    """The times and holes of one file."""

    parse_s: float
    split_s: float
    asked: int
    holes: list[fim.Hole]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = entry.Parser(prog="python -m benchmarks.fim", description="Speed of the FIM splitter.")
    parser.add_argument("--quick", action="store_true", help="2 MB of source instead of 20")
    parser.add_argument(
        "--repo", type=input_folder, metavar="DIR", help="measure on this folder instead of the installed packages"
    )
    options = parser.parse_args(arguments)
    folder = options.repo or Path(sysconfig.get_paths()["purelib"])
    languages = syntax.LANGUAGES if options.repo else ("python",)
    files = list(_sample(folder, languages, QUICK_BYTES if options.quick else SAMPLE_BYTES))
    if not files:
        parser.error(f"{folder} has no source file in a language with a grammar")
    print(f"{len(files)} files of {folder}")
    for first in {file.language: file for file in files}.values():  # loads the grammars
        _measure(first)
    print(json.dumps(_summary(files, [_measure(file) for file in files])))


def _sample(folder: Path, languages: Sequence[str], size: int) -> Iterator[File]:
    """Yield files of at least `size` bytes in total, in a reproducible random order."""
    paths = sorted(_paths(folder))
    random.Random(0).shuffle(paths)
    for path in paths:
        file = _read(path, languages)
        if file is not None:
            yield file
            size -= len(file.source)
        if size <= 0:
            return


def _paths(folder: Path) -> Iterator[str]:
    """Yield all files below `folder` except those in hidden folders."""
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(root, name) for name in names)


def _read(path: str, languages: Sequence[str]) -> File | None:
    """Return a file that a corpus would accept: of a known language, UTF-8, not empty, not too large; else None."""
    language = syntax.language_of(path)
    if language is None or language not in languages:
        return None
    if not os.path.isfile(path) or not 0 < os.path.getsize(path) <= MAX_FILE_BYTES:
        return None
    try:
        content = read_text(path)
    except DecodeError:
        return None
    return File(path, language, content.encode(), content)


def _measure(file: File) -> Measured:
    parser = syntax.parser(file.language)
    asked = min(MAX_HOLES, max(1, len(file.source) // BYTES_PER_HOLE))
    start = time.process_time()
    parser.parse(file.source)
    middle = time.process_time()
    holes = fim.syntactic_holes(file.text, file.language, CONFIG, seed=0, epoch=0, document=file.path, n=asked)
    return Measured(middle - start, time.process_time() - middle, asked, holes)


def _summary(files: Sequence[File], measured: Sequence[Measured]) -> dict[str, object]:
    size = sum(len(file.source) for file in files)
    parse_s, split_s = sum(item.parse_s for item in measured), sum(item.split_s for item in measured)
    holes = [hole for item in measured for hole in item.holes]
    lengths = sorted(hole.end - hole.start for hole in holes)
    return {
        "mb_per_s": round(size / split_s / 1e6, 3),
        "ratio_to_parse": round(parse_s / split_s, 3),
        "parse_mb_per_s": round(size / parse_s / 1e6, 3),
        "files": len(files),
        "bytes": size,
        "holes": len(holes),
        "holes_asked": sum(item.asked for item in measured),
        "us_per_hole": round((split_s - parse_s) / max(1, len(holes)) * 1e6, 1),
        "median_chars": lengths[len(lengths) // 2] if lengths else 0,
        "by_kind": {
            "start": dict(Counter(hole.kind_start for hole in holes)),
            "end": dict(Counter(hole.kind_end for hole in holes)),
        },
        "by_unit": dict(Counter(hole.unit for hole in holes)),
        "by_language": dict(Counter(file.language for file in files)),
    }


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.fim", main))
