"""The examples stage: syntactic holes with context from the same repository.

The corpus is read in shards of whole repositories, of limited size. Each shard is written to a folder of its own below
`scratch/`, so that a killed run continues with the next one. A first pass over three small columns decides how many
holes each language of each repository gets, so the result depends on neither memory nor interruptions.
"""

import hashlib
import logging
import math
import multiprocessing
import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infill import manifest, storage, syntax
from infill.artifacts import corpus as corpora
from infill.artifacts.examples import COUNTS, SPLITS, open_parquet, split_file, write_rows
from infill.config import ExamplesConfig
from infill.context import ProjectIndex, retrieve
from infill.errors import InfillError, InputError
from infill.fim import Hole, syntactic_holes
from infill.prompt import ContextItem, Encode, FimRequest, load_encoder
from infill.stages.contract import Call

VERSION: Final = 3
log: Final = logging.getLogger(__name__)

SHARD_BYTES: Final = 16 << 20
"""Maximum size of the documents in memory at once, unless a single repository is larger."""
HOLES_PER_DOCUMENT: Final = 16
"""Maximum holes per document, so that a small corpus does not repeat one file many times."""


class ExampleDocument(NamedTuple):
    path: str
    language: str
    content: str


class RepositoryRows(NamedTuple):
    """The location of a repository's rows in the corpus."""

    file: str
    row_group: int


@dataclass
class RepositorySplit:
    """A repository's documents in one split; a corpus that is split by file has several of one name.

    Context comes from the same documents, so no text of one split is in the prompts of another.
    """

    name: str
    split: str
    documents: Counter[str] = field(default_factory=Counter)
    """Documents by language; those without a grammar only serve as context."""
    places: dict[RepositoryRows, int] = field(default_factory=dict)
    """Row groups with the repository's documents, and the estimated bytes of these."""
    quota: dict[str, int] = field(default_factory=dict)
    """Number of holes to cut, by language."""

    @property
    def size(self) -> int:
        return sum(self.places.values())


def body(call: Call[ExamplesConfig]) -> Mapping[str, float]:
    """Write `examples/{train,validation,test}.parquet` and `report.json`; return the number of holes by split.

    Deterministic in the configuration and the inputs. Raises InputError when no hole can be cut for training.
    """
    config, tokenizer = call.settings, call.inputs["tokenizer"]
    repositories = survey(corpora.documents(call.inputs["corpus"]))
    allot(repositories, {"train": config.holes, "validation": config.validation_holes, "test": config.test_holes})
    shards = pack(repositories)
    folders = [storage.join(call.scratch, f"{number:06d}") for number in range(len(shards))]
    work = [
        (config, shard, tokenizer, folder)
        for shard, folder in zip(shards, folders, strict=True)
        if not storage.exists(storage.join(folder, COUNTS))
    ]
    for done, _ in enumerate(run_all(write_shard, work), 1):
        log.info("examples: wrote shard %d of %d", done, len(work))
    return _finish(config, folders, call.output)


def survey(files: Sequence[str]) -> list[RepositorySplit]:
    """Return the repositories in a corpus's tables in the order of their row groups, without reading their text."""
    repositories: dict[tuple[str, str], RepositorySplit] = {}
    for file in files:
        with open_parquet(file) as reader:
            for group in range(reader.num_row_groups):
                _survey_group(reader, RepositoryRows(file, group), repositories)
    return list(repositories.values())


def _survey_group(
    reader: pq.ParquetFile, place: RepositoryRows, repositories: dict[tuple[str, str], RepositorySplit]
) -> None:
    rows = reader.read_row_group(place.row_group, columns=["repo", "split", "language"])
    per_row = reader.metadata.row_group(place.row_group).total_byte_size // max(rows.num_rows, 1)
    counts = rows.group_by(["repo", "split", "language"], use_threads=False).aggregate([([], "count_all")])
    for row in counts.sort_by("repo").to_pylist():
        repository = repositories.setdefault((row["repo"], row["split"]), RepositorySplit(row["repo"], row["split"]))
        repository.documents[row["language"]] += row["count_all"]
        repository.places[place] = repository.places.get(place, 0) + row["count_all"] * per_row


def allot(repositories: Sequence[RepositorySplit], totals: Mapping[str, int]) -> None:
    """Set each repository's `quota` so that every split reaches its total, or as much as its documents allow.

    Holes are shared out among languages, then among the repositories of a language, in proportion to the square root of
    their documents: the largest do not crowd out the others, and the smallest are not repeated too often.
    """
    for split, total in totals.items():
        members = [repository for repository in repositories if repository.split == split]
        documents: Counter[str] = Counter()
        for repository in members:
            documents.update({name: n for name, n in repository.documents.items() if name in syntax.LANGUAGES})
        for language, share in fill(documents, total).items():
            quotas = fill({member.name: member.documents[language] for member in members}, share)
            for member in members:
                if quotas.get(member.name):
                    member.quota[language] = quotas[member.name]


def fill(documents: Mapping[str, int], total: int) -> dict[str, int]:
    """Return `total` holes shared out in proportion to the square root of the documents, up to each one's capacity.

    The values are whole numbers that sum to `total`, or to the capacity of all documents if that is less.
    """
    capacity = {name: n * HOLES_PER_DOCUMENT for name, n in documents.items() if n}
    left = float(min(total, sum(capacity.values())))
    rest = sum(map(math.sqrt, capacity.values()))
    level = 0.0
    for size in sorted(capacity.values()):  # the smallest fill up first; the others share the rest
        level = left / rest
        if level * math.sqrt(size) < size:
            break
        left, rest = left - size, rest - math.sqrt(size)
    quota: dict[str, int] = {}
    before, through = 0, 0.0
    for name in sorted(capacity, key=_hash):  # rounding the running sum spreads fractions evenly over the names
        through += min(capacity[name], level * math.sqrt(capacity[name]))
        quota[name] = math.floor(through + 0.5) - before
        before += quota[name]
    return quota


def pack(repositories: Iterable[RepositorySplit]) -> list[list[RepositorySplit]]:
    """Return the repositories with a quota, in shards of at most SHARD_BYTES or a single repository."""
    shards: list[list[RepositorySplit]] = []
    room = 0
    for repository in repositories:
        if not repository.quota:
            continue
        if repository.size > room:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(repository)
        room -= repository.size
    return shards


def run_all(function: Callable[..., str], work: Sequence[tuple[Any, ...]]) -> Iterator[str]:
    """Yield the results of `function` for each tuple of arguments, in order, from one process per core.

    On one core, or for one tuple, `function` runs in this process. Raises InfillError when a process dies.
    """
    number = min(processes(), len(work))
    if number <= 1:
        yield from (function(*arguments) for arguments in work)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of this process's threads
    try:
        with ProcessPoolExecutor(number, context, initializer=_end_with, initargs=(os.getpid(),)) as pool:
            yield from pool.map(function, *zip(*work, strict=True))
    except BrokenProcessPool as error:
        raise InfillError(
            "a process that cut holes was killed, most likely because memory ran out; run again (finished shards are "
            "kept) on a machine with more memory, or on fewer cores with taskset"
        ) from error


def processes() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _end_with(parent: int) -> None:
    """Exit this process when its parent is gone; otherwise the pool's processes would wait for work forever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-the-parent", daemon=True).start()


def write_shard(config: ExamplesConfig, shard: Sequence[RepositorySplit], tokenizer: str, folder: str) -> str:
    """Write the holes of a shard by split, then their counts, to `folder`; return `folder`."""
    encode = load_encoder(storage.fetch(tokenizer)).encode
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    documents = load(shard)
    for split in SPLITS:
        rows = (
            row
            for repository in shard
            if repository.split == split
            for row in cut(config, repository, documents[repository.name, split], encode, counts)
        )
        write_rows(storage.join(folder, f"{split}.parquet"), rows)
    storage.write_json(storage.join(folder, COUNTS), counts)
    return folder


def load(shard: Sequence[RepositorySplit]) -> dict[tuple[str, str], list[ExampleDocument]]:
    """Return the documents of a shard by repository and split; reads one row group at a time."""
    names = pa.array([repository.name for repository in shard], pa.string())
    documents: dict[tuple[str, str], list[ExampleDocument]] = {(each.name, each.split): [] for each in shard}
    for place in sorted({place for repository in shard for place in repository.places}):
        with open_parquet(place.file) as reader:
            rows = reader.read_row_group(place.row_group, columns=["repo", "split", "path", "language", "content"])
        for row in rows.filter(pc.is_in(rows["repo"], value_set=names)).to_pylist():
            if (chosen := documents.get((row["repo"], row["split"]))) is not None:
                chosen.append(ExampleDocument(row["path"], row["language"], row["content"]))
    return documents


def cut(
    config: ExamplesConfig,
    repository: RepositorySplit,
    documents: Sequence[ExampleDocument],
    encode: Encode,
    counts: dict[str, Counter[str]],
) -> Iterator[dict[str, Any]]:
    """Yield the holes of a repository as rows of SCHEMA, and count them in `counts`."""
    index = ProjectIndex.from_documents(((document.path, document.content) for document in documents), encode)
    for language, quota in sorted(repository.quota.items()):
        candidates = [document for document in documents if document.language == language]
        candidates.sort(key=lambda document: _hash(config.seed, repository.name, document.path))
        left = quota
        for place, document in enumerate(candidates):
            wanted = math.ceil(left / (len(candidates) - place))
            holes = _holes(config, repository.name, document, wanted)
            left -= len(holes)
            if not holes:
                continue
            with index.without(document.path):
                rows = [_row(config, repository, document, hole, index) for hole in holes]
            for row in rows:
                _count(row, counts, alone=len(documents) == 1)
                yield row


def _holes(config: ExamplesConfig, repo: str, document: ExampleDocument, n: int) -> list[Hole]:
    """Return at most `n` holes of a document, no two with the same offsets."""
    if n <= 0:
        return []
    drawn = syntactic_holes(
        document.content,
        document.language,
        config.split,
        seed=config.seed,
        epoch=0,
        document=f"{repo}/{document.path}",
        n=min(n, HOLES_PER_DOCUMENT),
    )
    return list({(hole.start, hole.end): hole for hole in drawn}.values())


def _row(
    config: ExamplesConfig, repository: RepositorySplit, document: ExampleDocument, hole: Hole, index: ProjectIndex
) -> dict[str, Any]:
    text = document.content
    name = _hash(repository.name, document.path, hole.start, hole.end)[:20]
    request = FimRequest(path=document.path, prefix=text[: hole.start], suffix=text[hole.end :])
    strategy = config.evaluation_strategy
    if repository.split == "train":
        names, shares = zip(*config.strategies, strict=True)
        strategy = random.Random(f"{config.seed}/{name}").choices(names, shares)[0]
    items = within_chars(config.context_chars, retrieve(index, request, strategy=strategy, k=config.context_items))
    return {
        "id": name,
        "repo": repository.name,
        "path": document.path,
        "language": document.language,
        "split": repository.split,
        "prefix": request.prefix,
        "middle": text[hole.start : hole.end],
        "suffix": request.suffix,
        "kind_start": hole.kind_start,
        "kind_end": hole.kind_end,
        "unit": hole.unit,
        "strategy": strategy,
        "context": [vars(item) for item in items],
    }


def within_chars(chars: int, items: Sequence[ContextItem]) -> Iterator[ContextItem]:
    """Yield the last items, which are the best, as far as they fit in `chars` characters; skip those that do not."""
    kept = []
    for item in reversed(items):
        if len(item.text) <= chars:
            chars -= len(item.text)
            kept.append(item)
    return reversed(kept)


def _count(row: Mapping[str, Any], counts: dict[str, Counter[str]], *, alone: bool) -> None:
    counts["holes"][row["split"]] += 1
    counts["kinds"][f"{row['kind_start']} to {row['kind_end']}"] += 1
    for name in ("unit", "strategy", "language", "repo"):
        counts[name][row[name]] += 1
    counts["middle_chars"][str(len(row["middle"]))] += 1
    if not row["context"]:
        why = "no context wanted" if row["strategy"] == "none" else f"nothing found by {row['strategy']}"
        counts["empty_context"]["the repository has no other file" if alone else why] += 1


def _finish(config: ExamplesConfig, folders: Sequence[str], output: str) -> dict[str, float]:
    """Join the shards, write the report and return the stage's metrics."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for folder in folders:
        for name, values in storage.read_json(storage.join(folder, COUNTS)).items():
            counts[name].update(values)
    holes = {split: counts["holes"][split] for split in SPLITS}
    if not holes["train"]:
        raise InputError(
            "no hole could be cut from the train split: the corpus has no source file there in a language with a "
            f"grammar ({', '.join(syntax.LANGUAGES)}); add sources or lower the corpus's held-out shares"
        )
    for split in SPLITS:
        parts = [storage.join(folder, f"{split}.parquet") for folder in folders]
        write_rows(split_file(output, split), _tables(parts))
    asked = {"train": config.holes, "validation": config.validation_holes, "test": config.test_holes}
    manifest.write_report(output, _report(asked, counts))
    return {f"holes_{split}": float(n) for split, n in holes.items()}


def _report(asked: Mapping[str, int], counts: Mapping[str, Counter[str]]) -> dict[str, Any]:
    total = sum(counts["holes"].values())
    empty = counts["empty_context"]
    return {
        "asked": asked,
        "holes": counts["holes"],
        "repositories": len(counts["repo"]),
        "largest_repository_share": max(counts["repo"].values()) / total,
        "kinds": counts["kinds"],
        "units": counts["unit"],
        "strategies": counts["strategy"],
        "languages": counts["language"],
        "middle_chars": {str(q): _quantile(counts["middle_chars"], q) for q in (0.1, 0.5, 0.9, 1.0)},
        "empty_context": {"share": empty.total() / total, "why": empty},
    }


def _quantile(lengths: Mapping[str, int], share: float) -> int:
    """Return the smallest length that at least `share` of the counted lengths do not exceed."""
    seen, total = 0, sum(lengths.values())
    for length in sorted(map(int, lengths)):
        seen += lengths[str(length)]
        if seen >= share * total:
            return length
    return 0


def _tables(files: Iterable[str]) -> Iterator[pa.Table]:
    for file in files:
        with open_parquet(file) as reader:
            for group in range(reader.num_row_groups):
                yield reader.read_row_group(group)


def _hash(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()
