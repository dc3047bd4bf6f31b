"""The corpus stage: sources in, documents with licence and split out, and every removed file with its reason.

Two passes over shards of the file list. The first reads the files and applies every rule that a file decides alone.
Then exact copies and splits are decided over all shards, from the columns without the text. The second writes the
result. Each pass maps one pure function over shards, in threads of this process or on Ray Data, with the same result.
"""

import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

import pyarrow as pa

from infill import manifest, storage
from infill.config import CorpusConfig
from infill.corpus import datasheet, dedup, language, quality, shards, sources, splits
from infill.corpus.quality import Removal
from infill.corpus.shards import Job, Shard, Verdict
from infill.errors import InfillError, InputError

STAGE: Final = "corpus"
VERSION: Final = 1
log: Final = logging.getLogger(__name__)
MAX_THREADS: Final = 4
"""Reading waits for the disk, hashing and compressing run outside the interpreter's lock; more threads gain little."""
Item = TypeVar("Item")


def fingerprint(config: CorpusConfig) -> str:
    """Digest of the sources' state: names, sizes and times of change of the files, or the packages' own records."""
    return sources.fingerprint(config.sources)


def external(config: CorpusConfig) -> dict[str, str]:
    """What the stage reads besides artifacts: the state of the sources."""
    return {"sources": fingerprint(config)}


def run(config: CorpusConfig, output: str) -> dict[str, float]:
    """Build the corpus in the folder `output`; return its counts.

    Metrics: `documents_kept`, `documents_removed`, `bytes_read`, `bytes_kept`, `repositories` (with a document),
    `repositories_empty`, and `removed_<reason>`. A killed run goes on where it was. Raises InputError when nothing is
    kept, with the counts by reason.
    """
    inputs = external(config)
    key = manifest.key(STAGE, VERSION, config, inputs)
    body = partial(_build, config, output, storage.join(output, manifest.SCRATCH, key))
    return manifest.once(stage=STAGE, version=VERSION, config=config, inputs=inputs, output=output, body=body)


def _build(config: CorpusConfig, output: str, scratch: str) -> dict[str, float]:
    marker = storage.join(scratch, "started.json")
    if not storage.exists(marker):  # whatever stands here belongs to other sources or another configuration
        for name in ("documents", "removed", manifest.SCRATCH):
            storage.remove(storage.join(output, name))
        storage.write_json(marker, {"config": manifest.config_dict(config)})
    for left in storage.list_files(output, ".partial"):  # of a run that was killed while it wrote
        storage.remove(left)
    repositories = list(sources.repositories(config.sources))
    work = list(shards.cut(_jobs(repositories, config), config.shard_bytes))
    run_all = RUNTIMES[config.runtime]
    for _ in _watch(run_all(partial(shards.read, config=config, scratch=scratch), work), "reading", len(work)):
        pass
    report, verdicts = _decide(work, [repository.name for repository in repositories], scratch, config)
    for _ in _watch(run_all(partial(shards.finish, scratch=scratch, output=output), verdicts), "writing", len(work)):
        pass
    storage.write_json(storage.join(output, "report.json"), report)
    storage.write_bytes(storage.join(output, "DATASHEET.md"), datasheet.render(report, config).encode())
    return metrics(report)


def metrics(report: dict[str, Any]) -> dict[str, float]:
    """The numbers of the report that are worth a line in the tracking server."""
    names = ("documents_kept", "documents_removed", "bytes_read", "bytes_kept", "repositories", "repositories_empty")
    removed = {f"removed_{reason}": entry["documents"] for reason, entry in report["removed"].items()}
    return {name: float(value) for name, value in ({name: report[name] for name in names} | removed).items()}


# What is to be read


def _jobs(repositories: Sequence[sources.Repository], config: CorpusConfig) -> Iterator[Job]:
    """Every file of every repository, by repository and path, with the verdict on its name."""
    chosen = _within_limit(repositories, config)
    for repository in sorted(repositories, key=lambda repository: repository.name):
        for file in repository.files:
            licence = repository.licence_of(file.path)
            removal = quality.judge_name(file, licence, config)
            if removal is None and repository.name not in chosen:
                removal = Removal("over_limit")
            yield Job(repo=repository.name, root=repository.root, licence=licence, file=file, removal=removal)


def _within_limit(repositories: Sequence[sources.Repository], config: CorpusConfig) -> set[str]:
    """Names of the repositories that fit into `max_total_bytes`, tried in the order of their hash."""
    if not config.max_total_bytes:
        return {repository.name for repository in repositories}
    chosen: set[str] = set()
    left = config.max_total_bytes
    for repository in sorted(repositories, key=lambda repository: splits.position(repository.name, config.seed)):
        judged = ((file, repository.licence_of(file.path)) for file in repository.files)
        size = sum(file.size for file, licence in judged if quality.judge_name(file, licence, config) is None)
        if size <= left:
            chosen.add(repository.name)
            left -= size
    return chosen


# What is kept


def _decide(
    work: Sequence[Shard], repositories: Sequence[str], scratch: str, config: CorpusConfig
) -> tuple[dict[str, Any], list[Verdict]]:
    """Copies and splits over all shards: the report, and what `shards.finish` has to know about each shard."""
    columns = ["repo", "path", "language", "licence", "sha256", "bytes"]
    tables = [storage.read_table(shards.candidates_uri(scratch, shard.number), columns) for shard in work]
    rejected = [storage.read_table(shards.rejected_uri(scratch, shard.number)) for shard in work]
    rows = pa.concat_tables(tables or [shards.CANDIDATES.empty_table().select(columns)]).to_pylist()
    copies = dedup.exact_copies(row["sha256"] for row in rows)
    kept = [row for number, row in enumerate(rows) if number not in copies]
    losses = Counter[str]()
    for table in rejected:
        losses.update(map(str, table["reason"].to_pylist()))
    if not kept:
        raise InputError(_nothing(config, len(repositories), losses))
    unit, split_of = _splits(kept, config)
    verdicts = []
    first = 0
    for shard, table in zip(work, tables, strict=True):
        span = range(first, first + table.num_rows)
        verdicts.append(
            Verdict(
                number=shard.number,
                splits=tuple("" if number in copies else split_of[_unit(rows[number], unit)] for number in span),
                details={number - first: _name(rows[copies[number]]) for number in span if number in copies},
            )
        )
        first += table.num_rows
    for row in kept:
        row["split"] = split_of[_unit(row, unit)]
    duplicates = [rows[number] for number in copies]
    return datasheet.summarise(kept, duplicates, rejected, repositories, unit), verdicts


def _splits(kept: Sequence[dict[str, Any]], config: CorpusConfig) -> tuple[str, dict[str, str]]:
    """The unit that is split, "repository" or "file", and the split of each.

    Files are split only when there are fewer repositories with code than splits; the report says so.
    """
    wanted = 1 + (config.validation_share > 0) + (config.test_share > 0)
    code = [row for row in kept if row["language"] in language.CODE]
    unit = "repository" if len({row["repo"] for row in code or kept}) >= wanted else "file"
    if unit == "file":
        log.warning("fewer than %d repositories with code: the splits are by file, not by repository", wanted)
    split_of = splits.assign(
        {_unit(row, unit) for row in kept},
        validation_share=config.validation_share,
        test_share=config.test_share,
        seed=config.seed,
        eligible={_unit(row, unit) for row in code},
    )
    return unit, split_of


def _unit(row: dict[str, Any], unit: str) -> str:
    return str(row["repo"]) if unit == "repository" else _name(row)


def _name(row: dict[str, Any]) -> str:
    return f"{row['repo']}/{row['path']}"


def _nothing(config: CorpusConfig, repositories: int, losses: Counter[str]) -> str:
    """The sentence for a corpus without a document."""
    counts = ", ".join(f"{count} {reason}" for reason, count in losses.most_common())
    where = " ".join(config.sources)
    if not losses:
        return f"{where}: {repositories} repositories without a file; name a source that holds code"
    return (
        f"{where}: of {sum(losses.values())} files in {repositories} repositories none may be trained on ({counts}); "
        f"add repositories under a licence of corpus.licences ({', '.join(config.licences)}), or extend that list"
    )


# Runtimes


def _threads(function: Callable[[Item], int], items: Iterable[Item]) -> Iterator[int]:
    pool = ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, MAX_THREADS))
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)


def _ray(function: Callable[[Item], int], items: Sequence[Item]) -> Iterator[int]:
    """On the Ray that this process is connected to, else that of RAY_ADDRESS, else one started for the purpose.

    Its workers must see the sources and the store under the same paths.
    """
    import ray

    started = not ray.is_initialized()
    if started:
        ray.init(address=os.environ.get("RAY_ADDRESS"), include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        data = ray.data.from_items([{"item": item} for item in items], override_num_blocks=len(items))
        for row in data.map(lambda row: {"number": function(row["item"])}).iter_rows():
            yield int(row["number"])
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InfillError):
            raise error.cause from None
        raise
    finally:
        if started:
            ray.shutdown()


RUNTIMES: Final[dict[str, Callable[..., Iterator[int]]]] = {"local": _threads, "ray": _ray}


def _watch(numbers: Iterator[int], doing: str, total: int) -> Iterator[int]:
    """The same numbers, with a progress bar on a terminal and a line in the log elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(numbers, description=f"corpus: {doing}", total=total, console=Console(stderr=True))
        return
    for done, number in enumerate(numbers, 1):
        log.info("corpus: %s, shard %d done (%d of %d)", doing, number, done, total)
        yield number
