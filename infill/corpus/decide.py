"""Decide over all shards which documents are removed as copies or for a benchmark, and the split of each document.

The candidates' columns without the text are read one shard after the other, more than once, and only the texts that
`dedup` compares. Memory grows by about 150 bytes per document and 400 per removed one.

The documents of the corpora in `corpus.earlier` come before the candidates: none of them is removed, and their
repositories keep their splits. Where an owner has asked for one since, its copies among the candidates are removed for
that reason, and `CorpusDecision.earlier_opted_out` counts what the earlier corpora still have.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from infill import storage
from infill.config import CorpusConfig
from infill.corpus import benchmarks, catalogue, dedup, opt_out, reading_order, shards, splits
from infill.corpus.catalogue import Catalogue
from infill.corpus.dedup import Array, Near, Similar
from infill.corpus.quality import Removal
from infill.corpus.shards import ShardVerdict

Row = dict[str, Any]
COLUMNS: Final = ("repo", "path", "language", "licence", "sha256", "bytes", "commit", "source", "redactions")
REMOVED: Final = ("repo", "path", "bytes", "source")
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CorpusDecision:
    """The removed candidates and the splits. Candidates are numbered over all shards, in corpus order."""

    removals: Mapping[int, Removal]
    """Number of a removed candidate -> reason."""
    unit: str
    """Unit of the splits: "repository", or "file" if there are fewer repositories with code than splits."""
    split_of: Mapping[str, str]
    """Repository (or file) -> split."""
    earlier_opted_out: Mapping[str, int]
    """Entry of the opt-outs -> number of documents of earlier corpora that it covers."""

    def split(self, row: Row) -> str:
        """Return the split of the document with the columns `repo` and `path` of `row`."""
        return self.split_of[str(row["repo"]) if self.unit == "repository" else catalogue.name(row)]


def decide(scratch: str, count: int, config: CorpusConfig) -> CorpusDecision:
    """Return the decision about the candidates in `count` shards below `scratch`."""
    candidates = [shards.candidates_uri(scratch, number) for number in range(count)]
    documents = Catalogue(candidates, config.earlier, opt_out.load(config.opt_out))
    overlapping = _overlapping(scratch, count, documents)
    gone = np.zeros(len(documents), bool)
    gone[list(overlapping)] = True
    order = documents.order()
    copies = dedup.exact_copies(documents.digests, order[~gone[order]])
    copies[: documents.earlier] = -1
    gone |= copies >= 0
    left = order[~gone[order]]
    similar = dedup.similar(
        documents.parts,
        left,
        count=len(order),
        fixed=documents.earlier + int(np.count_nonzero(documents.opted_out[left[left >= documents.earlier]])),
        threshold=config.near_duplicate_similarity or np.inf,
        lower=config.split_similarity or config.near_duplicate_similarity or 1.0,
    )
    near, opted_out = _without_opted_out(scratch, count, documents, similar, gone)
    gone[list(opted_out)] = True
    unit, split_of, split = _split(documents, gone, copies, near, config)
    near, crossing = _without_crossing(similar, near, gone, split, documents.earlier)
    removals = overlapping | _removals(documents, copies, near, crossing, split, opted_out)
    by_candidate = {place - documents.earlier: removal for place, removal in removals.items()}
    return CorpusDecision(
        removals=by_candidate,
        unit=unit,
        split_of=split_of,
        earlier_opted_out=dict(sorted(Counter(documents.entries.values()).items())),
    )


def _overlapping(scratch: str, count: int, documents: Catalogue) -> dict[int, Removal]:
    """Return position -> reason for the candidates with a passage of a benchmark; it names task and passage."""
    uri = shards.benchmarks_uri(scratch)
    if not storage.exists(uri):
        return {}
    loaded, overlaps, first = benchmarks.load(uri), dict[int, list[int]](), documents.earlier
    for number in range(count):
        column = storage.read_table(shards.candidates_uri(scratch, number), ["overlaps"])["overlaps"].to_pylist()
        overlaps |= {first + row: runs for row, runs in enumerate(column) if runs}
        first += len(column)
    judged = benchmarks.judge(overlaps, documents.repo, loaded)
    passages = {place: loaded.passage(content, judged[place].runs) for place, content in documents.contents(judged)}
    return {
        place: Removal("benchmark_overlap", f'{loaded.tasks[judged[place].task]}: "{passage}"')
        for place, passage in passages.items()
    }


def _without_opted_out(
    scratch: str, count: int, documents: Catalogue, similar: Similar, gone: Array
) -> tuple[Near, dict[int, Removal]]:
    """Return the near copies among the other documents, and why each one left out on request is removed.

    A near copy is removed with it, since whoever copied the code cannot withdraw the request. So is an exact copy,
    which `gone` marks already and which gets the reason of the document that it is a copy of.
    """
    near = similar.near(gone)
    if not documents.opted_out.any():
        return near, {}
    entries = _entries(scratch, count, documents.earlier)
    copies = np.flatnonzero((near.kept >= 0) & documents.opted_out[near.kept] & ~documents.opted_out)
    names = documents.names(near.kept[copies])
    removals = {place: Removal("opted_out", entry) for place, entry in entries.items() if not gone[place]}
    entries |= documents.entries
    for place in copies.tolist():
        kept = int(near.kept[place])
        detail = f"{entries[kept]}; a copy of {names[kept]}, similarity {near.similarity[place]:.3f}"
        removals[place] = Removal("opted_out", detail)
    excluded = gone.copy()
    excluded[list(removals)] = True
    return similar.near(excluded), removals


def _entries(scratch: str, count: int, first: int) -> dict[int, str]:
    """Return the entry of each document that is left out on request, by position; candidates begin at `first`."""
    entries = dict[int, str]()
    for number in range(count):
        column = storage.read_table(shards.candidates_uri(scratch, number), ["opted_out"])["opted_out"].to_pylist()
        entries |= {first + row: str(entry) for row, entry in enumerate(column) if entry is not None}
        first += len(column)
    return entries


# Splits


def _split(
    documents: Catalogue, gone: Array, copies: Array, near: Near, config: CorpusConfig
) -> tuple[str, dict[str, str], Array]:
    """Return the unit of the splits, name -> split, and each document's split as an index into `splits.SPLITS`.

    `gone` marks the documents that are removed for another reason than being a near copy.
    """
    kept = ~gone & (near.kept < 0)
    code = documents.bytes * documents.is_code * kept
    related = np.concatenate([_pairs(copies), _pairs(near.kept), near.close])
    unit, numbers, names = "repository", documents.repo, documents.repositories
    family = splits.families(numbers, documents.bytes, related)
    least = 1 + (config.validation_share > 0) + (config.test_share > 0)
    if not documents.earlier and np.count_nonzero(np.bincount(family[numbers], weights=code)) < least:
        log.warning("corpus: fewer than %d repositories with code; splitting by file instead of by repository", least)
        unit, numbers = "file", np.arange(len(documents))
        names = list(documents.names(range(len(documents))).values())
        family = splits.families(numbers, documents.bytes, related)
    by_family = _split_families(documents, family[numbers], family, names, code, kept, config)
    split = np.where(documents.split >= 0, documents.split, by_family[family[numbers]])
    return unit, {name: splits.SPLITS[by_family[each]] for name, each in zip(names, family, strict=True)}, split


def _split_families(
    documents: Catalogue,
    member: Array,
    family: Array,
    names: Sequence[str],
    code: Array,
    kept: Array,
    config: CorpusConfig,
) -> Array:
    """Return the split of each family, by number, as an index into `splits.SPLITS`.

    `member` has the family of each document, `family` that of each of `names`. A family gets the split that its largest
    member would get alone, or the split of a repository of an earlier corpus if it has one.
    """
    result = np.full(len(names), -1, np.int8)
    earlier, first = np.unique(member[: documents.earlier], return_index=True)
    result[earlier] = documents.split[first]
    sizes = np.bincount(member, weights=code, minlength=len(names))
    present = np.bincount(member, weights=kept, minlength=len(names)) > 0
    for numbers, fill in (
        (np.flatnonzero((result < 0) & present), not documents.earlier),
        (np.setdiff1d(family, np.flatnonzero((result >= 0) | present)), False),
    ):
        chosen = splits.assign(
            {names[number]: int(sizes[number]) for number in numbers.tolist()},
            validation_share=config.validation_share,
            test_share=config.test_share,
            seed=config.seed,
            fill=fill,
        )
        result[numbers] = [splits.SPLITS.index(chosen[names[number]]) for number in numbers.tolist()]
    return result


def _pairs(kept: Array) -> Array:
    """Return rows of two positions: a copy, and the document that is kept in its place."""
    copies = np.flatnonzero(kept >= 0)
    return np.stack([copies, kept[copies]], axis=1)


def _without_crossing(
    similar: Similar, near: Near, gone: Array, split: Array, earlier: int
) -> tuple[Near, dict[int, tuple[int, float]]]:
    """Remove documents until no two close documents are in different splits.

    Return the near copies, and removed document -> (kept document, similarity). The near copies are computed again
    after each round, because a removed document may have been kept in place of others.
    """
    removed: dict[int, tuple[int, float]] = {}
    excluded = gone.copy()
    while crossing := list(splits.crossing(near.close, split, earlier)):
        for out, kept, pair in crossing:
            removed[out] = kept, float(near.close_similarity[pair])
            excluded[out] = True
        near = similar.near(excluded)
    return near, removed


# The results


def _removals(
    documents: Catalogue,
    copies: Array,
    near: Near,
    crossing: Mapping[int, tuple[int, float]],
    split: Array,
    opted_out: Mapping[int, Removal],
) -> dict[int, Removal]:
    """Return position -> reason for the removed candidates; a copy of a removed one has the reason of the latter."""
    exact, removed = np.flatnonzero(copies >= 0), np.flatnonzero(near.kept >= 0)
    kept = {*copies[exact].tolist(), *near.kept[removed].tolist(), *(place for place, _ in crossing.values())}
    names = documents.names(kept)
    result = dict(opted_out)
    result |= {
        place: Removal("near_duplicate", f"{names[near.kept[place]]}, similarity {near.similarity[place]:.3f}")
        for place in removed.tolist()
    }
    for place, (other, similarity) in crossing.items():
        detail = f"{names[other]} in the {splits.SPLITS[split[other]]} split, similarity {similarity:.3f}"
        result[place] = Removal("near_held_out", detail)
    for place in exact.tolist():
        kept_place = int(copies[place])
        entry = documents.entries.get(kept_place)
        of_kept = Removal("opted_out", entry) if entry else result.get(kept_place)
        result[place] = of_kept or Removal("duplicate", names[kept_place])
        if documents.opted_out[kept_place] and not documents.opted_out[place]:
            result[place] = Removal("opted_out", f"{result[place].detail}; a copy of {names[kept_place]}")
    return result


def verdicts(scratch: str, count: int, decision: CorpusDecision) -> Iterator[ShardVerdict]:
    """Yield the verdict about each shard, in order, for `shards.finish`."""
    first, order = 0, _order_across(scratch, count)
    for number in range(count):
        rows = list(_shard(scratch, number, ["repo", "path"]))
        removals = {row: decision.removals[first + row] for row in range(len(rows)) if first + row in decision.removals}
        yield ShardVerdict(
            number=number,
            splits=tuple("" if place in removals else decision.split(row) for place, row in enumerate(rows)),
            removals=removals,
            order=tuple(order.get(first + row, shards.WITHIN) for row in range(len(rows))),
        )
        first += len(rows)


def _order_across(scratch: str, count: int) -> dict[int, int]:
    """Return position -> place in the reading order for the candidates of repositories in more than one shard."""
    holders: dict[str, list[int]] = {}
    starts = [0]
    for number in range(count):
        repos = storage.read_table(shards.candidates_uri(scratch, number), ["repo"])["repo"]
        starts.append(starts[-1] + len(repos))
        for repo in map(str, repos.unique().to_pylist()):
            holders.setdefault(repo, []).append(number)
    order: dict[int, int] = {}
    for repo, numbers in holders.items():
        if len(numbers) > 1:
            importers = [
                (starts[number] + row, importer)
                for number in numbers
                for row, (name, importer) in enumerate(shards.importers(scratch, number))
                if name == repo
            ]
            places = reading_order.places([importer for _, importer in importers])
            order |= zip((position for position, _ in importers), places, strict=True)
    return order


def kept(scratch: str, count: int, decision: CorpusDecision) -> Iterator[Row]:
    """Yield the kept documents without their text: the columns COLUMNS, and `split`."""
    for position, row in enumerate(_rows(scratch, count, COLUMNS)):
        if position not in decision.removals:
            yield row | {"split": decision.split(row)}


def removed(scratch: str, count: int, decision: CorpusDecision) -> Iterator[Row]:
    """Yield the removed files: the columns REMOVED, `reason`, `detail`; first those that a rule rejected."""
    for number in range(count):
        columns = [*REMOVED, "reason", "detail"]
        yield from storage.read_table(shards.rejected_uri(scratch, number), columns).to_pylist()
    for position, row in enumerate(_rows(scratch, count, REMOVED)):
        if position in decision.removals:
            yield row | decision.removals[position]._asdict()


def _rows(scratch: str, count: int, columns: Sequence[str]) -> Iterator[Row]:
    for number in range(count):
        yield from _shard(scratch, number, columns)


def _shard(scratch: str, number: int, columns: Sequence[str]) -> Iterator[Row]:
    yield from storage.read_table(shards.candidates_uri(scratch, number), columns).to_pylist()
