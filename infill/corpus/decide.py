"""What is decided over all shards: which candidates are copies, and which split each document belongs to.

It reads the candidates' columns without the text, one shard after the other and several times, so its memory grows
with the number of distinct texts (one hash each) and not with their rows.
"""

import logging
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from infill import file_kinds, storage
from infill.config import CorpusConfig
from infill.corpus import dedup, shards, splits
from infill.corpus.shards import Verdict

Row = dict[str, Any]
COLUMNS: Final = ("repo", "path", "language", "licence", "sha256", "bytes")
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Candidates are counted over all shards, in corpus order."""

    copies: Mapping[int, int]
    """Copy -> the candidate that is kept in its place."""
    names: Mapping[int, str]
    """Name of each candidate that has copies."""
    unit: str
    """What is split: "repository", or "file" when there are fewer repositories with code than splits."""
    split_of: Mapping[str, str]
    """Repository (or file) -> split."""

    def split(self, row: Row) -> str:
        return self.split_of[_unit(row, self.unit)]


def decide(scratch: str, count: int, config: CorpusConfig) -> Decision:
    """Copies and splits of the candidates in `count` shards below `scratch`."""
    copies = dedup.exact_copies(row["copy_digest"] for row in _rows(scratch, count, ["copy_digest"]))
    wanted = set(copies.values())
    rows = enumerate(_rows(scratch, count, ["repo", "path"]))
    names = {position: _name(row) for position, row in rows if position in wanted}
    least = 1 + (config.validation_share > 0) + (config.test_share > 0)
    unit = "repository"
    code = _code(scratch, count, copies, unit)
    if sum(size > 0 for size in code.values()) < least:
        log.warning("corpus: fewer than %d repositories with code: the splits are by file, not by repository", least)
        unit = "file"
        code = _code(scratch, count, copies, unit)
    split_of = splits.assign(
        code, validation_share=config.validation_share, test_share=config.test_share, seed=config.seed
    )
    return Decision(copies=copies, names=names, unit=unit, split_of=split_of)


def _code(scratch: str, count: int, copies: Container[int], unit: str) -> dict[str, int]:
    """Repository (or file) -> its bytes of code, copies not counted."""
    sizes: dict[str, int] = {}
    for position, row in enumerate(_rows(scratch, count, ["repo", "path", "language", "bytes"])):
        if position not in copies:
            name = _unit(row, unit)
            sizes[name] = sizes.get(name, 0) + (row["bytes"] if row["language"] in file_kinds.CODE else 0)
    return sizes


def verdicts(scratch: str, count: int, decision: Decision) -> Iterator[Verdict]:
    """What `shards.finish` has to know about each shard, in order."""
    first = 0
    for number in range(count):
        rows = list(_shard(scratch, number, ["repo", "path"]))
        copies = {row: decision.copies[first + row] for row in range(len(rows)) if first + row in decision.copies}
        yield Verdict(
            number=number,
            splits=tuple("" if place in copies else decision.split(row) for place, row in enumerate(rows)),
            details={place: decision.names[kept] for place, kept in copies.items()},
        )
        first += len(rows)


def kept(scratch: str, count: int, decision: Decision) -> Iterator[Row]:
    """The documents without their text: repo, path, language, licence, sha256, bytes, split."""
    for position, row in enumerate(_rows(scratch, count, COLUMNS)):
        if position not in decision.copies:
            yield row | {"split": decision.split(row)}


def removed(scratch: str, count: int, decision: Decision) -> Iterator[Row]:
    """The removed files: repo, bytes, reason; those that a rule rejected, then the copies."""
    for number in range(count):
        yield from storage.read_table(shards.rejected_uri(scratch, number), ["repo", "bytes", "reason"]).to_pylist()
    for position, row in enumerate(_rows(scratch, count, ["repo", "bytes"])):
        if position in decision.copies:
            yield row | {"reason": "duplicate"}


def _rows(scratch: str, count: int, columns: Sequence[str]) -> Iterator[Row]:
    for number in range(count):
        yield from _shard(scratch, number, columns)


def _shard(scratch: str, number: int, columns: Sequence[str]) -> Iterator[Row]:
    yield from storage.read_table(shards.candidates_uri(scratch, number), columns).to_pylist()


def _unit(row: Row, unit: str) -> str:
    return str(row["repo"]) if unit == "repository" else _name(row)


def _name(row: Row) -> str:
    return f"{row['repo']}/{row['path']}"
