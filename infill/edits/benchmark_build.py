"""Build a frozen benchmark from the history of Git repositories.

The prompt of a hole has nothing of its commit but the lines next to the hole that were added with it: the rest of its
file, and the context, are those of the parent commit. So the answer is in the prompt only if it was in the repository
before. At most one hole is cut from a file of a commit.
"""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from typing import Any, Final, NamedTuple

from infill import manifest, storage
from infill.artifacts import benchmark as artifact
from infill.artifacts.examples import split_file, write_rows
from infill.config import CorpusConfig, ExamplesConfig, parse_source
from infill.context import retrieve
from infill.corpus import benchmarks, privacy, sources
from infill.corpus.sources import Repository
from infill.edits import benchmark_card, contamination
from infill.edits.change_holes import holes
from infill.edits.changes import CommitChange, Counts, changes, new_counts
from infill.edits.parent_index import ParentIndex
from infill.errors import InputError
from infill.examples import within_chars
from infill.fim import Hole
from infill.foreign import UnreadableError
from infill.manifest import Manifest
from infill.prompt import ContextItem, FimRequest

STAGE: Final = "benchmark"
VERSION: Final = 1
EXAMPLES: Final = ExamplesConfig()
"""The context of a hole is chosen as for the test split of the examples."""
LENGTHS: Final = ((40, "short"), (160, "medium"))
"""Longest middle of each class but the last, in characters."""
_MIN_SECRET: Final = 12
"""A middle with this many letters and digits may be held back only if no other hole shows it; others are common."""
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    sources: tuple[str, ...]
    """Git repositories, `git:PATH[@REVISION]`."""
    after: str
    """The first day, such as 2025-01-31, whose commits count (UTC)."""
    holes: int = 200
    """Number of holes, those that are held back included."""
    held_back: float = 0.2
    """Share of the holes, at most, whose answers are only kept as hashes."""
    commits: int = 400
    """Maximum commits that are read of a repository."""
    corpora: tuple[str, ...] = ()
    """Finished corpora whose documents must not have an answer."""
    benchmarks: tuple[str, ...] = ()
    """Published benchmarks that must not overlap with a hole's file."""
    seed: int = 0
    """Seed of every choice."""
    train: bool = False
    """Whether the holes are for training: all are in the train split, and none is held back."""
    before: str = ""
    """The first day whose commits do not count any more; empty: all later ones count."""
    without: tuple[str, ...] = ()
    """Benchmarks from history whose commits are left out."""

    @property
    def since(self) -> int:
        """The first second that counts, since 1970."""
        return _second(self.after)

    @property
    def until(self) -> int | None:
        """The first second that does not count any more; None without a limit."""
        return _second(self.before) if self.before else None

    @property
    def split(self) -> str:
        """The split that the holes are in."""
        return "train" if self.train else "test"


def _second(day: str) -> int:
    return int(datetime.combine(date.fromisoformat(day), time(tzinfo=UTC)).timestamp())


@dataclass(frozen=True, kw_only=True)
class CandidateHole:
    """A hole that may become part of the benchmark."""

    name: str
    repo: str
    root: str
    change: CommitChange
    hole: Hole

    @property
    def parts(self) -> tuple[str, str, str]:
        """Prefix, middle and suffix."""
        text = self.change.text
        return text[: self.hole.start], text[self.hole.start : self.hole.end], text[self.hole.end :]

    @property
    def group(self) -> tuple[str, str, str]:
        """Language, unit and class of length: the benchmark is balanced over these."""
        length = self.hole.end - self.hole.start
        return self.change.language, self.hole.unit, next((name for most, name in LENGTHS if length <= most), "long")


class ChosenHole(NamedTuple):
    row: dict[str, Any]
    """A row of the examples' SCHEMA."""
    change: CommitChange


def build(config: BenchmarkConfig, output: str) -> Manifest:
    """Write the benchmark to the folder `output`, unless it is there; return its manifest.

    Deterministic in the configuration, the repositories and the corpora. Raises InputError if a source is not a Git
    repository, or no hole can be cut.
    """
    for text in config.sources:
        if parse_source(text).kind != "git":
            raise InputError(f"{text} has no history; name a Git repository as git:PATH or git:PATH@REVISION")
    if config.train and not (config.before or config.without):
        raise InputError(
            "holes to learn from must not be those that you measure on; give --before, with the day of --after of your "
            "benchmark, or --without and the folder of that benchmark"
        )
    digests = {uri: manifest.load(uri).digest for uri in [*config.corpora, *config.without]}
    digests["sources"] = sources.fingerprint(config.sources)
    places = benchmarks.places(CorpusConfig(benchmarks=config.benchmarks))
    digests["benchmarks"] = benchmarks.fingerprint(places)
    return manifest.once(
        stage=STAGE,
        version=VERSION,
        key=manifest.key(STAGE, VERSION, config, digests),
        config=config,
        inputs=digests,
        output=output,
        body=lambda: _write(config, places, output),
    )


def _write(config: BenchmarkConfig, places: Sequence[str], output: str) -> Mapping[str, float]:
    counts = new_counts()
    repositories = list(sources.repositories(config.sources))
    candidates = _not_measured_on(config, repositories, counts)
    log.info("benchmark: %d possible holes in %d repositories", len(candidates), len(repositories))
    clean = _uncontaminated(config, candidates, places, storage.join(output, manifest.SCRATCH), counts)
    chosen = list(_chosen(config, clean, counts))
    if not chosen:
        raise InputError(_nothing(config, counts))
    hidden = _hidden(config, chosen, counts)
    rows = sorted((each.row for each in chosen if each.row["id"] not in hidden), key=lambda row: str(row["id"]))
    write_rows(split_file(output, config.split), rows)
    artifact.write_held_back(output, (_without_answer(config, each.row) for each in chosen if each.row["id"] in hidden))
    artifact.write_origins(output, map(_origin, chosen))
    report = benchmark_card.report(config, repositories, [each.row for each in chosen], hidden, counts)
    manifest.write_report(output, report)
    benchmark_card.write(output, report)
    return {"holes": float(len(rows)), "held_back": float(len(hidden))}


def _nothing(config: BenchmarkConfig, counts: Counts) -> str:
    left_out = ", ".join(f"{n} {reason}" for reason, n in counts["commits"].most_common(4) if n)
    return (
        f"no hole could be cut from commits since {config.after} (commits: {left_out or 'none'}); choose an earlier "
        "date with --after, or repositories with more history"
    )


def _not_measured_on(
    config: BenchmarkConfig, repositories: Sequence[Repository], counts: Counts
) -> list[CandidateHole]:
    """Return all candidates but those from commits that another benchmark is made of, which are counted."""
    taken = {row["commit"] for uri in config.without for row in artifact.read_origins(uri)}
    candidates = [each for repository in repositories for each in _candidates(config, repository, counts)]
    kept = [each for each in candidates if each.change.commit not in taken]
    counts["holes"]["in a commit of another benchmark"] += len(candidates) - len(kept)
    return kept


def _candidates(config: BenchmarkConfig, repository: Repository, counts: Counts) -> Iterator[CandidateHole]:
    tip = next((file.commit for file in repository.files if file.commit), "")
    if not tip:
        counts["repositories"]["unreadable"] += 1
        return
    seen = set[str]()
    span = (config.since, config.until)
    for change in changes(repository.root, tip, span=span, commits=config.commits, seed=config.seed, counts=counts):
        lines = _hash(change.path, change.added)
        if lines in seen:  # a commit that was also applied to another branch
            counts["places"]["duplicate"] += 1
            continue
        seen.add(lines)
        for hole in holes(change, config.seed):
            name = _hash(repository.name, change.commit, change.path, hole.start, hole.end)[:20]
            yield CandidateHole(name=name, repo=repository.name, root=repository.root, change=change, hole=hole)


def _uncontaminated(
    config: BenchmarkConfig, candidates: Sequence[CandidateHole], places: Sequence[str], scratch: str, counts: Counts
) -> list[CandidateHole]:
    """Return the candidates that neither a corpus nor a published benchmark has, and count the others."""
    known = contamination.known_to(config.corpora, {each.name: contamination.runs(*each.parts) for each in candidates})
    counts["holes"]["answer in a corpus"] += len(known)
    rest = [each for each in candidates if each.name not in known]
    if not places:
        return rest
    table = storage.join(scratch, "benchmarks.parquet")
    benchmarks.prepare(places, table)
    published = benchmarks.load(table)
    overlapping = {id(each.change): bool(published.overlap(each.change.text.encode(errors="replace"))) for each in rest}
    kept = [each for each in rest if not overlapping[id(each.change)]]
    counts["holes"]["in a published benchmark"] += len(rest) - len(kept)
    return kept


def _chosen(config: BenchmarkConfig, candidates: Sequence[CandidateHole], counts: Counts) -> Iterator[ChosenHole]:
    """Yield holes with their context until there are enough, balanced by language, unit, length and repository."""
    indexes: dict[str, ParentIndex] = {}
    pools = _pools(config, candidates)
    taken: Counter[tuple[str, ...]] = Counter()
    used = set[tuple[str, str, str]]()
    number = 0
    while pools and number < config.holes:
        group = min(pools, key=lambda group: (taken[group[:1]], taken[group[:2]], taken[group], group))
        candidate = pools[group].pop()
        if not pools[group]:
            del pools[group]
        place = (candidate.repo, candidate.change.commit, candidate.change.path)
        if place in used:
            counts["holes"]["another hole of the same change"] += 1
            continue
        if candidate.root not in indexes:
            indexes[candidate.root] = ParentIndex(candidate.root)
        row = _row(config, candidate, indexes[candidate.root])
        if isinstance(row, str):
            counts["holes"][row] += 1
            continue
        used.add(place)
        taken.update((group[:1], group[:2], group))
        number += 1
        yield ChosenHole(row, candidate.change)
    counts["holes"]["not drawn"] += sum(map(len, pools.values()))


def _pools(
    config: BenchmarkConfig, candidates: Sequence[CandidateHole]
) -> dict[tuple[str, str, str], list[CandidateHole]]:
    """Return the candidates by group, the first to be drawn last, so that repositories take turns."""
    turns: Counter[tuple[tuple[str, str, str], str]] = Counter()
    pools: dict[tuple[str, str, str], list[tuple[int, str, CandidateHole]]] = defaultdict(list)
    for each in sorted(candidates, key=lambda each: _hash(config.seed, each.name)):
        turns[each.group, each.repo] += 1
        pools[each.group].append((turns[each.group, each.repo], _hash(config.seed, each.name), each))
    return {group: [each for *_, each in sorted(pool, reverse=True)] for group, pool in pools.items()}


def _row(config: BenchmarkConfig, candidate: CandidateHole, index: ParentIndex) -> dict[str, Any] | str:
    """Return a row of the examples' SCHEMA, or why the hole is refused."""
    change, hole = candidate.change, candidate.hole
    prefix, middle, suffix = candidate.parts
    around = _redacted(prefix, middle, suffix, change.language)
    if around is None:
        return "secret in the answer"
    request = FimRequest(path=change.path, prefix=around[0], suffix=around[1])
    try:
        before = index.at(change.parent)
    except UnreadableError:
        return "parent unreadable"
    with before.without(change.old_path):
        items = retrieve(before, request, strategy=EXAMPLES.evaluation_strategy, k=EXAMPLES.context_items)
    kept = within_chars(EXAMPLES.context_chars, items)
    return {
        "id": candidate.name,
        "repo": candidate.repo,
        "path": change.path,
        "language": change.language,
        "split": config.split,
        "prefix": request.prefix,
        "middle": middle,
        "suffix": request.suffix,
        "kind_start": hole.kind_start,
        "kind_end": hole.kind_end,
        "unit": hole.unit,
        "strategy": EXAMPLES.evaluation_strategy,
        "context": [vars(_clean(item)) for item in kept],
    }


def _clean(item: ContextItem) -> ContextItem:
    return replace(item, text=privacy.redact(item.text, "").text)


def _redacted(prefix: str, middle: str, suffix: str, language: str) -> tuple[str, str] | None:
    """Return prefix and suffix without secrets and personal data; None if some of it is in the middle."""
    whole = privacy.redact(prefix + middle + suffix, language)
    if not whole.places:
        return prefix, suffix
    before, after = privacy.redact(prefix, language), privacy.redact(suffix, language)
    outside = len(before.places) + len(after.places)
    return None if len(whole.places) > outside or middle not in whole.text else (before.text, after.text)


def _hidden(config: BenchmarkConfig, chosen: Sequence[ChosenHole], counts: Counts) -> set[str]:
    """Return the ids of the holes to hold back: those of some commits, unless another hole shows the answer."""
    if config.train:
        return set()
    drawn = [each for each in chosen if int(_hash(config.seed, each.change.commit)[:8], 16) < config.held_back * 2**32]
    hidden = set[str]()
    for each in drawn:
        others = [other.row for other in chosen if other.row["id"] != each.row["id"]]
        if _is_shown(each, others):
            counts["holes"]["not held back: another hole shows the answer"] += 1
        else:
            hidden.add(each.row["id"])
    return hidden


def _is_shown(hole: ChosenHole, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the answer can be read in another row, unless it was in its own prompt from the start."""
    middle = hole.row["middle"].strip()
    if sum(map(str.isalnum, middle)) < _MIN_SECRET or _shows(hole.row, middle):
        return False
    return any(_shows(row, middle) or middle in row["middle"] for row in rows if row["repo"] == hole.row["repo"])


def _shows(row: Mapping[str, Any], middle: str) -> bool:
    return any(middle in text for text in (row["prefix"], row["suffix"], *(item["text"] for item in row["context"])))


def _without_answer(config: BenchmarkConfig, row: Mapping[str, Any]) -> dict[str, Any]:
    salt = _hash(config.seed, row["id"])[:32]
    rest = {name: value for name, value in row.items() if name != "middle"}
    return {**rest, "salt": salt, "answer": artifact.answer_hash(row["middle"], salt)}


def _origin(chosen: ChosenHole) -> dict[str, str]:
    row, change = chosen
    where = {name: row[name] for name in ("id", "repo", "path")}
    return {**where, "commit": change.commit, "parent": change.parent, "date": change.date}


def _hash(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode(errors="surrogatepass")).hexdigest()
