"""Build a rating set: pairs of the preferences, or the completions of two models in the same holes."""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from infill import manifest
from infill.artifacts import rating as artifact
from infill.artifacts.evaluation import read_record, read_results
from infill.artifacts.examples import read_holes
from infill.artifacts.preferences import read_pairs
from infill.config import PreferencesConfig
from infill.errors import InputError
from infill.manifest import Manifest
from infill.preferences.candidates import Candidate
from infill.preferences.judges import rules

VERSION: Final = 1
MARGIN: Final = PreferencesConfig.min_margin
"""Minimum difference of two scores by the rules for one completion to count as the better."""
_SHARED: Final = ("repo", "path", "language", "prefix", "suffix", "context")


@dataclass(frozen=True, kw_only=True)
class RatingConfig:
    items: int = 100
    """Number of items: the first in the order of a hash."""
    seed: int = 0
    """Seed of the choice of items, and of which completion is on the left."""


def of_pairs(config: RatingConfig, preferences: str, output: str) -> Manifest:
    """Write a rating set of pairs of the artifact `preferences` to the folder `output`; return its manifest.

    Raises InputError if there are no pairs.
    """
    source = _load(preferences, "preferences")

    def rows() -> Iterator[dict[str, Any]]:
        for pair in read_pairs(source.uri).to_pylist():
            # Drawn too: agreement with a judge that always says the same says nothing beyond chance.
            chosen = left_of(config.seed, "", pair["id"])
            rejected = artifact.OTHER[chosen]
            yield {
                "id": pair["id"],
                **{name: pair[name] for name in _SHARED},
                chosen: pair["chosen"],
                rejected: pair["rejected"],
                "origin": artifact.PAIRS,
                "judge": pair["judge"],
                "judged": chosen,
                f"finished_{chosen}": True,
                f"finished_{rejected}": pair["rejected_finished"],
                f"score_{chosen}": pair["score_chosen"],
                f"score_{rejected}": pair["score_rejected"],
            }

    return _build(config, {"preferences": source}, rows, output)


def of_evaluations(config: RatingConfig, examples: str, evaluations: Sequence[str], output: str) -> Manifest:
    """Write a rating set of the completions of two evaluations of the holes in `examples`; return its manifest.

    Holes that both models completed alike are left out. Raises InputError if the evaluations are of other holes or
    budgets, or no completion differs.
    """
    holes = manifest.load(examples)
    first, second = (_load(uri, "evaluate") for uri in evaluations)
    if read_record(first.uri)["benchmark_digest"] != read_record(second.uri)["benchmark_digest"]:
        raise InputError(
            f"{first.uri} and {second.uri} are evaluations of different holes or budgets; evaluate both models alike"
        )

    def rows() -> Iterator[dict[str, Any]]:
        columns = ["id", "output", "eot_rate"]
        results = [{row["id"]: row for row in read_results(each.uri, columns).to_pylist()} for each in (first, second)]
        for hole in read_holes(holes.uri, "test", sys.maxsize).to_pylist():
            if all(hole["id"] in rows for rows in results):
                yield _compared(hole, *(rows[hole["id"]] for rows in results))

    return _build(config, {"examples": holes, "first": first, "second": second}, rows, output)


def _compared(hole: Mapping[str, Any], first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the item of a hole and two rows of results, with the rules' verdict."""
    candidates = [
        Candidate(text=row["output"], finished=row["eot_rate"] > 0, temperature=0.0) for row in (first, second)
    ]
    one, other = (verdict.score for verdict in rules(hole, candidates))
    better = artifact.FIRST if one > other else artifact.SECOND
    return {
        "id": hole["id"],
        **{name: hole[name] for name in _SHARED},
        artifact.FIRST: candidates[0].text,
        artifact.SECOND: candidates[1].text,
        "origin": artifact.EVALUATIONS,
        "judge": "rules",
        "judged": better if abs(one - other) >= MARGIN else artifact.EQUAL,
        "finished_first": candidates[0].finished,
        "finished_second": candidates[1].finished,
        "score_first": one,
        "score_second": other,
    }


def _load(uri: str, stage: str) -> Manifest:
    loaded = manifest.load(uri)
    if loaded.stage != stage:
        raise InputError(f"{uri} holds the result of the stage {loaded.stage}; name one of the stage {stage}")
    return loaded


def _build(config: RatingConfig, inputs: Mapping[str, Manifest], rows: Any, output: str) -> Manifest:
    digests = {name: each.digest for name, each in inputs.items()}

    def body() -> Mapping[str, float]:
        all_rows = list(rows())
        different = [row for row in all_rows if row[artifact.FIRST].strip() != row[artifact.SECOND].strip()]
        chosen = sorted(different, key=lambda row: _hash(config.seed, row["id"]))[: config.items]
        if not chosen:
            raise InputError(f"there is nothing to compare: in {len(all_rows)} places no completion differs")
        artifact.write_items(output, pa.Table.from_pylist(chosen, artifact.ITEMS))
        manifest.write_report(output, {"items": len(chosen), "places": len(all_rows), "different": len(different)})
        return {"items": float(len(chosen))}

    return manifest.once(
        stage=artifact.STAGE,
        version=VERSION,
        key=manifest.key(artifact.STAGE, VERSION, config, digests),
        config=config,
        inputs=digests,
        output=output,
        body=body,
    )


def left_of(seed: int, rater: str, item: str) -> str:
    """Return which completion a rater sees on the left: FIRST or SECOND, by a hash."""
    return artifact.FIRST if int(_hash(seed, rater, item)[:8], 16) % 2 else artifact.SECOND


def _hash(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode(errors="surrogatepass")).hexdigest()
