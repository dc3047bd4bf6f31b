"""Figures of preferences for people: what pairs teach, whether they teach length, and how sure the judge is."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from infill.evaluate.agreement import concordance
from infill.preferences.judges import FACTORS, RULES

QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
RESAMPLES: Final = 1_000
OWN_WORDS: Final = "in the judge's own words"


def of_pairs(pairs: pa.Table) -> dict[str, Any]:
    """Return the pairs by reason, the distribution of chosen minus rejected length, and that of the margin."""
    rows = pairs.select(["kind", "chosen", "rejected", "reason", "score_chosen", "score_rejected"]).to_pylist()
    lengths = {kind: _lengths([row for row in rows if row["kind"] == kind]) for kind in sorted(_kinds(rows))}
    return {
        "reasons": Counter(reason for row in rows for reason in _reasons(row["reason"])),
        "length_bias": {"all": _lengths(rows), **lengths},
        "margin": _quantiles([row["score_chosen"] - row["score_rejected"] for row in rows]),
    }


def _kinds(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    return {row["kind"] for row in rows}


def _reasons(text: str) -> list[str]:
    """Return for which defects a completion is rejected, or the whole reason where it names none."""
    before, _, after = text.partition("rejected: ")
    if not after:
        return [before]
    parts = after.split(", ")
    return (
        parts
        if all(part in FACTORS or part.startswith(("farther", "made up", "too long")) for part in parts)
        else [OWN_WORDS]
    )


def _lengths(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean and the quantiles of chosen minus rejected length in characters, and how often it is shorter."""
    differences = [len(row["chosen"]) - len(row["rejected"]) for row in rows]
    shorter = float(np.mean([difference < 0 for difference in differences])) if differences else 0.0
    return {"pairs": len(rows), "chosen_is_shorter": shorter, **_quantiles(differences)}


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    points = np.quantile(values, QUANTILES)
    named = {f"p{round(100 * share):02d}": float(value) for share, value in zip(QUANTILES, points, strict=True)}
    return {"mean": float(np.mean(values)), **named}


def of_verdicts(verdicts: pa.Table) -> dict[str, Any]:
    """Return how a language model's verdicts agree with those of the rules, and with themselves in the other order.

    Empty without any of a language model.
    """
    holes: dict[str, list[dict[str, Any]]] = {}
    for row in verdicts.to_pylist():
        if row["judge"] != RULES:
            holes.setdefault(row["hole"], []).append(row)
    if not holes:
        return {}
    groups = [([row["score"] for row in rows], [row["rules"] for row in rows]) for rows in holes.values()]
    both = [rows for rows in holes.values() if all(len(row["orders"]) == 2 for row in rows)]
    orders = [([row["orders"][0] for row in rows], [row["orders"][1] for row in rows]) for rows in both]
    spreads = [abs(row["orders"][0] - row["orders"][1]) for rows in both for row in rows]
    return {
        "holes": len(holes),
        "holes_in_one_order_only": len(holes) - len(both),
        "agreement_with_rules": concordance(groups, resamples=RESAMPLES, seed=0),
        "agreement_of_orders": concordance(orders, resamples=RESAMPLES, seed=0),
        "difference_of_orders": _quantiles(spreads),
    }
