"""Experiment `monorepo`: the same carets with a small repository, a part of a monorepo, and all of it to search.

A small repository is the folder of the caret's file, or its subsystem, the first folders of its path. Paths, carets and
the ranking are the same in all cells; only the files that the index has differ.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from infill import storage
from infill.context import ProjectIndex, retrieve, store
from infill.context.files import IndexLimits
from infill.errors import InputError
from infill.experiments import experiment_run
from infill.experiments.experiment import Experiment, Measure
from infill.experiments.needed_names import HiddenLines, holes_of_index
from infill.experiments.retrieval import MEASURES, ContextScorer, RetrievalConfig, hole_id
from infill.manifest import Manifest
from infill.prompt import FimRequest

NAME: Final = "monorepo"
FOLDER, SUBSYSTEM, WHOLE = "own folder", "subsystem", "monorepo"
SUBSYSTEM_FOLDERS: Final = 2
"""Folders at the start of a path that are a subsystem."""
LIMITS: Final = IndexLimits(files=10_000_000, total_bytes=10_000_000_000)
"""Beyond any repository, so that the whole of it is searched; large files are left out as usual."""
WHOLE_MEASURES: Final = (
    Measure(name="query_p50", label="query, p50", unit="ms", higher_is_better=False, column="query_ms", quantile=0.5),
    Measure(name="query_p99", label="query, p99", unit="ms", higher_is_better=False, column="query_ms", quantile=0.99),
    Measure(name="index_s", label="indexing", unit="s", higher_is_better=None),
    Measure(name="load_s", label="loading", unit="s", higher_is_better=None),
    Measure(name="index_mb", label="index", unit="MB", higher_is_better=None),
    Measure(name="files", label="files", higher_is_better=None),
)
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MonorepoConfig(RetrievalConfig):
    name: str = NAME


class MeasuredIndex(NamedTuple):
    """An index with the processor time of building it and of loading it again from disk."""

    project: ProjectIndex
    build_s: float
    load_s: float


def run(config: MonorepoConfig, *, repository: Path, model: str, output: str) -> Manifest:
    """Write the experiment to the folder `output`; return its manifest.

    Raises InputError when the repository has too few lines to hide, or the model cannot be read.
    """
    inputs = {"repository": storage.fingerprint(str(repository)), "model": experiment_run.digest(model)}
    return experiment_run.run(
        lambda: _experiment(config, repository, model), config=config, inputs=inputs, output=output
    )


def _experiment(config: MonorepoConfig, repository: Path, model: str) -> Experiment:
    ProjectIndex.from_documents([("warm.py", "warm = 1\n")])  # loads the compiled loops
    whole = _measured(lambda: ProjectIndex.from_repository(repository, limits=LIMITS))
    log.info("experiment %s: indexed %d files in %.0f s", NAME, len(whole.project), whole.build_s)
    cut = holes_of_index(whole.project, config.holes, repository.name)
    if len(cut) < config.holes:
        raise InputError(
            f"{repository} has only {len(cut)} of {config.holes} places where hidden lines need names that another "
            "file defines; name a larger repository, or lower --holes"
        )
    scorer, part = ContextScorer(config, model), lru_cache(maxsize=2)(lambda folder: _part(whole.project, folder))

    def measure(cell: str, place: int) -> Mapping[str, Any]:
        hole = cut[place]
        searched = whole if cell == WHOLE else part(folder_of(cell, hole.query.path))
        return _measure(scorer, searched, hole)

    return Experiment(
        name=NAME,
        question="What does the whole of a monorepo add to the part of it around the caret, and what does it cost?",
        factor="files that are searched",
        cells=(FOLDER, SUBSYSTEM, WHOLE),
        baseline="the files in and below the caret's folder",
        measures=(*MEASURES, *WHOLE_MEASURES),
        holes=[hole_id(hole) for hole in cut],
        measure=measure,
        setting=_setting(repository, whole, scorer),
    )


def folder_of(cell: str, path: str) -> str:
    """Return the folder, with a slash at its end, whose files are searched in a cell; empty for the root."""
    folders = path.split("/")[:-1]
    kept = folders if cell == FOLDER else folders[:SUBSYSTEM_FOLDERS]
    return "".join(f"{folder}/" for folder in kept)


def _part(whole: ProjectIndex, folder: str) -> MeasuredIndex:
    texts = [(path, whole.text(path)) for path in sorted(whole.files) if path.startswith(folder)]
    return _measured(lambda: ProjectIndex.from_documents(texts))


def _measured(build: Callable[[], ProjectIndex]) -> MeasuredIndex:
    """Build an index, save it, and load it again; return the one that was built."""
    start = time.process_time()
    index = build()
    build_s = time.process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        saved = f"{folder}/index"
        store.save(index, saved)
        start = time.process_time()
        store.load(saved)
        return MeasuredIndex(index, build_s, time.process_time() - start)


def _measure(scorer: ContextScorer, searched: MeasuredIndex, hole: HiddenLines) -> dict[str, Any]:
    index, query = searched.project, hole.query
    request = FimRequest(path=query.path, prefix=query.prefix, suffix=query.suffix)
    start = time.process_time()
    items = retrieve(index, request)
    query_ms = 1_000 * (time.process_time() - start)
    facts = {"index_s": searched.build_s, "load_s": searched.load_s, "index_mb": index.memory / 1e6}
    return {**scorer.score(hole, items[::-1]), "query_ms": query_ms, **facts, "files": float(len(index))}


def _setting(repository: Path, whole: MeasuredIndex, scorer: ContextScorer) -> list[str]:
    index = whole.project
    return [
        f"{repository.name}: {len(index):,} files, {index.text_bytes / 1e6:,.0f} MB, {index.table.live_blocks:,} "
        f"blocks, read at {index.text_bytes / 1e6 / whole.build_s:.1f} MB/s. A subsystem is the first "
        f"{SUBSYSTEM_FOLDERS} folders of a path. {scorer.setting()}",
        "Times are processor time of one core. The monorepo is indexed and loaded once, so that its figures have no "
        "interval. The 99th percentile of few queries is uncertain beyond its interval.",
    ]
