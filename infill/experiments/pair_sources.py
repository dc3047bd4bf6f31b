"""The sources of preferences, each with pairs of its own, and what is known of them.

A source is built as if it were the only one: ratings do not correct the pairs of the rules, and feedback and ratings
are not mixed with samples of other holes. Rules, history and hard negatives share one run of the stage.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from infill import manifest
from infill.artifacts.preferences import read_pairs
from infill.artifacts.rating import read_items, read_ratings
from infill.config import PreferencesConfig
from infill.errors import InputError
from infill.experiments.pair_choice import count_by
from infill.preferences import pair_report
from infill.preferences.judges import RULES
from infill.rating.rater_agreement import summary

HARD: Final = "hard negatives"
LEAST: Final = 8
"""Pairs that a source must have where nothing else is said."""
Figure = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class PairSource:
    """Preferences that have the pairs of a source, perhaps with those of others."""

    name: str
    """The source, as `pair_choice.source_of` names it."""
    preferences: str
    """Their folder."""
    pairs: int
    """Number of pairs of the source."""


def settings(config: PreferencesConfig) -> dict[str, PreferencesConfig]:
    """Return the settings that give the pairs of each source that `config` names, the cheapest first."""
    ruled = replace(config, judge=RULES, judge_model="", judge_tokens=0, judge_cost=0.0, feedback="", ratings="")
    alone = replace(ruled, history="", hard_negatives=0)
    judged = replace(config, feedback="", ratings="", history="", hard_negatives=0)
    named = {
        "raters": replace(alone, holes=0, ratings=config.ratings) if config.ratings else None,
        "feedback": replace(alone, holes=0, feedback=config.feedback) if config.feedback else None,
        "rules": ruled,
        "history": ruled if config.history else None,
        HARD: ruled if config.hard_negatives else None,
        "judge": judged if config.judge != RULES else None,
    }
    return {name: each for name, each in named.items() if each is not None}


NAMED_BY: Final = {
    "raters": "preferences.ratings",
    "feedback": "preferences.feedback",
    "rules": "preferences.holes",
    "history": "preferences.history",
    HARD: "preferences.hard_negatives",
    "judge": "preferences.judge",
}
"""The setting that gives a source its pairs."""


def collect(config: PreferencesConfig, build: Callable[[PreferencesConfig], str], least: int) -> list[PairSource]:
    """Return the sources that `config` names; `build` returns the folder of preferences, and makes what is missing.

    Raises InputError for a source with fewer than `least` pairs, before the next one is built, and for a single source.
    """
    wanted = settings(config)
    if len(wanted) < 2:
        others = ", ".join(name for source, name in NAMED_BY.items() if source != "rules")
        raise InputError(f"the settings name one source of pairs, the rules; give at least one more: {others}")
    sources = []
    for name, each in wanted.items():
        place = build(each)
        count = count_by(place, "source")[name]
        if count < least:
            raise InputError(
                f"the source {name} gives {count} pairs, but {least} are needed; give it more ({NAMED_BY[name]}), "
                "name a smaller number with --pairs, or leave it out"
            )
        sources.append(PairSource(name=name, preferences=place, pairs=count))
    return sources


def about(sources: Sequence[PairSource], chosen: Mapping[str, str], config: PreferencesConfig) -> Iterator[str]:
    """Yield lines of a report: a table of the pairs of each source, in the folders `chosen`, and how judges agree."""
    yield from (
        "",
        "| source | pairs there are | kinds of those used | margin, mean | chosen is shorter |",
        "| --- " * 5 + "|",
    )
    for source in sources:
        pairs = read_pairs(chosen[source.name])
        report = pair_report.of_pairs(pairs)
        kinds = ", ".join(f"{kind} {each['pairs']}" for kind, each in report["length_bias"].items() if kind != "all")
        shorter, margin = report["length_bias"]["all"]["chosen_is_shorter"], report["margin"]["mean"]
        yield f"| {source.name} | {source.pairs} | {kinds} | {margin:.2f} | {shorter:.2f} |"
    yield ""
    for source in sources:
        if source.name == "judge":
            yield _of_judge(manifest.read_report(source.preferences))
        elif source.name == "raters":
            yield _of_raters(summary(read_items(config.ratings), read_ratings(config.ratings)))
        elif source.name == "feedback":
            counts = manifest.read_report(source.preferences)["feedback"]
            yield f"Feedback: {', '.join(f'{name} {number}' for name, number in counts.items())}."


def _of_judge(report: Mapping[str, Any]) -> str:
    agreement = report["judge_agreement"]
    rules, orders = (_figure(agreement[name]) for name in ("agreement_with_rules", "agreement_of_orders"))
    return (
        f"The judge {report['judge_model'] or report['judge']} orders two candidates as the rules do in {rules}, and "
        f"alike in both orders in {orders}; 0.5 is chance."
    )


def _of_raters(result: Mapping[str, Any]) -> str:
    between, judge = (result[name] for name in ("between_raters", "with_judge"))
    return (
        f"{len(result['raters'])} raters agree with each other in {_figure(between['agree'])} (Krippendorff's alpha "
        f"{_figure(between['alpha'])}), and with the judge of their pairs in {_figure(judge['agree'])}."
    )


def _figure(figure: Figure) -> str:
    value, low, high = (figure[name] for name in ("value", "low", "high"))
    number = figure.get("n", figure.get("pairs"))
    count = "" if number is None else f" of {number:.0f}"
    return "an unknown share" if value is None else f"{value:.2f} [{low:.2f}, {high:.2f}]{count}"
