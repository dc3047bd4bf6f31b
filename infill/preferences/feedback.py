"""Pairs and holes from the feedback dataset: what users kept is better than what they were shown."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from infill.feedback import dataset
from infill.feedback.feedback_row import ACCEPTED, ITEM
from infill.metrics import edit_similarity
from infill.preferences.pairs import Pair

log: Final = logging.getLogger(__name__)

JUDGE: Final = "user"
REPO: Final = "feedback"
Row = Mapping[str, Any]


@dataclass(kw_only=True)
class FeedbackPairs:
    """Pairs and holes from the rows of a feedback dataset, and counts of the rows."""

    pairs: list[tuple[dict[str, Any], Pair]] = field(default_factory=list)
    """Holes without a middle, each with a pair."""
    holes: list[dict[str, Any]] = field(default_factory=list)
    """Holes whose middle is what the user accepted and left as it was: the model is sampled for them."""
    counts: Counter[str] = field(default_factory=Counter)


def learn(rows: Iterable[Row]) -> FeedbackPairs:
    """Return the pairs and holes in the rows of a feedback dataset.

    A suggestion that was edited or replaced gives a pair with what stood there in the end; one that stayed as it was is
    a hole with a true middle, and is better than each that was rejected at the same caret.
    """
    result = FeedbackPairs(counts=Counter(rows=0))
    stayed: dict[tuple[str, ...], Row] = {}
    passed: defaultdict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        result.counts["rows"] += 1
        kept = _kept(row)
        if kept is None:
            result.counts["rows that tell nothing"] += 1
        elif kept.strip() != row["shown"].strip():
            kind = "edited" if row["outcome"] == ACCEPTED else "typed"
            result.pairs.append((_hole(row), _pair(kind, kept, row)))
        elif row["outcome"] == ACCEPTED:
            stayed.setdefault(_caret(row), row)
        if row["outcome"] != ACCEPTED:
            passed[_caret(row)].append(row)
    for caret, row in stayed.items():
        result.holes.append(_hole(row) | {"middle": row["shown"]})
        others = {other["shown"]: other for other in passed[caret] if other["shown"].strip() != row["shown"].strip()}
        result.pairs += [(_hole(other), _pair("accepted", row["shown"], other)) for other in others.values()]
    result.counts.update(pair.kind for _, pair in result.pairs)
    return result


def _kept(row: Row) -> str | None:
    """Return what the user kept in the place of a suggestion; None if nothing, or if it is not known."""
    accepted = row["outcome"] == ACCEPTED
    final = row["shown"][: row["accepted_chars"]] if accepted and row["final"] is None else row["final"]
    return final if final and final.strip() else None


def _pair(kind: str, chosen: str, row: Row) -> Pair:
    return Pair(
        kind=kind,
        chosen=chosen,
        rejected=row["shown"],
        rejected_finished=row["finished"],
        reason=REASONS[kind],
        score_chosen=1.0,
        score_rejected=edit_similarity(row["shown"], chosen),
    )


REASONS: Final = {
    "edited": "the user accepted the suggestion and changed it",
    "typed": "the user passed over the suggestion and wrote this",
    "accepted": "the user accepted this at the same place",
}


def _caret(row: Row) -> tuple[str, ...]:
    return row["path"], row["prefix"], row["suffix"]


def _hole(row: Row) -> dict[str, Any]:
    context = [{name: kind(item[name]) for name, kind in ITEM.items()} for item in row["context"]]
    names = ("path", "language", "prefix", "suffix")
    return {"id": f"{REPO}-{row['id']}", "repo": REPO, **{name: row[name] for name in names}, "context": context}


def read(folder: str) -> FeedbackPairs:
    """Return what the dataset in `folder` gives; nothing for an empty name, or before users have given any feedback."""
    if not folder:
        return FeedbackPairs()
    result = learn(dataset.read(folder))
    if not result.counts["rows"]:
        log.warning("there is no feedback in %s yet: all pairs come from elsewhere", folder)
    elif not result.pairs and not result.holes:
        log.warning("the feedback in %s gives no pairs yet: no user has kept anything of it", folder)
    return result


def digests(folder: str) -> dict[str, str]:
    """Return what the stage reads besides its inputs, for its key."""
    return {"feedback": dataset.digest(folder)} if folder else {}
