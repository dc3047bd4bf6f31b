"""The corpus stage: sources in, documents with licence and split out, and every removed file with its reason.

The repositories are listed, and the list of their files is cut into shards. The stage makes two passes over the shards.
The first reads the files and applies the rules that need only one file. Then copies and splits are decided over all
shards (`infill.corpus.decide`). The second pass writes the result. Listing and each pass map one pure function, in
threads of this process or on Ray Data, with equal results.
"""

import contextlib
import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Final

from infill import manifest, ray_session, storage
from infill.artifacts import corpus as artifact
from infill.config import CorpusConfig
from infill.corpus import (
    benchmarks,
    bill,
    datasheet,
    datasheet_html,
    decide,
    opt_out,
    quality,
    shards,
    signals,
    sources,
    splits,
)
from infill.corpus.known_signals import KnownSignals
from infill.corpus.quality import Removal
from infill.corpus.shards import FileJob
from infill.errors import InfillError, InputError
from infill.stages.contract import Call

VERSION: Final = 12
log: Final = logging.getLogger(__name__)
MAX_THREADS: Final = 4
"""Reading waits for the disk, and hashing and compressing release the interpreter's lock; more threads gain little."""
Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]
"""Applies a function to each item and yields the results as they become available."""


def fingerprint(config: CorpusConfig) -> str:
    """Return a digest of the sources' state (`sources.fingerprint`)."""
    return sources.fingerprint(config.sources)


def outside(config: CorpusConfig, _: Mapping[str, str]) -> dict[str, str]:
    """Return digests of what the stage reads besides artifacts: sources, opt-outs, earlier corpora, benchmarks."""
    opted_out = {"opt_out": opt_out.digest(config.opt_out)} if config.opt_out else {}
    places = benchmarks.places(config)
    tasks = {"benchmarks": benchmarks.fingerprint(places)} if places else {}
    return {"sources": fingerprint(config), **opted_out, **_earlier(config), **tasks}


def _earlier(config: CorpusConfig) -> dict[str, str]:
    return {f"earlier_{number}": manifest.digest_of(uri) for number, uri in enumerate(config.earlier)}


def body(call: Call[CorpusConfig]) -> Mapping[str, float]:
    """Build the corpus; return its counts.

    Metrics: `documents_kept`, `documents_removed`, `bytes_read`, `bytes_kept`, `repositories` (with a document),
    `repositories_empty`, and `removed_<reason>`. A killed run continues where it stopped. Raises InputError, with the
    counts by reason, if no document is kept.
    """
    config, output, scratch = call.settings, call.output, call.scratch
    marker = storage.join(scratch, "started.json")
    if not storage.exists(marker):  # existing files are from other sources or another configuration
        for name in (*artifact.FOLDERS, manifest.SCRATCH):
            storage.remove(storage.join(output, name))
        storage.write_json(marker, {"config": manifest.config_dict(config)})
    for partial_file in storage.list_files(output, ".partial"):  # left by a run that was killed while it wrote
        storage.remove(partial_file)
    if places := benchmarks.places(config):
        benchmarks.prepare(places, shards.benchmarks_uri(scratch))
    read = partial(shards.read, config=config, scratch=scratch, output=output)
    with RUNTIMES[config.runtime]() as run_all:
        repositories = list(sources.repositories(config.sources, config, partial(_in_order, run_all)))
        known = KnownSignals(signals.beside(storage.absolute(output)))
        work = list(shards.cut(_jobs(repositories, config), config.shard_bytes, known))
        _watch(run_all(read, work), "reading", len(work))
        decision = decide.decide(scratch, len(work), config)
        report = datasheet.summarise(
            decide.kept(scratch, len(work), decision),
            decide.removed(scratch, len(work), decision),
            [repository.name for repository in repositories],
            decision.unit,
        )
        report["commits"] = sources.commits(repositories)
        report["earlier_opted_out"] = _earlier_opted_out(decision.earlier_opted_out, config)
        if not report["documents_kept"]:
            raise InputError(_nothing(config, report))
        verdicts = list(decide.verdicts(scratch, len(work), decision))
        _watch(run_all(partial(shards.finish, scratch=scratch, output=output), verdicts), "writing", len(work))
    manifest.write_report(output, report)
    for file, text in {
        artifact.DATASHEET_FILE: datasheet.render(report, config),
        artifact.PAGE_FILE: datasheet_html.render(report, config),
        artifact.BILL_FILE: bill.render(report),
    }.items():
        storage.write_bytes(storage.join(output, file), text.encode())
    return metrics(report)


def metrics(report: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of the report that are logged to the tracking server."""
    names = ("documents_kept", "documents_removed", "bytes_read", "bytes_kept", "repositories", "repositories_empty")
    removed = {f"removed_{reason}": entry["documents"] for reason, entry in report["removed"].items()}
    return {name: float(value) for name, value in ({name: report[name] for name in names} | removed).items()}


def _earlier_opted_out(counts: Mapping[str, int], config: CorpusConfig) -> Mapping[str, int]:
    """Return `counts`, after a warning where earlier corpora still have documents that their owners withdrew."""
    if counts:
        log.warning(
            "corpus: %d documents of %s are opted out since (%s); build these corpora again, for they keep them",
            sum(counts.values()),
            ", ".join(config.earlier),
            "; ".join(counts),
        )
    return counts


# The list of files


def _jobs(repositories: Sequence[sources.Repository], config: CorpusConfig) -> Iterator[FileJob]:
    """Yield every file, sorted by repository and path, judged by its name; then the files that are in no repository."""
    opted_out = opt_out.load(config.opt_out)
    judged = {
        repository.name: [_job(repository, file, config, opted_out) for file in repository.files]
        for repository in repositories
    }
    sizes = {
        name: sum(job.file.size for job in jobs if not job.removal and not job.opted_out)
        for name, jobs in judged.items()
    }
    chosen = _within_limit(sizes, config)
    for name in sorted(judged):
        for job in judged[name]:
            yield job if job.removal or name in chosen else replace(job, removal=Removal("over_limit"))
    outside = list(sources.beside(config.sources))
    if outside:
        log.warning("corpus: %d files in no repository are left out: %s", len(outside), _some(outside))
    for entry in outside:
        removal = Removal(entry.file.trouble, entry.file.detail)
        yield FileJob(repo="", root=entry.root, source=entry.source, licence=None, file=entry.file, removal=removal)


def _some(outside: Sequence[sources.Beside]) -> str:
    names = [entry.file.path for entry in outside[:3]]
    return ", ".join(names + ["..."] * (len(outside) > len(names)))


def _job(
    repository: sources.Repository, file: sources.SourceFile, config: CorpusConfig, opted_out: opt_out.OptOuts
) -> FileJob:
    licence = None if file.trouble else repository.coverage.of(file.path)
    removal = quality.judge_name(file, licence, config)
    entry = opted_out.of(repository.name, file.path) or ""
    return FileJob(
        repo=repository.name,
        root=repository.root,
        source=repository.source,
        licence=licence,
        file=file,
        removal=removal,
        opted_out=entry,
    )


def _within_limit(sizes: Mapping[str, int], config: CorpusConfig) -> set[str]:
    """Return the names of the repositories that fit into `max_total_bytes`, tried in the order of a hash.

    It is not the hash that decides the splits, by which the first repositories all belong to the test split.
    """
    chosen: set[str] = set()
    left = config.max_total_bytes or sum(sizes.values())
    for name in sorted(sizes, key=lambda name: splits.position(f"limit\0{name}", config.seed)):
        if sizes[name] <= left:
            chosen.add(name)
            left -= sizes[name]
    return chosen


def _nothing(config: CorpusConfig, report: Mapping[str, Any]) -> str:
    """Return the error message for a corpus without documents."""
    repositories, removed = report["repositories_found"], report["documents_removed"]
    where = " ".join(config.sources)
    if not removed:
        return f"{where}: {repositories} repositories without a file; name a source with code"
    reasons = ", ".join(f"{entry['documents']} {reason}" for reason, entry in report["removed"].items())
    return (
        f"{where}: none of {removed} files in {repositories} repositories can be used ({reasons}); "
        f"add repositories under a licence of corpus.licences ({', '.join(config.licences)}), or extend that list"
    )


# Runtimes


def _in_order(run_all: Mapper, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """Yield the results of `function` in the order of `items`."""
    results = dict(run_all(partial(_numbered, function), list(enumerate(items))))
    for number in range(len(items)):
        yield results.pop(number)


def _numbered(function: Callable[[Any], Any], item: tuple[int, Any]) -> tuple[int, Any]:
    return item[0], function(item[1])


@contextlib.contextmanager
def _threads() -> Iterator[Mapper]:
    """Run the passes in threads of this process."""
    pool = ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, MAX_THREADS))
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _ray() -> Iterator[Mapper]:
    """Run the passes on Ray Data; its workers must see sources and output under the same names as this process."""
    with ray_session.session():
        yield _map_on_ray


def _map_on_ray(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    blocks = ray.data.from_items([{"item": pickle.dumps(item)} for item in items], override_num_blocks=len(items))
    for row in blocks.map(lambda row: {"outcome": pickle.dumps(_outcome(function, row["item"]))}).iter_rows():
        outcome = pickle.loads(row["outcome"])
        if isinstance(outcome, InfillError):
            raise outcome
        yield outcome


def _outcome(function: Callable[[Any], Any], item: bytes) -> Any:
    """Return a worker's result, or its error for the user, which Ray would wrap and hide if it was raised."""
    try:
        return function(pickle.loads(item))
    except InfillError as error:
        return error


RUNTIMES: Final[Mapping[str, Callable[[], contextlib.AbstractContextManager[Mapper]]]] = {
    "local": _threads,
    "ray": _ray,
}


def _watch(numbers: Iterator[int], doing: str, total: int) -> None:
    """Consume the numbers of finished shards, with a progress bar on a terminal, otherwise with lines in the log."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        for _ in track(numbers, description=f"corpus: {doing}", total=total, console=Console(stderr=True)):
            pass
        return
    for done, _ in enumerate(numbers, 1):
        log.info("corpus: %s, %d of %d shards", doing, done, total)
