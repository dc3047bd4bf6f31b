"""Experiments on the pairs of DPO: `dpo-languages` and `preference-sources`.

Each model is trained by DPO from the run's SFT model, with the same settings, on as many pairs; the first cell is the
SFT model itself. `dpo-languages` trains on pairs of all languages, and on those of one language. `preference-sources`
trains on the pairs from each source: samples that the rules or a judge compared, feedback, raters, history, hard
negatives.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from infill.config import DpoConfig, EvaluateConfig, PreferencesConfig
from infill.errors import InputError
from infill.experiments import experiment_run
from infill.experiments.experiment import Experiment
from infill.experiments.pair_choice import PairChoice, chosen, count_by
from infill.experiments.trained_models import QUALITY, FinishedRun, ModelCells, amount, trained
from infill.manifest import Manifest
from infill.stages import execute

LANGUAGES: Final = "dpo-languages"
SOURCES: Final = "preference-sources"
BASELINE: Final = "SFT"
QUESTIONS: Final = {
    LANGUAGES: "Does DPO on one language harm or help, against DPO on all languages with as many pairs?",
    SOURCES: "Which source of preferences makes the better model, with as many pairs of each?",
}
RULES: Final = "rules"
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DpoPairsConfig:
    name: Literal["dpo-languages", "preference-sources"]
    preferences: PreferencesConfig
    dpo: DpoConfig
    evaluate: EvaluateConfig
    language: str = ""
    """The one language of `dpo-languages`; empty: that with the most pairs."""
    least_pairs: int = 8
    """A source with fewer pairs is left out."""


def run(config: DpoPairsConfig, finished: FinishedRun, *, output: str) -> Manifest:
    """Build and train what is not there yet, write the experiment to the folder `output`; return its manifest.

    Raises InputError when the run has no finished examples or SFT model, or too few pairs to compare.
    """
    uris = {stage: finished.artifact(stage) for stage in ("examples", "sft")}
    inputs = {name: experiment_run.digest(uri) for name, uri in uris.items()}

    def experiment() -> Experiment:
        choices = _choices(config, _preferences(config, finished, uris))
        places = {cell: chosen(place, choice, finished.cells) for cell, (place, choice) in choices.items()}

        def train(cell: str) -> str:
            if cell == BASELINE:
                return uris["sft"]
            parts = {"preferences": places[cell], "model": uris["sft"]}
            return execute("dpo", config.dpo, parts, finished.cells, label=f"dpo-{cell}").uri

        names = [BASELINE, *choices]
        cells = ModelCells(config.evaluate, trained(names, train), uris["examples"])
        count = next(choice.count for _, choice in choices.values())
        how = f"All but {BASELINE} were trained by DPO from that model on {count} pairs for {amount(config.dpo.train)}."
        return Experiment(
            name=config.name,
            question=QUESTIONS[config.name],
            factor="pairs",
            cells=names,
            baseline=f"the {BASELINE} model",
            measures=QUALITY,
            holes=[hole["id"] for hole in cells.holes],
            measure=cells.measure,
            setting=cells.setting(BASELINE, how),
        )

    return experiment_run.run(experiment, config=config, inputs=inputs, output=output)


def _preferences(config: DpoPairsConfig, finished: FinishedRun, uris: dict[str, str]) -> list[str]:
    """Return the folders of the preferences: those of the settings, and for sources also those that the rules judge."""
    settings = [config.preferences]
    if config.name == SOURCES and config.preferences.judge != RULES:
        settings.append(replace(config.preferences, judge=RULES, judge_model=""))
    parts = {"examples": uris["examples"], "model": uris["sft"]}
    return [execute("preferences", each, parts, finished.cells).uri for each in settings]


def _choices(config: DpoPairsConfig, places: Sequence[str]) -> dict[str, tuple[str, PairChoice]]:
    """Return the preferences and the choice of each cell, as many pairs in each.

    Raises InputError when there are fewer than two cells.
    """
    seed = config.preferences.seed
    if config.name == LANGUAGES:
        counts = count_by(places[0], "language")
        language = config.language or max(counts, key=lambda name: counts[name], default="")
        count = counts[language]
        if not count or count == counts.total():
            known = ", ".join(f"{name} {number}" for name, number in counts.most_common()) or "none"
            raise InputError(
                f"the preferences need pairs in {language or 'a language'} and in others, they have: {known}"
            )
        one = PairChoice(count=count, language=language, seed=seed)
        return {"all languages": (places[0], PairChoice(count=count, seed=seed)), language: (places[0], one)}
    of_source: dict[str, tuple[str, int]] = {}
    for place in places:
        for source, count in count_by(place, "source").items():
            if count >= config.least_pairs and source not in of_source:
                of_source[source] = place, count
    if len(of_source) < 2:
        raise InputError(_too_few(config, Counter({source: count for source, (_, count) in of_source.items()})))
    least = min(count for _, count in of_source.values())
    return {
        source: (place, PairChoice(count=least, source=source, seed=seed)) for source, (place, _) in of_source.items()
    }


def _too_few(config: DpoPairsConfig, counts: Counter[str]) -> str:
    known = ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"
    return (
        f"the preferences need at least two sources with {config.least_pairs} pairs each, they have: {known}; set "
        "preferences.judge, preferences.feedback, preferences.history or preferences.hard_negatives"
    )
