"""Pairs from a rating set: what most raters chose is better, and their choice overrules that of a judge."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from infill.artifacts import rating
from infill.artifacts.rating import EQUAL, FIRST, OTHER, PAIRS, SECOND, SKIP
from infill.errors import InputError
from infill.preferences.pairs import Pair

JUDGE: Final = "raters"
KIND: Final = "rated"
_SHARED: Final = ("repo", "path", "language", "prefix", "suffix", "context")
Key = tuple[str, str, str, str, str]
"""Path, prefix, suffix, and the two texts of a pair."""


@dataclass(kw_only=True)
class RatedPairs:
    """Pairs that people chose, and those that they did not confirm."""

    pairs: list[tuple[dict[str, Any], Pair]] = field(default_factory=list)
    """Holes without a middle, each with a pair."""
    refused: set[Key] = field(default_factory=set)
    """Pairs whose chosen text most raters found worse, or equally good."""
    counts: Counter[str] = field(default_factory=Counter)

    def allow(self, row: Mapping[str, Any]) -> bool:
        """Return whether people leave a row of the preferences' SCHEMA as it is."""
        return (row["path"], row["prefix"], row["suffix"], row["chosen"], row["rejected"]) not in self.refused


def read(folder: str) -> RatedPairs:
    """Return what the rating set in `folder` gives; nothing for an empty name.

    Raises InputError if it compares evaluations, whose holes are held out.
    """
    return learn(rating.read_items(folder), rating.read_ratings(folder)) if folder else RatedPairs()


def learn(items: Sequence[Mapping[str, Any]], ratings: Iterable[Mapping[str, Any]]) -> RatedPairs:
    """Return the pairs of the items on which more than half of the raters agree. Raises InputError as `read`."""
    if any(item["origin"] != PAIRS for item in items):
        raise InputError(
            "preferences.ratings compares two evaluations, whose holes are held out and must not be trained on; name a "
            "rating set that infill rate build --preferences made"
        )
    votes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in ratings:
        votes[row["item"]][row["choice"]] += row["choice"] != SKIP
    result = RatedPairs()
    for item in items:
        counts = votes[item["id"]]
        choice, most = max(((name, counts[name]) for name in (FIRST, SECOND, EQUAL)), key=lambda each: each[1])
        verdict = choice if 2 * most > counts.total() else ""
        result.counts[_in_words(verdict, item["judged"]) if counts.total() else "not rated"] += 1
        if verdict in (FIRST, SECOND) and item[f"finished_{verdict}"]:  # DPO would teach to stop where it was cut off
            result.pairs.append(_pair(item, verdict, most, counts.total()))
        if verdict and verdict != item["judged"]:
            texts = (item["path"], item["prefix"], item["suffix"])
            result.refused.add((*texts, item[item["judged"]], item[OTHER[item["judged"]]]))
    return result


def _in_words(verdict: str, judged: str) -> str:
    if verdict in OTHER:
        return "confirmed" if verdict == judged else "reversed"
    return "equally good" if verdict == EQUAL else "without a majority"


def _pair(item: Mapping[str, Any], chosen: str, votes: int, raters: int) -> tuple[dict[str, Any], Pair]:
    rejected = OTHER[chosen]
    pair = Pair(
        kind=KIND,
        chosen=item[chosen],
        rejected=item[rejected],
        rejected_finished=item[f"finished_{rejected}"],
        reason=f"{votes} of {raters} raters chose it",
        score_chosen=votes / raters,
        score_rejected=1 - votes / raters,
    )
    return {"id": item["id"], **{name: item[name] for name in _SHARED}}, pair


def digests(folder: str) -> dict[str, str]:
    """Return what the stage reads besides its inputs, for its key."""
    return {"ratings": rating.digest(folder)} if folder else {}
