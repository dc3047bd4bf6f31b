"""Decontamination: find documents that have a passage of a benchmark.

A benchmark is a folder or a file: JSON lines (also compressed), JSON, Parquet, or source files. Each row or source file
is a *task*. Its texts are all of its strings; prefix, middle and suffix are joined to one text. A finished artifact
with examples or a corpus can be a benchmark too: its held-out splits are used.

A document overlaps with a task if they have 12 consecutive words in common, a *run* (datatrove: 12-grams; BigCode:
substrings; words as in `infill.corpus.shingles`). Text that is common in general does not count:

- Import lines, and comments at the start of a file that state a licence, are not part of a task.
- A run must have six different words of two or more characters that are not numbers: rows of numbers are frequent.
- A run in more than a twentieth of a benchmark's tasks (and in more than three) is its frame, not part of a task.
- A run in more than ten repositories is common, unless the document has more than half of all runs of the task, so that
  a benchmark is still detected after it has leaked into many repositories.
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
from infill.artifacts.benchmark import HELD_BACK_FILE
from infill.artifacts.corpus import DOCUMENTS
from infill.artifacts.examples import split_name
from infill.config import CorpusConfig
from infill.corpus import shingles
from infill.corpus.dedup import Array
from infill.errors import InputError
from infill.text import decode, split_lines

NGRAM_WORDS: Final = 12
LEAST_NAMES: Final = 6
"""Minimum number of different words in a run that have two or more characters and do not start with a digit."""
FRAME_SHARE: Final = 0.05
FRAME_TASKS: Final = 3
COMMON_REPOSITORIES: Final = 10
WHOLE_SHARE: Final = 0.5
PASSAGE_CHARS: Final = 160
ENVIRONMENT: Final = "INFILL_BENCH_DIR"

_HOLE: Final = (("prefix", "middle", "suffix"), ("prompt", "canonical_solution", "suffix"))
"""Columns with a hole's prefix, middle and suffix, as named by Infill and by HumanEval-Infilling."""
_NAMES: Final = ("task_id", "id", "name", "path")
"""Columns that may have the name of a task."""
_HELD_OUT: Final = ("test", "validation")
_IMPORT: Final = re.compile(r"[ \t]*(?:(?:import|from\s+\S+\s+import|#\s*include)\b.*|(?:using|use|package)\b.*;\s*)")
_COMMENT: Final = re.compile(
    r"\s*(?:/\*.*?\*/|<!--.*?-->|\"\"\".*?\"\"\"|'''.*?'''|(?:[ \t]*(?:#|//|--|;|%)[^\n]*(?:\n|\Z))+)", re.DOTALL
)
_LICENCE: Final = re.compile(r"copyright|licen[cs]e|warrant|spdx", re.IGNORECASE)
_WORD: Final = re.compile(rb"[0-9A-Za-z_\x80-\xff]+")
_NAME: Final = re.compile(rb"[A-Za-z_\x80-\xff][0-9A-Za-z_\x80-\xff]")


class BenchmarkTask(NamedTuple):
    """A task of a benchmark."""

    name: str
    texts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Benchmarks:
    """The runs of words of all tasks of the benchmarks."""

    ngrams: Array
    """Sorted hashes of the runs that count."""
    owners: Array
    """Number of the first task that has each run."""
    tasks: Sequence[str]
    """Names of the tasks."""
    totals: Array = field(init=False)
    """Number of runs that each task owns."""
    bits: Array = field(init=False)
    """Table for `shingles.marked`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "totals", np.bincount(self.owners, minlength=len(self.tasks)))
        bits = np.zeros(1 << max(16, int(8 * len(self.ngrams)).bit_length()), np.uint8)
        bits[(self.ngrams & np.uint64(len(bits) - 1)).astype(np.int64)] = 1
        object.__setattr__(self, "bits", bits)

    def overlap(self, content: bytes) -> list[int]:
        """Return the indices in `ngrams` of the runs that `content` (UTF-8) has in common with a task."""
        places, _ = self._marked(content)
        return [int(place) for place in np.unique(places[places >= 0])]

    def passage(self, content: bytes, wanted: Iterable[int]) -> str:
        """Return the longest passage of `content` (UTF-8) that consists of the runs `wanted`, shortened."""
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
    """Return the addresses of the benchmarks: `corpus.benchmarks`, and the folder in INFILL_BENCH_DIR if it is set."""
    folder = os.environ.get(ENVIRONMENT)
    return [*config.benchmarks, *([storage.absolute(folder)] if folder else [])]


def fingerprint(places: Iterable[str]) -> str:
    """Return a digest of the names, sizes and modification times of the benchmarks' files."""
    return hashlib.sha256("\0".join(storage.fingerprint(place) for place in places).encode()).hexdigest()


def prepare(places: Sequence[str], uri: str) -> None:
    """Write the runs of words of the benchmarks at `places` to `uri`, for `load`.

    Raises InputError if a benchmark has no task, or a file is damaged.
    """
    owners: dict[int, int] = {}
    names: list[str] = []
    runs_of = cache(ngrams)  # HumanEval-Infilling has many holes in the same program
    for place in places:
        _add([(task, runs_of(task.texts)) for task in _tasks(place)], place, owners, names)
    hashes = np.array(sorted(owners), np.uint64)
    table = pa.table({"ngram": hashes, "task": pa.array([owners[int(value)] for value in hashes], pa.int64())})
    storage.write_table(uri, table.replace_schema_metadata({"tasks": json.dumps(names)}))


def _add(
    tasks: Sequence[tuple[BenchmarkTask, frozenset[int]]], place: str, owners: dict[int, int], names: list[str]
) -> None:
    """Add the runs of one benchmark's tasks, without the runs of its frame."""
    if not tasks:
        raise InputError(
            f"corpus.benchmarks: {place} has no task; name a folder with JSON lines, Parquet or source files"
        )
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
    """Return the benchmarks that `prepare` wrote to `uri`."""
    table = storage.read_table(uri)
    names = json.loads(table.schema.metadata[b"tasks"])
    return Benchmarks(ngrams=table["ngram"].to_numpy(), owners=table["task"].to_numpy(), tasks=names)


def ngrams(texts: Iterable[str]) -> frozenset[int]:
    """Return the hashes of those runs of words in a task's texts that count."""
    runs: set[int] = set()
    for text in texts:
        content = _own(text).encode(errors="replace")
        hashes, bounds = shingles.words(np.frombuffer(content, np.uint8), shingles.WORD_BYTES)
        words = [content[start:end] for start, end in bounds.tolist()]
        for place, value in enumerate(shingles.ngrams(hashes, NGRAM_WORDS).tolist()):
            names = {word for word in words[place : place + NGRAM_WORDS] if _NAME.match(word)}
            if len(names) >= LEAST_NAMES:
                runs.add(value)
    return frozenset(runs)


def _own(text: str) -> str:
    """Return `text` without import lines, and without comments at its start that state a licence."""
    text = "\n".join(split_lines(text))
    kept, place = list[str](), 0
    while comment := _COMMENT.match(text, place):
        kept += [] if _LICENCE.search(comment[0]) else [comment[0]]
        place = comment.end()
    return "\n".join(line for line in split_lines("".join([*kept, text[place:]])) if not _IMPORT.fullmatch(line))


def _tasks(place: str) -> Iterator[BenchmarkTask]:
    """Yield the tasks of a benchmark; the name of each includes its file. Raises InputError if it does not exist."""
    if not storage.exists(place):
        raise InputError(f"corpus.benchmarks: {place} does not exist; check the path")
    for file in _files(place):
        name = file[file.startswith(f"{place}/") * (len(place) + 1) :] if file != place else file.rpartition("/")[2]
        for number, row in enumerate(_rows(file)):
            if row.get("split", "test") in _HELD_OUT:
                title = next((str(row[key]) for key in _NAMES if row.get(key)), f"row {number}")
                repo = f"{row['repo']}/" if isinstance(row.get("repo"), str) else ""
                yield BenchmarkTask(f"{repo}{title} ({name})" if file.endswith(_ROWS) else name, tuple(_texts(row)))


def _files(place: str) -> list[str]:
    """Return the benchmark's files; of an artifact, only those that may have held-out documents or examples."""
    if storage.is_file(place):
        return [place]
    artifact = manifest.find(place)
    if artifact is None:
        return [file for file in storage.list_files(place) if _is_task(file)]
    wanted = {
        "corpus": (f"{DOCUMENTS}/",),
        "examples": tuple(map(split_name, _HELD_OUT)),
        "benchmark": (split_name("test"), HELD_BACK_FILE),
    }
    return [
        storage.join(artifact.uri, name) for name in artifact.files if name.startswith(wanted.get(artifact.stage, ()))
    ]


_ROWS: Final = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")


def _is_task(file: str) -> bool:
    return file.endswith(_ROWS) or file_kinds.language_of(file) in file_kinds.CODE


def _rows(file: str) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a file; a source file is one row. Raises InputError if the file is damaged."""
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
        raise InputError(f"the benchmark {file} is damaged ({error}); download it again, or leave it out") from error
    for value in values if isinstance(values, list) else [values]:
        yield value if isinstance(value, dict) else {"value": value}


def _texts(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of a task, without its name; the parts of a hole are joined."""
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
    """The task with which a document overlaps."""

    task: int
    runs: tuple[int, ...]
    """Indices in `Benchmarks.ngrams` of the runs that they have in common and that are not common elsewhere."""


def judge(overlaps: Mapping[int, Sequence[int]], repositories: Array, benchmarks: Benchmarks) -> dict[int, Overlap]:
    """Return position -> overlap for the documents in `overlaps` (position -> indices of runs) that count as leaked."""
    homes: dict[int, set[int]] = defaultdict(set)
    for position, runs in overlaps.items():
        for run in runs:
            homes[run].add(int(repositories[position]))
    result = {}
    for position, runs in overlaps.items():
        by_task: dict[int, list[int]] = defaultdict(list)
        for run in runs:
            by_task[int(benchmarks.owners[run])].append(run)
        distinctive = {
            task: shared
            if len(shared) > WHOLE_SHARE * benchmarks.totals[task]
            else [run for run in shared if len(homes[run]) <= COMMON_REPOSITORIES]
            for task, shared in by_task.items()
        }
        task = max(distinctive, key=lambda task: (len(distinctive[task]), -task))
        if distinctive[task]:
            result[position] = Overlap(task, tuple(distinctive[task]))
    return result
