"""What several commands share: how one is added, and the options that stand for settings."""

import argparse
from pathlib import Path
from typing import Any

from infill import config

Commands = Any  # argparse's own type of a group of sub-parsers is private


def command(commands: Commands, name: str, call: Any, about: str, example: str = "") -> argparse.ArgumentParser:
    """A parser of the command `name`, which `call` carries out."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=f"example: {example}" if example else None,
    )
    parser.set_defaults(call=call)
    return parser


def settings_options(parser: argparse.ArgumentParser, preset: str | None = "demo") -> None:
    """Add the options that `settings_of` reads."""
    parser.add_argument("--preset", default=preset, choices=config.PRESETS, help=f"default: {preset or 'demo'}")
    parser.add_argument("--seed", type=int, help="seed of every stage")
    parser.add_argument(
        "--source", action="append", metavar="URI", help="dir:/path or packages: (may be repeated; default: packages:)"
    )
    parser.add_argument(
        "--base-model", metavar="URI", help="start from this Hugging Face folder instead of training from scratch"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="one setting, as pretrain.train.steps=100"
    )


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that the options of a command stand for. Folders are made absolute: steps run elsewhere."""
    short: dict[str, Any] = {}
    if options.source:
        short["sources"] = [_absolute_source(source) for source in options.source]
    if options.base_model:
        remote = "://" in options.base_model
        short["base_model"] = options.base_model if remote else str(Path(options.base_model).resolve())
    if options.seed is not None:
        short["seed"] = options.seed
    return short | config.parse_settings(options.set)


def _absolute_source(source: str) -> str:
    kind, _, path = source.partition(":")
    return f"dir:{Path(path).resolve()}" if kind == "dir" and "://" not in path else source
