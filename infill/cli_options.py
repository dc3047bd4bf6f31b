"""What several commands share: how one is added, and the options that stand for settings."""

import argparse
from pathlib import Path
from typing import Any

from infill import config, storage
from infill.errors import InfillError

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


def absolute_uri(text: str) -> str:
    """Return an option's path or URI made absolute: the type of every option that names a place."""
    if not text:
        raise argparse.ArgumentTypeError("a path or URI must not be empty")
    try:
        return storage.absolute(text)
    except InfillError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def optional_uri(text: str) -> str:
    """As `absolute_uri`, where an empty value says that there is none."""
    return absolute_uri(text) if text else ""


def absolute_path(text: str) -> Path:
    """As `absolute_uri`, for a place that must be on this machine."""
    place = absolute_uri(text)
    if not storage.is_local(place):
        raise argparse.ArgumentTypeError(f"{text} is not on this machine; name a local path")
    return Path(place)


def expanded_path(text: str) -> str:
    """As `absolute_path`, but leave a relative path alone: it starts at a project's folder, or is shown again."""
    place = str(absolute_path(text))
    return place if text.startswith("~") or text.lower().startswith("file:") else text


def absolute_source(text: str) -> str:
    """Return a source of code (`dir:PATH`, `packages:`) with its path made absolute."""
    try:
        return config.absolute_source(text)
    except InfillError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def settings_options(parser: argparse.ArgumentParser, preset: str | None = "demo") -> None:
    """Add the options that `settings_of` reads."""
    parser.add_argument("--preset", default=preset, choices=config.PRESETS, help=f"default: {preset or 'demo'}")
    parser.add_argument("--seed", type=int, help="seed of every stage")
    parser.add_argument(
        "--source",
        type=absolute_source,
        action="append",
        metavar="URI",
        help="dir:/path or packages: (may be repeated; default: packages:)",
    )
    parser.add_argument(
        "--base-model",
        type=absolute_uri,
        metavar="URI",
        help="start from this Hugging Face folder instead of training from scratch",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="one setting, as pretrain.train.steps=100"
    )


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that the options of a command stand for. Paths in them are absolute: steps run elsewhere."""
    short: dict[str, Any] = {}
    if options.source:
        short["sources"] = options.source
    if options.base_model:
        short["base_model"] = options.base_model
    if options.seed is not None:
        short["seed"] = options.seed
    return short | config.absolute_settings(config.parse_settings(options.set))
