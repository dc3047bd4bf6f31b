"""Measure syntax-aware truncation on the holes of a project: what it cuts of true middles and of answers that run on.

    python -m benchmarks.truncation [--repo DIR] [--quick]

The true middles of syntactic holes should stay whole. An answer that runs on is the middle followed by what the file
continues with, the text of the worst model; it should end where the middle does. The peer is the rule by which
HumanEval-Infilling's outputs are truncated (`infill.evaluate.humaneval.truncate`): an output ends at a whole line that
equals the next one of the file.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import infill
from infill import entry, fim, syntax
from infill.cli_options import input_folder
from infill.errors import InputError
from infill.evaluate.humaneval import truncate
from infill.text import read_text
from infill.truncation import Truncation

HOLES, QUICK, PER_FILE = 3_000, 300, 6
MAX_CHARS: Final = 60_000
RUNS_ON: Final = 400
"""Characters of the file that an answer repeats."""


class Caret(NamedTuple):
    prefix: str
    middle: str
    suffix: str
    language: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = entry.Parser(prog="python -m benchmarks.truncation", description="Syntax-aware truncation.")
    parser.add_argument(
        "--repo", type=input_folder, default=Path(infill.__file__).parent, metavar="DIR", help="the project"
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} holes instead of {HOLES:,}")
    options = parser.parse_args(arguments)
    carets = list(islice(_carets(options.repo), QUICK if options.quick else HOLES))
    if not carets:
        raise InputError(f"{options.repo} has no source file with holes: give --repo another folder")
    rows = {name: _measure(carets, rule) for name, rule in (("ours", _ours), ("humaneval", _humaneval))}
    for name, row in rows.items():
        print(f"{name:10} true middles cut {row['cut']:.4f}, run-on answers ended right {row['ended']:.4f}", end="")
        print(f", too late {row['late']:.4f}; {row['ms_p50']} ms p50, {row['ms_p99']} ms p99")
    print(json.dumps({"holes": len(carets), **rows}))


def _carets(repo: Path) -> Iterator[Caret]:
    """Yield the holes of the project's source files, in the order of their paths."""
    for file in sorted(repo.rglob("*")):
        path = file.relative_to(repo).as_posix()
        language = syntax.language_of(path)
        if language is None or not file.is_file():
            continue
        text = read_text(file, "replace")
        if len(text) <= MAX_CHARS:
            holes = fim.syntactic_holes(text, language, fim.SplitConfig(), seed=0, epoch=0, document=path, n=PER_FILE)
            for hole in holes:
                yield Caret(text[: hole.start], text[hole.start : hole.end], text[hole.end :], language)


def _ours(caret: Caret, answer: str) -> str:
    ending = Truncation(caret.prefix, caret.suffix, caret.language)
    return ending.feed(answer) + ending.flush()


def _humaneval(caret: Caret, answer: str) -> str:
    return truncate(answer, caret.suffix, single_line=False)


def _measure(carets: Sequence[Caret], rule: Callable[[Caret, str], str]) -> dict[str, Any]:
    """Return the share of middles that `rule` cuts, of longer answers that it ends rightly or too late, and times."""
    cut, right, late, times = 0, 0, 0, []
    for caret in carets:
        started = time.process_time()
        cut += rule(caret, caret.middle) != caret.middle
        times.append((time.process_time() - started) * 1_000)
        left, true = rule(caret, caret.middle + caret.suffix[:RUNS_ON]).strip(), caret.middle.strip()
        right, late = right + (left == true), late + (len(left) > len(true))
    times.sort()
    count = len(carets)
    shares = {"cut": cut / count, "ended": right / count, "late": late / count}
    at = {"ms_p50": times[count // 2], "ms_p99": times[count * 99 // 100]}
    return {name: round(value, 4) for name, value in (shares | at).items()}


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.truncation", main))
