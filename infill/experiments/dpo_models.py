"""Experiments on DPO: `dpo-languages`, `preference-sources` and `dpo-objectives`.

Each model is trained by DPO from the run's SFT model on as many pairs; the first cell is the SFT model itself.
`dpo-languages` trains on pairs of all languages, and on those of one language. `preference-sources` trains on the pairs
from each source: samples that the rules or a judge compared, feedback, raters, history, hard negatives.
`dpo-objectives` trains on the same pairs with each variant of the loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from infill.config import DpoConfig, EvaluateConfig, PreferencesConfig
from infill.errors import InputError
from infill.experiments import experiment_run
from infill.experiments.experiment import Experiment
from infill.experiments.pair_choice import PairChoice, chosen, count_by
from infill.experiments.pair_sources import LEAST, PairSource, about, collect
from infill.experiments.trained_models import QUALITY, FinishedRun, ModelCells, amount, trained
from infill.manifest import Manifest
from infill.preferences import preferences_stage
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


@dataclass(frozen=True, kw_only=True)
class DpoModelsConfig:
    name: Literal["dpo-languages", "preference-sources", "dpo-objectives"]
    preferences: PreferencesConfig
    dpo: DpoConfig
    evaluate: EvaluateConfig
    language: str = ""
    """The one language of `dpo-languages`; empty: that with the most pairs."""
    pairs: int = 0
    """Number of pairs of each source in `preference-sources`; 0: as many as the poorest has."""


def run(config: DpoModelsConfig, finished: FinishedRun, *, output: str) -> Manifest:
    """Build and train what is not there yet, write the experiment to the folder `output`; return its manifest.

    Raises InputError when the run has no finished examples or SFT model, or too few pairs to compare.
    """
    uris = {stage: finished.artifact(stage) for stage in ("examples", "sft")}
    inputs = {name: experiment_run.digest(uri) for name, uri in uris.items()}
    inputs |= preferences_stage.outside(config.preferences, inputs)

    def experiment() -> Experiment:
        parts = {"examples": uris["examples"], "model": uris["sft"]}

        def build(settings: PreferencesConfig) -> str:
            return execute("preferences", settings, parts, finished.cells).uri

        sources = collect(config.preferences, build, config.pairs or LEAST) if config.name == SOURCES else []
        trainings = _of_sources(config, sources) if sources else _trainings(config, build(config.preferences))
        chosen_pairs = {cell: chosen(each.preferences, each.pairs, finished.cells) for cell, each in trainings.items()}

        def train(cell: str) -> str:
            if cell == BASELINE:
                return uris["sft"]
            mine = {"preferences": chosen_pairs[cell], "model": uris["sft"]}
            return execute("dpo", trainings[cell].dpo, mine, finished.cells, label=f"dpo-{cell}").uri

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
            second="rules" if sources else "",
            measures=QUALITY,
            holes=[hole["id"] for hole in cells.holes],
            measure=cells.measure,
            setting=[*cells.setting(BASELINE, how), *about(sources, chosen_pairs, config.preferences)],
        )

    return experiment_run.run(experiment, config=config, inputs=inputs, output=output)


@dataclass(frozen=True, kw_only=True)
class _Training:
    """The pairs and the settings of one model."""

    preferences: str
    pairs: PairChoice
    dpo: DpoConfig


def _trainings(config: DpoModelsConfig, place: str) -> dict[str, _Training]:
    """Return the training of each cell but the first, all on as many pairs, from the preferences at `place`.

    Raises InputError when there are too few pairs to compare.
    """
    if config.name == LANGUAGES:
        return _by_language(config, place)
    count = count_by(place, "source").total()
    if not count:
        raise InputError(f"the preferences in {place} have no pairs; raise preferences.holes")
    pairs = PairChoice(count=count, seed=config.preferences.seed)
    plain = replace(config.dpo, sft_weight=0.0, length_normalised=False)
    return {
        name: _Training(preferences=place, pairs=pairs, dpo=replace(plain, **settings))
        for name, settings in VARIANTS.items()
    }


def _of_sources(config: DpoModelsConfig, sources: Sequence[PairSource]) -> dict[str, _Training]:
    """Return a training for each source, all on as many pairs."""
    count, seed = config.pairs or min(source.pairs for source in sources), config.preferences.seed
    return {
        source.name: _Training(
            preferences=source.preferences,
            pairs=PairChoice(count=count, source=source.name, seed=seed),
            dpo=config.dpo,
        )
        for source in sources
    }


def _by_language(config: DpoModelsConfig, place: str) -> dict[str, _Training]:
    """Return the trainings on pairs of all languages and of one. Raises InputError when there is only one, or none."""
    counts, seed = count_by(place, "language"), config.preferences.seed
    language = config.language or max(counts, key=lambda name: counts[name], default="")
    count = counts[language]
    if not count or count == counts.total():
        known = ", ".join(f"{name} {number}" for name, number in counts.most_common()) or "none"
        raise InputError(f"the preferences need pairs in {language or 'a language'} and in others, they have: {known}")
    choices = {"all languages": PairChoice(count=count, seed=seed)}
    choices[language] = PairChoice(count=count, language=language, seed=seed)
    return {name: _Training(preferences=place, pairs=pairs, dpo=config.dpo) for name, pairs in choices.items()}
