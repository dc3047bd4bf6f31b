"""Precision and recall of the detectors of stubs, verbosity, echoes and unfinished code, on labelled completions.

    python -m benchmarks.detectors [--holes N] [--seed N] [--repo DIR]

The labels are by construction, on holes of real code (by default the standard library and the installed packages): the
author's text, and the same with another name of the file in it, have no defect; then each gets one.

- stub: a placeholder of the language in its place;
- verbose: three to eight statements of the same file after it, which repeat or do what nobody asked for;
- echo: the first lines of the suffix after it, up to the first with a word;
- unfinished: cut after a token between a fifth and four fifths of its length.

A detector sees what a judge sees: output, author's text, prefix and suffix. Deterministic in the files and the seed.
"""

import hashlib
import json
import random
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from infill import entry, fim, metrics, syntax
from infill.cli_options import input_folder, integer
from infill.cli_options import seed as seed_type
from infill.evaluate.statistics import wilson
from infill.preferences.hard_negatives import STUBS, hard_negatives
from infill.text import DecodeError, read_text, split_lines

HOLES: Final = 40
"""Holes of each language."""
LANGUAGES: Final = ("python", "cpp", "javascript", "typescript")
FILES: Final = 400
"""Files of a language that are looked at, at most."""
MAX_BYTES: Final = 100_000
MIN_CHARS: Final = 24
CLEAN: Final = "clean"
MORE_STUBS: Final[Mapping[str, tuple[str, ...]]] = {
    "python": ("pass  # TODO: implement", 'raise NotImplementedError("later")', "..."),
    "cpp": ("// TODO: implement", "return {};", "return nullptr;", 'throw std::runtime_error("not implemented");'),
    "javascript": ("// TODO", 'throw new Error("Not implemented");', "return null;", "return undefined;"),
}
"""Placeholders as models write them, besides those that hard negatives use."""
_TOKEN: Final = re.compile(r"\w+|[^\w\s]")


class Labelled(NamedTuple):
    hole: Mapping[str, Any]
    text: str
    label: str


_AROUND: Final = ("middle", "prefix", "suffix", "language")
Detector = Callable[[Labelled], bool]
DETECTORS: Final[Mapping[str, Detector]] = {
    "stub": lambda each: metrics.stub(each.text, each.hole["middle"]) > 0,
    "verbose": lambda each: metrics.verbose(each.text, each.hole["middle"]) > 0,
    "echo": lambda each: metrics.suffix_echo(each.text, each.hole["middle"], each.hole["suffix"]) > 0,
    "unfinished": lambda each: metrics.unfinished(each.text, **{name: each.hole[name] for name in _AROUND}) > 0,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = entry.Parser(prog="python -m benchmarks.detectors", description="Precision and recall of detectors.")
    parser.add_argument("--holes", type=integer("the number of holes", 1), default=HOLES, metavar="N")
    parser.add_argument("--repo", type=input_folder, metavar="DIR", help="holes of this folder instead")
    parser.add_argument("--seed", type=seed_type, default=0, metavar="N", help="other files and holes")
    parser.add_argument("--quick", action="store_true", help="8 holes of each language")
    options = parser.parse_args(arguments)
    folders = [options.repo] if options.repo else [Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib")]
    completions = list(labelled(folders, 8 if options.quick else options.holes, options.seed))
    result = measure(completions)
    print(f"{'detector':12} {'precision':27} {'recall':27} positives")
    for name, row in result["detectors"].items():
        print(f"{name:12} {_figure(row['precision']):27} {_figure(row['recall']):27} {row['positives']}")
    for label, row in result["marked"].items():
        print(f"{label:12} marked as {row}")
    print(json.dumps(result))


def labelled(folders: Sequence[Path], holes: int, seed: int = 0) -> Iterator[Labelled]:
    """Yield completions of `holes` holes of each language with their labels."""
    for language in LANGUAGES:
        taken = 0
        for path, text in _files(folders, language, seed):
            if hole := _hole(path, text, language, seed):
                taken += 1
                yield from _variants(hole)
            if taken == holes:
                break


def _files(folders: Sequence[Path], language: str, seed: int) -> Iterator[tuple[str, str]]:
    """Yield name and text of files of a language in an order that depends on their names and the seed only."""
    endings = tuple(f".{ending}" for ending in syntax.extensions(language))
    paths = [
        (path.relative_to(folder).as_posix(), path)
        for folder in folders
        for path in folder.rglob("*")
        if path.name.endswith(endings) and path.is_file() and path.stat().st_size < MAX_BYTES
    ]
    for name, path in sorted(paths, key=lambda each: _hash(f"{seed}/{each[0]}"))[:FILES]:
        try:
            yield name, read_text(path)
        except DecodeError:
            continue


def _hole(path: str, text: str, language: str, seed: int) -> dict[str, Any] | None:
    """Return a hole of a file whose text has words and is not a stub itself."""
    if max(map(len, split_lines(text)), default=0) > 400:  # minified
        return None
    for hole in fim.syntactic_holes(text, language, fim.SplitConfig(), seed=seed, epoch=0, document=path, n=8):
        middle = text[hole.start : hole.end]
        if len(middle.strip()) >= MIN_CHARS and not metrics.is_stub(middle) and text[hole.end :].strip():
            around = {"prefix": text[: hole.start], "middle": middle, "suffix": text[hole.end :]}
            return {"id": path, "path": path, "language": language, "context": [], **around}
    return None


def _variants(hole: Mapping[str, Any]) -> Iterator[Labelled]:
    """Yield the completions of a hole: without a defect, and with each, of the author's text and of a variant."""
    rng = random.Random(_hash(hole["id"]))
    renamed = [pair.rejected for pair in hard_negatives(hole, 4) if pair.kind == "wrong_name"]
    stubs = MORE_STUBS.get(hole["language"], MORE_STUBS["javascript"])
    stubs += STUBS.get(hole["language"], ())
    yield Labelled(hole, rng.choice(stubs), "stub")
    for text in [hole["middle"], *renamed]:
        yield Labelled(hole, text, CLEAN)
        yield Labelled(hole, text + _extra(hole, rng), "verbose")
        if echoed := _echo(hole, text):
            yield Labelled(hole, echoed, "echo")
        yield Labelled(hole, _cut(text, rng), "unfinished")


def _extra(hole: Mapping[str, Any], rng: random.Random) -> str:
    """Return three to eight lines with words that are elsewhere in the file, not directly after the hole."""
    lines = [line for line in split_lines(hole["prefix"]) if sum(map(str.isalnum, line)) > 5]
    lines = lines or [line for line in split_lines(hole["middle"]) if line.strip()]
    start = rng.randrange(len(lines))
    return "\n" + "\n".join(lines[start : start + rng.randint(3, 8)])


def _echo(hole: Mapping[str, Any], text: str) -> str:
    """Return a text followed by the suffix's lines up to the first with a word; empty if there is none."""
    lines = split_lines(hole["suffix"], keepends=True)
    words = [number for number, line in enumerate(lines) if any(map(str.isalnum, line))]
    return text + "".join(lines[: words[0] + 1]).rstrip("\r\n") if words else ""


def _cut(text: str, rng: random.Random) -> str:
    """Return the beginning of a text up to a token between a fifth and four fifths of its length."""
    ends = [match.end() for match in _TOKEN.finditer(text)]
    inner = [end for end in ends if len(text) / 5 <= end <= 4 * len(text) / 5] or ends[:1]
    return text[: rng.choice(inner)]


def measure(completions: Sequence[Labelled]) -> dict[str, Any]:
    """Return precision and recall of each detector with 95 % intervals, and how each label is marked."""
    marks = {name: [detector(each) for each in completions] for name, detector in DETECTORS.items()}
    labels = [each.label for each in completions]
    detectors = {}
    for name, marked in marks.items():
        right = sum(mark and label == name for mark, label in zip(marked, labels, strict=True))
        detectors[name] = {
            "precision": _share(right, sum(marked)),
            "recall": _share(right, labels.count(name)),
            "positives": labels.count(name),
        }
    marked_as = {
        label: {
            name: sum(mark for mark, each in zip(marked, labels, strict=True) if each == label)
            for name, marked in marks.items()
        }
        for label in dict.fromkeys(labels)
    }
    return {"completions": len(completions), "labels": _counts(labels), "detectors": detectors, "marked": marked_as}


def _counts(labels: Sequence[str]) -> dict[str, int]:
    return {label: labels.count(label) for label in dict.fromkeys(labels)}


def _share(right: int, all_of_them: int) -> dict[str, float]:
    low, high = wilson(right, all_of_them)
    return {"value": right / all_of_them if all_of_them else 0.0, "low": low, "high": high}


def _figure(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.detectors", main))
