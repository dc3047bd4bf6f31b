"""The gate: it chooses the winner of the trained models and decides whether it may replace the champion.

It is a pure function of evaluation records, so the same records give the same decision. It fails closed: any value that
is missing, not finite, or measured on another model or other holes stops the release, and the reason names it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from infill.config import RegisterConfig
from infill.evaluate.statistics import Comparison, compare, p_values
from infill.release.languages import LanguageComparison, compare_languages, sentences
from infill.stages.table import MODELS


@dataclass(frozen=True, kw_only=True)
class Record:
    """The evaluation of one model."""

    model_uri: str
    model_digest: str
    benchmark_digest: str
    """Digest of the holes and the token budgets."""
    metrics: Mapping[str, Mapping[str, float]]
    """`value`, `low` and `high` of each metric."""
    scores: Mapping[str, float]
    """Value of the deciding metric for each hole, by its id."""
    languages: Mapping[str, str] = field(default_factory=dict)
    """Language of each hole, by its id."""
    latency: Mapping[str, Any] | None = None
    """Time of single completions, as `evaluate.latency.measure` returns it; None if it was not measured."""


@dataclass(frozen=True, kw_only=True)
class GateDecision:
    winner: str
    passed: bool
    reason: str
    """Sentences with the numbers that decided."""
    comparison: Comparison | None = None
    languages: Mapping[str, LanguageComparison] = field(default_factory=dict)
    """The winner against the champion in each language that was compared."""


def decide(
    config: RegisterConfig,
    candidates: Mapping[str, Record],
    champion: Record | None,
    *,
    digests: Mapping[str, str],
    champion_digest: str = "",
    objections: tuple[str, ...] = (),
) -> GateDecision:
    """Choose the winner among `candidates` (base, sft, dpo) and decide whether to release it.

    `digests` are the models' digests in their own manifests, `champion_digest` that of the registered champion ("" if
    there is none: then only floors and ceilings decide). `objections` are sentences that stop the release before any
    comparison. With a champion, the release is refused if the paired 95 % interval of winner minus champion is wholly
    below minus `config.max_regression`, or if a language lost more than that and chance does not explain it.
    """
    problems = [*objections, *_problems(config, candidates, digests)]
    winner = _winner(config.metric, candidates)
    if champion_digest:
        problems += _champion_problems(config, candidates, champion, champion_digest)
    if problems:
        return GateDecision(winner=winner, passed=False, reason=" ".join(problems))
    reasons = [_why_winner(config.metric, winner, candidates)]
    shortfalls = _shortfalls(config, winner, candidates[winner])
    bounds = shortfalls or [_bounds_held(config, timed=_decides_latency(config, candidates[winner]))]
    bounds += _latency_left_open(config, candidates[winner])
    if not champion_digest or champion is None:
        reasons.append("There is no champion yet, so the floors and ceilings alone decide.")
        return GateDecision(winner=winner, passed=not shortfalls, reason=" ".join(reasons + bounds))
    comparison = _compare(config, candidates[winner], champion)
    worse = comparison.high < -config.max_regression
    languages = _compare_languages(config, candidates[winner], champion)
    reasons.append(_versus(config, comparison, worse=worse))
    reasons += sentences(config.metric, languages, config.language_holes)
    return GateDecision(
        winner=winner,
        passed=not (worse or shortfalls or any(each.worse for each in languages.values())),
        reason=" ".join(reasons + bounds),
        comparison=comparison,
        languages=languages,
    )


def _value(record: Record, metric: str) -> float:
    """Return the metric's value; NaN if the record does not have it."""
    return float(record.metrics.get(metric, {}).get("value", math.nan))


def _winner(metric: str, candidates: Mapping[str, Record]) -> str:
    """Return the candidate with the highest value, the earliest of equals; `base` if nothing was measured."""
    measured = [name for name in MODELS if name in candidates and math.isfinite(_value(candidates[name], metric))]
    return max(measured, key=lambda name: _value(candidates[name], metric), default=MODELS[0])


def _problems(config: RegisterConfig, candidates: Mapping[str, Record], digests: Mapping[str, str]) -> list[str]:
    """Return why the candidates cannot be judged; empty if they can."""
    missing = [name for name in MODELS if name not in candidates]
    if missing:
        return [f"There is no evaluation of {' and '.join(missing)}; evaluate all of {', '.join(MODELS)}."]
    problems: list[str] = []
    for name in MODELS:
        record, digest = candidates[name], digests.get(name, "")
        if not digest or record.model_digest != digest:
            problems.append(
                f"The evaluation of {name} is of model {_short(record.model_digest)}, but the {name} model's manifest"
                f" says {_short(digest)}; evaluate it again."
            )
        problems += _record_problems(config, name, record)
    return problems + _benchmark_problems(candidates)


def _record_problems(config: RegisterConfig, name: str, record: Record) -> list[str]:
    problems = [
        f"The evaluation of {name} has no finite {metric}."
        for metric in dict.fromkeys([config.metric, *(name for name, _ in (*config.floors, *config.ceilings))])
        if not math.isfinite(_value(record, metric))
    ]
    undefined = sum(not math.isfinite(score) for score in record.scores.values())
    if undefined:
        problems.append(
            f"The evaluation of {name} has no finite {config.metric} for {undefined} of {len(record.scores)} holes."
        )
    if not record.scores:
        problems.append(f"The evaluation of {name} covers no holes.")
    return problems


def _benchmark_problems(candidates: Mapping[str, Record]) -> list[str]:
    first = candidates[MODELS[0]]
    return [
        f"{name} was evaluated on benchmark {_short(candidates[name].benchmark_digest)} with"
        f" {len(candidates[name].scores)} holes, {MODELS[0]} on {_short(first.benchmark_digest)} with"
        f" {len(first.scores)}; evaluate them on the same holes."
        for name in MODELS
        if not _same_holes(candidates[name], first)
    ]


def _champion_problems(
    config: RegisterConfig, candidates: Mapping[str, Record], champion: Record | None, digest: str
) -> list[str]:
    if champion is None:
        return [f"The champion {_short(digest)} has no evaluation to compare with."]
    problems = _record_problems(config, "the champion", champion)
    if champion.model_digest != digest:
        problems.append(
            f"The champion's evaluation is of model {_short(champion.model_digest)}, but the registry says"
            f" {_short(digest)}."
        )
    if MODELS[0] in candidates and not _same_holes(champion, candidates[MODELS[0]]):
        problems.append(
            f"The champion was evaluated on benchmark {_short(champion.benchmark_digest)} with"
            f" {len(champion.scores)} holes, the candidates on"
            f" {_short(candidates[MODELS[0]].benchmark_digest)} with {len(candidates[MODELS[0]].scores)}."
        )
    return problems


def _same_holes(one: Record, other: Record) -> bool:
    return one.benchmark_digest == other.benchmark_digest != "" and one.scores.keys() == other.scores.keys()


def _compare(config: RegisterConfig, winner: Record, champion: Record) -> Comparison:
    holes = sorted(winner.scores)
    return compare(
        config.metric,
        [winner.scores[hole] for hole in holes],
        [champion.scores[hole] for hole in holes],
        resamples=config.bootstrap,
        seed=config.seed,
    )


def _compare_languages(config: RegisterConfig, winner: Record, champion: Record) -> dict[str, LanguageComparison]:
    return compare_languages(
        config.metric,
        winner.languages,
        winner.scores,
        champion.scores,
        minimum=config.language_holes,
        tolerated=config.max_regression,
        resamples=config.bootstrap,
        seed=config.seed,
    )


def _shortfalls(config: RegisterConfig, winner: str, record: Record) -> list[str]:
    """Return a sentence for each floor and ceiling that the winner violates."""
    low = [
        f"The floor of {metric} is {floor:.4f}, {winner} reaches only {_value(record, metric):.4f}."
        for metric, floor in config.floors
        if not _value(record, metric) >= floor
    ]
    high = [
        f"The ceiling of {metric} is {ceiling:.4f}, {winner} has {_value(record, metric):.4f}."
        for metric, ceiling in config.ceilings
        if not _value(record, metric) <= ceiling
    ]
    return low + high + _too_slow(config, winner, record)


def _too_slow(config: RegisterConfig, winner: str, record: Record) -> list[str]:
    """Return a sentence if the winner's completions take too long, or nobody measured them."""
    if not config.max_latency_ms:
        return []
    if record.latency is None:
        return [f"The time of a completion of {winner} was not measured; set evaluate.latency_holes."]
    if not _decides_latency(config, record) or record.latency["p90_ms"] <= config.max_latency_ms:
        return []
    return [
        f"Nine of ten completions of {winner} take up to {record.latency['p90_ms']:.0f} ms"
        f" ({record.latency['engine']} on {record.latency['machine']}), the maximum is {config.max_latency_ms:.0f} ms."
    ]


def _decides_latency(config: RegisterConfig, record: Record) -> bool:
    """Return whether there is a limit that holds on the machine of the measurement."""
    return (
        bool(config.max_latency_ms)
        and record.latency is not None
        and config.latency_machine in {"", record.latency["machine"]}
    )


def _latency_left_open(config: RegisterConfig, record: Record) -> list[str]:
    """Return a sentence if the limit of the latency does not decide, since it was measured on another machine."""
    if not config.max_latency_ms or record.latency is None or _decides_latency(config, record):
        return []
    return [
        f"The time of a completion was measured on {record.latency['machine']}, not on {config.latency_machine}, so its"
        " maximum does not decide."
    ]


def _bounds_held(config: RegisterConfig, *, timed: bool) -> str:
    bounds = [f"{metric} at least {floor:.4f}" for metric, floor in config.floors]
    bounds += [f"{metric} at most {ceiling:.4f}" for metric, ceiling in config.ceilings]
    bounds += [f"completions in at most {config.max_latency_ms:.0f} ms"] if timed else []
    return f"All bounds are held ({', '.join(bounds)})." if bounds else "No floors are set."


def _why_winner(metric: str, winner: str, candidates: Mapping[str, Record]) -> str:
    values = ", ".join(f"{name} {_value(candidates[name], metric):.4f}" for name in MODELS)
    best = _value(candidates[winner], metric)
    tied = [name for name in MODELS if name != winner and _value(candidates[name], metric) == best]
    if tied:
        return f"{winner} ties with {' and '.join(tied)} in {metric} ({values}), and the earliest wins."
    return f"{winner} has the highest {metric} ({values})."


def _versus(config: RegisterConfig, comparison: Comparison, *, worse: bool) -> str:
    interval = f"{comparison.value:+.4f} (95 % interval {comparison.low:+.4f} to {comparison.high:+.4f})"
    verdict = (
        f"the interval lies wholly below the allowed {0 - config.max_regression:.4f}, so it is worse than the champion"
        if worse
        else f"the interval does not lie wholly below the allowed {0 - config.max_regression:.4f}"
    )
    return (
        f"Against the champion, {config.metric} changes by {interval} on the same {comparison.holes} holes"
        f" ({p_values(comparison)}): {verdict}."
    )


def _short(digest: str) -> str:
    return digest[:12] or "(none)"


def as_json(decision: GateDecision) -> dict[str, Any]:
    """Return the decision's comparisons as JSON values, for decision.json."""
    return {
        "comparison": None if decision.comparison is None else asdict(decision.comparison),
        "languages": {language: asdict(each) for language, each in decision.languages.items()},
    }
