"""Decontamination: which documents hold a passage of a benchmark.

A benchmark is a folder or a file: JSON lines (also compressed), JSON, Parquet, or source files. Each row or source file
is a *task*; its texts are all its strings, and where it has them prefix, middle and suffix in one. A finished artifact
of examples or a corpus stands for what it holds out.

A document overlaps with a task when both have the same 12 words in a row (datatrove: 12-grams; BigCode: substrings;
words as in `infill.corpus.shingles`). What many texts have in common is no overlap:

- Import lines, and comments at the head of a file that state a licence, are no part of a task.
- A run counts only when it has six different words of at least two letters: rows of numbers are everywhere.
- A run in more than a twentieth of a benchmark's tasks (and three) is its frame, not a task.
- A run in more than ten repositories is common, unless the document has more than half of all the task's runs: a
  benchmark that has leaked into many repositories is still found.
"""

import gzip
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from infill import file_kinds, manifest, storage
from infill.config import CorpusConfig
from infill.corpus import shingles
from infill.corpus.dedup import Array
from infill.errors import InputError
from infill.text import decode, split_lines

NGRAM_WORDS: Final = 12
LEAST_NAMES: Final = 6
"""Different words of two letters or more in a run that counts."""
FRAME_SHARE: Final = 0.05
FRAME_TASKS: Final = 3
COMMON_REPOSITORIES: Final = 10
WHOLE_SHARE: Final = 0.5
PASSAGE_CHARS: Final = 160
ENVIRONMENT: Final = "INFILL_BENCH_DIR"

_HOLE: Final = (("prefix", "middle", "suffix"), ("prompt", "canonical_solution", "suffix"))
"""Names of a hole's parts: our own, HumanEval-Infilling's."""
_NAMES: Final = ("task_id", "id", "name", "path")
"""Columns that name a task."""
_HELD_OUT: Final = ("test", "validation")
_IMPORT: Final = re.compile(r"[ \t]*(?:(?:import|from\s+\S+\s+import|#\s*include)\b.*|(?:using|use|package)\b.*;\s*)")
_COMMENT: Final = re.compile(
    r"\s*(?:/\*.*?\*/|<!--.*?-->|\"\"\".*?\"\"\"|'''.*?'''|(?:[ \t]*(?:#|//|--|;|%)[^\n]*(?:\n|\Z))+)", re.DOTALL
)
_LICENCE: Final = re.compile(r"copyright|licen[cs]e|warrant|spdx", re.IGNORECASE)
_WORD: Final = re.compile(rb"[0-9A-Za-z_\x80-\xff]+")
_NAME: Final = re.compile(rb"[A-Za-z_\x80-\xff][0-9A-Za-z_\x80-\xff]")


class Task(NamedTuple):
    name: str
    texts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Benchmarks:
    ngrams: Array
    """Sorted hashes of the runs of words that count."""
    owners: Array
    """Number of the first task with each."""
    tasks: Sequence[str]
    totals: Array = field(init=False)
    """Runs of each task."""
    bits: Array = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "totals", np.bincount(self.owners, minlength=len(self.tasks)))
        bits = np.zeros(1 << max(16, int(8 * len(self.ngrams)).bit_length()), np.uint8)
        bits[(self.ngrams & np.uint64(len(bits) - 1)).astype(np.int64)] = 1
        object.__setattr__(self, "bits", bits)

    def overlap(self, content: bytes) -> list[int]:
        """Return the places in `ngrams` of the runs of words that `content` (UTF-8) has in common with a task."""
        places, _ = self._marked(content)
        return [int(place) for place in np.unique(places[places >= 0])]

    def passage(self, content: bytes, wanted: Iterable[int]) -> str:
        """Return the longest passage of `content` made of the runs `wanted`, shortened."""
        places, bounds = self._marked(content)
        inside = np.flatnonzero(np.diff(np.concatenate([[0], np.isin(places, list(wanted)), [0]])))
        first, end = max(inside.reshape(-1, 2).tolist(), key=lambda run: run[1] - run[0])
        text = decode(content[bounds[first, 0] : bounds[end + NGRAM_WORDS - 2, 1]], "replace")
        text = " ".join(text.split())
        return text if len(text) <= PASSAGE_CHARS else f"{text[: PASSAGE_CHARS - 3]}..."

    def _marked(self, content: bytes) -> tuple[Array, Array]:
        hashes, bounds = shingles.words(np.frombuffer(content, np.uint8), shingles.WORD_BYTES)
        return shingles.marked(shingles.ngrams(hashes, NGRAM_WORDS), self.bits, self.ngrams), bounds


# Reading benchmarks


def places(config: CorpusConfig) -> list[str]:
    """Return where benchmarks are: `corpus.benchmarks`, and the folder in INFILL_BENCH_DIR."""
    folder = os.environ.get(ENVIRONMENT)
    return [*config.benchmarks, *([storage.absolute(folder)] if folder else [])]


def fingerprint(places: Iterable[str]) -> str:
    """Digest of the names, sizes and times of the benchmarks' files."""
    return hashlib.sha256("\0".join(storage.fingerprint(place) for place in places).encode()).hexdigest()


def prepare(places: Sequence[str], uri: str) -> None:
    """Write the runs of words of the benchmarks at `places` to `uri`, for `load`.

    Raises InputError for a place without a task, and for a file that is damaged.
    """
    owners: dict[int, int] = {}
    names: list[str] = []
    runs_of = cache(ngrams)  # HumanEval-Infilling has many holes in one program
    for place in places:
        _add([(task, runs_of(task.texts)) for task in _tasks(place)], place, owners, names)
    hashes = np.array(sorted(owners), np.uint64)
    table = pa.table({"ngram": hashes, "task": pa.array([owners[int(value)] for value in hashes], pa.int64())})
    storage.write_table(uri, table.replace_schema_metadata({"tasks": json.dumps(names)}))


def _add(tasks: Sequence[tuple[Task, frozenset[int]]], place: str, owners: dict[int, int], names: list[str]) -> None:
    """Add the runs of one benchmark's tasks, without those that are its frame."""
    if not tasks:
        raise InputError(f"no benchmark task in {place}: name a folder with JSON lines, Parquet or source files")
    different = {runs for _, runs in tasks}
    counts = Counter(run for runs in different for run in runs)
    most = max(FRAME_TASKS, FRAME_SHARE * len(different))
    for task, runs in tasks:
        for run in runs:
            if counts[run] <= most:
                owners.setdefault(run, len(names))
        names.append(task.name)


@lru_cache(maxsize=2)
def load(uri: str) -> Benchmarks:
    """Return what `prepare` wrote."""
    table = storage.read_table(uri)
    names = json.loads(table.schema.metadata[b"tasks"])
    return Benchmarks(ngrams=table["ngram"].to_numpy(), owners=table["task"].to_numpy(), tasks=names)


def ngrams(texts: Iterable[str]) -> frozenset[int]:
    """Return the hashes of the runs of words of a task's texts that count."""
    found: set[int] = set()
    for text in texts:
        content = _own(text).encode(errors="replace")
        hashes, bounds = shingles.words(np.frombuffer(content, np.uint8), shingles.WORD_BYTES)
        words = [content[start:end] for start, end in bounds.tolist()]
        for place, value in enumerate(shingles.ngrams(hashes, NGRAM_WORDS).tolist()):
            names = {word for word in words[place : place + NGRAM_WORDS] if _NAME.match(word)}
            if len(names) >= LEAST_NAMES:
                found.add(value)
    return frozenset(found)


def _own(text: str) -> str:
    """Return `text` without import lines, and without those comments at its head that state a licence."""
    text = "\n".join(split_lines(text))
    kept, place = list[str](), 0
    while comment := _COMMENT.match(text, place):
        kept += [] if _LICENCE.search(comment[0]) else [comment[0]]
        place = comment.end()
    return "\n".join(line for line in split_lines("".join([*kept, text[place:]])) if not _IMPORT.fullmatch(line))


def _tasks(place: str) -> Iterator[Task]:
    """Yield the tasks of a benchmark, each with a name that tells its file."""
    if not storage.exists(place):
        raise InputError(f"corpus.benchmarks: there is nothing at {place}; check the path")
    for file in _files(place):
        name = file[file.startswith(f"{place}/") * (len(place) + 1) :] if file != place else file.rpartition("/")[2]
        for number, row in enumerate(_rows(file)):
            if row.get("split", "test") in _HELD_OUT:
                called = next((str(row[key]) for key in _NAMES if row.get(key)), f"row {number}")
                repo = f"{row['repo']}/" if isinstance(row.get("repo"), str) else ""
                yield Task(f"{repo}{called} ({name})" if file.endswith(_ROWS) else name, tuple(_texts(row)))


def _files(place: str) -> list[str]:
    """Return the benchmark's files; of one of our artifacts those with what it holds out."""
    if storage.is_file(place):
        return [place]
    artifact = manifest.find(place)
    if artifact is None:
        return [file for file in storage.list_files(place) if _is_task(file)]
    wanted = {"corpus": ("documents/",), "examples": tuple(f"examples/{split}." for split in _HELD_OUT)}
    return [
        storage.join(artifact.uri, name) for name in artifact.files if name.startswith(wanted.get(artifact.stage, ()))
    ]


_ROWS: Final = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")


def _is_task(file: str) -> bool:
    return file.endswith(_ROWS) or file_kinds.language_of(file) in file_kinds.CODE


def _rows(file: str) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a file. Raises InputError when it is damaged."""
    if file.endswith(".parquet"):
        yield from storage.read_table(file).to_pylist()
        return
    try:
        data = storage.read_bytes(file)
        text = decode(gzip.decompress(data) if file.endswith(".gz") else data, "replace")
        if not file.endswith(_ROWS):
            yield {"content": text}
            return
        is_lines = file.removesuffix(".gz").endswith(".jsonl")
        values = [json.loads(line) for line in split_lines(text) if line.strip()] if is_lines else json.loads(text)
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise InputError(f"the benchmark {file} is damaged ({error}); fetch it again, or leave it out") from error
    for value in values if isinstance(values, list) else [values]:
        yield value if isinstance(value, dict) else {"value": value}


def _texts(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield a task's texts but its name; the parts of a hole as one."""
    row = {name: value for name, value in row.items() if name not in _NAMES}
    for names in _HOLE:
        if all(isinstance(row.get(name), str) for name in names):
            yield "".join(row[name] for name in names)
            row = {name: value for name, value in row.items() if name not in (*names, "context")}
            break
    yield from _strings(row)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


# Judging documents


class Overlap(NamedTuple):
    """A document that holds a passage of a task."""

    task: int
    runs: tuple[int, ...]
    """Places in `Benchmarks.ngrams` of the runs of words that tell."""


def judge(overlaps: Mapping[int, Sequence[int]], repositories: Array, benchmarks: Benchmarks) -> dict[int, Overlap]:
    """Return the documents that overlap with a task, of those in `overlaps` (position -> places of runs of words)."""
    homes: dict[int, set[int]] = defaultdict(set)
    for position, runs in overlaps.items():
        for run in runs:
            homes[run].add(int(repositories[position]))
    found = {}
    for position, runs in overlaps.items():
        by_task: dict[int, list[int]] = defaultdict(list)
        for run in runs:
            by_task[int(benchmarks.owners[run])].append(run)
        telling = {
            task: shared
            if len(shared) > WHOLE_SHARE * benchmarks.totals[task]
            else [run for run in shared if len(homes[run]) <= COMMON_REPOSITORIES]
            for task, shared in by_task.items()
        }
        task = max(telling, key=lambda task: (len(telling[task]), -task))
        if telling[task]:
            found[position] = Overlap(task, tuple(telling[task]))
    return found
