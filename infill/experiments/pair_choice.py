"""Pairs of one kind, or in one language, from finished preferences: preferences of their own, from which DPO trains."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from infill import manifest, storage
from infill.artifacts.preferences import read_pairs, write_pairs
from infill.errors import InputError
from infill.preferences.feedback import REASONS, REPO
from infill.preferences.hard_negatives import KINDS as HARD
from infill.preferences.rated import KIND as RATED

VERSION: Final = 2
"""Increased when other pairs are chosen."""
STAGE: Final = "preferences"
FOLDER: Final = "chosen-pairs"
"""Folder of a store, next to those of the stages."""


@dataclass(frozen=True, kw_only=True)
class PairChoice:
    """The pairs that are wanted."""

    count: int
    """Number of pairs, drawn by `seed`; all if there are fewer."""
    source: str = ""
    """Only pairs from this source, as `source_of` names it; empty: from all."""
    language: str = ""
    """Only pairs in this language; empty: in all."""
    seed: int = 0

    def wants(self, pair: Mapping[str, Any]) -> bool:
        """Return whether the pair may be chosen."""
        return (not self.source or source_of(pair) == self.source) and (
            not self.language or pair["language"] == self.language
        )


def source_of(pair: Mapping[str, Any]) -> str:
    """Return the source of a pair: the judge of its samples, or feedback, raters, history or hard negatives.

    At a place where a user kept a suggestion, samples against it are feedback, too.
    """
    kind = pair["kind"]
    if kind in REASONS or (pair["repo"] == REPO and kind not in HARD):
        return "feedback"
    if kind in HARD:
        return "hard negatives"
    return {RATED: "raters", "history": "history"}.get(kind) or ("rules" if pair["judge"] == "rules" else "judge")


def count_by(preferences: str, name: str) -> Counter[str]:
    """Return the number of pairs by `source` or `language`."""
    rows = read_pairs(preferences).select(["kind", "judge", "language", "repo"]).to_pylist()
    return Counter(source_of(row) if name == "source" else str(row["language"]) for row in rows)


def chosen(preferences: str, choice: PairChoice, store: str) -> str:
    """Write the chosen pairs as preferences into the store, unless they are there; return their folder.

    Raises InputError when none is chosen.
    """
    inputs = {STAGE: manifest.digest_of(preferences)}
    key = manifest.key(STAGE, VERSION, choice, inputs)
    output = storage.join(store, FOLDER, key)

    def body() -> dict[str, float]:
        pairs = read_pairs(preferences)
        rows = _draw([row for row in pairs.to_pylist() if choice.wants(row)], choice)
        if not rows:
            raise InputError(f"{preferences} has no pair for {choice}")
        write_pairs(output, pa.Table.from_pylist(rows, schema=pairs.schema))
        return {"pairs": float(len(rows))}

    return manifest.once(
        stage=STAGE, version=VERSION, key=key, config=choice, inputs=inputs, output=output, body=body
    ).uri


def _draw(rows: Sequence[Mapping[str, Any]], choice: PairChoice) -> list[Mapping[str, Any]]:
    """Return `count` of the rows in their order, the same ones for the same seed."""

    def lot(row: Mapping[str, Any]) -> str:
        return hashlib.sha256(f"{choice.seed}/{row['id']}".encode()).hexdigest()

    drawn = {row["id"] for row in sorted(rows, key=lot)[: choice.count]}
    return [row for row in rows if row["id"] in drawn]
