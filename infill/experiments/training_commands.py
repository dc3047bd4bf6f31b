"""The experiments that train models, as commands; a command imports what it needs when it runs."""

import argparse
from typing import Any

from infill import config
from infill.cli_options import Commands, command, input_folder, integer, settings_of, settings_options, show_progress


def add(inner: Commands) -> list[argparse.ArgumentParser]:
    """Add the commands to `infill experiment`; return their parsers.

    They lack the options of all experiments; their calls return the experiment's manifest.
    """
    parsers = [_fim_split(inner), _dpo_languages(inner), _preference_sources(inner), _dpo_objectives(inner)]
    for parser in parsers:
        about = "folder of a finished run, in which the new models are kept; give --preset and --set as for that run"
        parser.add_argument("--run", type=input_folder, required=True, metavar="DIR", help=about)
        settings_options(parser)
    return parsers


def _fim_split(inner: Commands) -> argparse.ArgumentParser:
    about = "train on random and on syntactic holes, at equal tokens, and compare the models"
    example = "infill experiment fim-split --run out/demo --preset finetune --output out/fim-split"
    return command(inner, "fim-split", _run_fim_split, about, example)


def _dpo_languages(inner: Commands) -> argparse.ArgumentParser:
    about = "train DPO on pairs of all languages and of one, and compare the models"
    example = "infill experiment dpo-languages --run out/demo --preset finetune --output out/dpo-languages"
    parser = command(inner, "dpo-languages", _run_dpo_languages, about, example)
    about = "the one language; default: that with the most pairs"
    parser.add_argument("--language", default="", metavar="NAME", help=about)
    return parser


def _preference_sources(inner: Commands) -> argparse.ArgumentParser:
    about = "train DPO on the pairs of each source (rules, judge, feedback ...), and compare the models"
    example = (
        "infill experiment preference-sources --run out/demo --preset finetune --set preferences.feedback=feedback "
        "--output out/preference-sources"
    )
    parser = command(inner, "preference-sources", _run_preference_sources, about, example)
    about = "pairs of each source; one with fewer is refused before anything is trained; default: those of the poorest"
    parser.add_argument("--pairs", type=integer("the number of pairs", 1), default=0, metavar="N", help=about)
    return parser


def _dpo_objectives(inner: Commands) -> argparse.ArgumentParser:
    about = "train DPO on the same pairs with each variant of its loss, and compare the models"
    example = "infill experiment dpo-objectives --run out/demo --preset finetune --output out/dpo-objectives"
    return command(inner, "dpo-objectives", _run_dpo_objectives, about, example)


def _run_fim_split(options: argparse.Namespace) -> Any:
    from infill.experiments import fim_split
    from infill.experiments.trained_models import FinishedRun

    preset = config.resolve(options.preset, settings_of(options))
    settings = fim_split.FimSplitConfig(examples=preset.examples, sft=preset.sft, evaluate=preset.evaluate)
    show_progress()
    return fim_split.run(settings, FinishedRun(options.run), output=options.output)


def _run_dpo_languages(options: argparse.Namespace) -> Any:
    from infill.experiments import dpo_models

    return _run_dpo(options, dpo_models.LANGUAGES, language=options.language)


def _run_preference_sources(options: argparse.Namespace) -> Any:
    from infill.experiments import dpo_models

    return _run_dpo(options, dpo_models.SOURCES, pairs=options.pairs)


def _run_dpo_objectives(options: argparse.Namespace) -> Any:
    from infill.experiments import dpo_models

    return _run_dpo(options, dpo_models.OBJECTIVES)


def _run_dpo(options: argparse.Namespace, name: Any, **more: Any) -> Any:
    from infill.experiments import dpo_models
    from infill.experiments.trained_models import FinishedRun

    preset = config.resolve(options.preset, settings_of(options))
    settings = dpo_models.DpoModelsConfig(
        name=name, preferences=preset.preferences, dpo=preset.dpo, evaluate=preset.evaluate, **more
    )
    show_progress()
    return dpo_models.run(settings, FinishedRun(options.run), output=options.output)
