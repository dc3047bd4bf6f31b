"""Experiments on DPO: `dpo-languages`, `preference-sources` and `dpo-objectives`.

Each model is trained by DPO from the run's SFT model on as many pairs; the first cell is the SFT model itself.
`dpo-languages` trains on pairs of all languages, and on those of one language. `preference-sources` trains on the pairs
from each source: samples that the rules or a judge compared, feedback, raters, history, hard negatives.
`dpo-objectives` trains on the same pairs with each variant of the loss.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

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
OBJECTIVES: Final = "dpo-objectives"
BASELINE: Final = "SFT"
QUESTIONS: Final = {
    LANGUAGES: "Does DPO on one language harm or help, against DPO on all languages with as many pairs?",
    SOURCES: "Which source of preferences makes the better model, with as many pairs of each?",
    OBJECTIVES: "Which variant of DPO makes the better model, on the same pairs?",
}
FACTORS: Final = {LANGUAGES: "pairs", SOURCES: "pairs", OBJECTIVES: "objective"}
VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "DPO": {},
    "DPO and likelihood": {"sft_weight": 1.0},
    "DPO per token": {"length_normalised": True, "beta": 5.0},
}
"""Objectives by name, with the settings of the papers that `DpoConfig` names; others stay those of plain DPO."""
RULES: Final = "rules"
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DpoModelsConfig:
    name: Literal["dpo-languages", "preference-sources", "dpo-objectives"]
    preferences: PreferencesConfig
    dpo: DpoConfig
    evaluate: EvaluateConfig
    language: str = ""
    """The one language of `dpo-languages`; empty: that with the most pairs."""
    least_pairs: int = 8
    """A source with fewer pairs is left out."""


def run(config: DpoModelsConfig, finished: FinishedRun, *, output: str) -> Manifest:
    """Build and train what is not there yet, write the experiment to the folder `output`; return its manifest.

    Raises InputError when the run has no finished examples or SFT model, or too few pairs to compare.
    """
    uris = {stage: finished.artifact(stage) for stage in ("examples", "sft")}
    inputs = {name: experiment_run.digest(uri) for name, uri in uris.items()}

    def experiment() -> Experiment:
        trainings = _trainings(config, _preferences(config, finished, uris))

        def train(cell: str) -> str:
            if cell == BASELINE:
                return uris["sft"]
            training = trainings[cell]
            pairs = chosen(training.preferences, training.pairs, finished.cells)
            parts = {"preferences": pairs, "model": uris["sft"]}
            return execute("dpo", training.dpo, parts, finished.cells, label=f"dpo-{cell}").uri

        names = [BASELINE, *trainings]
        cells = ModelCells(config.evaluate, trained(names, train), uris["examples"])
        count = next(training.pairs.count for training in trainings.values())
        how = f"All but {BASELINE} were trained by DPO from that model on {count} pairs for {amount(config.dpo.train)}."
        return Experiment(
            name=config.name,
            question=QUESTIONS[config.name],
            factor=FACTORS[config.name],
            cells=names,
            baseline=f"the {BASELINE} model",
            measures=QUALITY,
            holes=[hole["id"] for hole in cells.holes],
            measure=cells.measure,
            setting=cells.setting(BASELINE, how),
        )

    return experiment_run.run(experiment, config=config, inputs=inputs, output=output)


def _preferences(config: DpoModelsConfig, finished: FinishedRun, uris: dict[str, str]) -> list[str]:
    """Return the folders of the preferences: those of the settings, and for sources also those that the rules judge."""
    settings = [config.preferences]
    if config.name == SOURCES and config.preferences.judge != RULES:
        settings.append(replace(config.preferences, judge=RULES, judge_model=""))
    parts = {"examples": uris["examples"], "model": uris["sft"]}
    return [execute("preferences", each, parts, finished.cells).uri for each in settings]


@dataclass(frozen=True, kw_only=True)
class _Training:
    """The pairs and the settings of one model."""

    preferences: str
    pairs: PairChoice
    dpo: DpoConfig


def _trainings(config: DpoModelsConfig, places: Sequence[str]) -> dict[str, _Training]:
    """Return the training of each cell but the first, all on as many pairs, from the preferences at `places`.

    Raises InputError when there are too few pairs to compare.
    """
    if config.name == OBJECTIVES:
        count = count_by(places[0], "source").total()
        if not count:
            raise InputError(f"the preferences in {places[0]} have no pairs; raise preferences.holes")
        pairs = PairChoice(count=count, seed=config.preferences.seed)
        plain = replace(config.dpo, sft_weight=0.0, length_normalised=False)
        return {
            name: _Training(preferences=places[0], pairs=pairs, dpo=replace(plain, **settings))
            for name, settings in VARIANTS.items()
        }
    choices = _by_language(config, places[0]) if config.name == LANGUAGES else _by_source(config, places)
    return {name: _Training(preferences=place, pairs=pairs, dpo=config.dpo) for name, (place, pairs) in choices.items()}


def _by_language(config: DpoModelsConfig, place: str) -> dict[str, tuple[str, PairChoice]]:
    """Return the pairs of all languages and of one. Raises InputError when there is only one, or none."""
    counts, seed = count_by(place, "language"), config.preferences.seed
    language = config.language or max(counts, key=lambda name: counts[name], default="")
    count = counts[language]
    if not count or count == counts.total():
        known = ", ".join(f"{name} {number}" for name, number in counts.most_common()) or "none"
        raise InputError(f"the preferences need pairs in {language or 'a language'} and in others, they have: {known}")
    one = PairChoice(count=count, language=language, seed=seed)
    return {"all languages": (place, PairChoice(count=count, seed=seed)), language: (place, one)}


def _by_source(config: DpoModelsConfig, places: Sequence[str]) -> dict[str, tuple[str, PairChoice]]:
    """Return the pairs of each source. Raises InputError when fewer than two have enough."""
    of_source: dict[str, tuple[str, int]] = {}
    for place in places:
        for source, count in count_by(place, "source").items():
            if count >= config.least_pairs and source not in of_source:
                of_source[source] = place, count
    if len(of_source) < 2:
        raise InputError(_too_few(config, Counter({source: count for source, (_, count) in of_source.items()})))
    least, seed = min(count for _, count in of_source.values()), config.preferences.seed
    return {
        source: (place, PairChoice(count=least, source=source, seed=seed)) for source, (place, _) in of_source.items()
    }


def _too_few(config: DpoModelsConfig, counts: Counter[str]) -> str:
    known = ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"
    return (
        f"the preferences need at least two sources with {config.least_pairs} pairs each, they have: {known}; set "
        "preferences.judge, preferences.feedback, preferences.history or preferences.hard_negatives"
    )
