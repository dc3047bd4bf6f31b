"""Building blocks of the commands: parsers, types of arguments, and options for settings.

A type is a function that returns the value of an argument's text or raises ArgumentTypeError with one sentence, so that
mistakes are reported before any work begins.
"""

import argparse
import dataclasses
import logging
import math
import os
import sys
import tempfile
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from infill import config, storage
from infill.errors import InfillError

Commands = Any  # argparse's own type of a group of sub-parsers is private
BASE_KINDS: Final = "Hugging Face folder, .gguf file or package:NAME==VERSION"


def integer(what: str, low: int, high: int | None = None) -> Callable[[str], int]:
    """Return the type of an integer between `low` and `high`, both included; `what` is its name in errors."""
    span = f"at least {low}" if high is None else f"between {low} and {high}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ArgumentTypeError(f"{what} must be an integer, got {text!r}") from None
        if value < low or (high is not None and value > high):
            raise ArgumentTypeError(f"{what} must be {span}, got {value}")
        return value

    return read


def number(what: str, *, positive: bool = False, high: float = math.inf) -> Callable[[str], float]:
    """Return the type of a finite number from 0 to `high`, 0 excluded if `positive`; `what` is its name in errors."""
    span = "a number above 0" if positive else "a number of at least 0"
    span += "" if high == math.inf else f" and at most {high:g}"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ArgumentTypeError(f"{what} must be {span}, got {text!r}") from None
        if not math.isfinite(value) or not 0 <= value <= high or (positive and value == 0):
            raise ArgumentTypeError(f"{what} must be {span}, got {text}")
        return value

    return read


port = integer("port", 1, 65_535)
seed = integer("seed", 0, 2**32 - 1)


def url(text: str) -> str:
    """Return `text` if it is the base URL of a server."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an invalid port, or an IPv6 address without its closing bracket
        valid = False
    if not valid:
        raise ArgumentTypeError(f"a URL must look like http://localhost:8080, got {text!r}")
    return text


def word(text: str) -> str:
    """Return `text` if it can be a name: it is not blank and has no null character."""
    if not text.strip() or "\0" in text:
        raise ArgumentTypeError(f"a name must not {'contain a null character' if text.strip() else 'be empty'}")
    return text


def flag(text: str) -> bool:
    """Return the value of an option that is `true` or `false`. Raises argparse.ArgumentTypeError for another text."""
    values = {"true": True, "false": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"must be true or false, got {text!r}")
    return values[text.lower()]


def kind_of(field: dataclasses.Field[Any]) -> Callable[[str], Any]:
    """Return the reader of the option for a field of a server's configuration."""
    if "location" in field.metadata:
        return optional_uri
    assert isinstance(field.type, type)
    return flag if field.type is bool else field.type


def absolute_uri(text: str) -> str:
    """Return a path or URI made absolute: the type of every option that names a place."""
    if not text or "\0" in text:
        raise ArgumentTypeError(f"a path or URI must not {'contain a null character' if text else 'be empty'}")
    try:
        return storage.absolute(text)
    except InfillError as error:
        raise ArgumentTypeError(str(error)) from error
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # circular links, an unknown user's home, a name that is too long
        raise ArgumentTypeError(f"cannot use {text}: {getattr(error, 'strerror', None) or error}") from None


def optional_uri(text: str) -> str:
    """Return a path or URI as `absolute_uri` does, or an empty text unchanged."""
    return absolute_uri(text) if text else ""


def absolute_path(text: str) -> Path:
    """Return a path on this machine made absolute, as `absolute_uri` does."""
    place = absolute_uri(text)
    if not storage.is_local(place):
        raise ArgumentTypeError(f"{text} is not on this machine; name a local path")
    return Path(place)


def expanded_path(text: str) -> str:
    """Return a path as `absolute_path` does, but a relative one unchanged: it belongs to a project, or is printed."""
    place = str(absolute_path(text))
    return place if text.startswith("~") or text.lower().startswith("file:") else text


def input_file(text: str) -> Path:
    """Return the absolute path of a file that can be read."""
    path = _existing(text)
    if path.is_dir():
        raise ArgumentTypeError(f"{text} is a folder; name a file")
    try:
        path.open("rb").close()
    except OSError as error:
        raise ArgumentTypeError(f"cannot read {text}: {error.strerror}; check its permissions") from None
    return path


def shown_file(text: str) -> str:
    """Return the path of a file that can be read; a relative one unchanged, since it is printed."""
    input_file(text)
    return expanded_path(text)


def input_folder(text: str) -> Path:
    """Return the absolute path of a folder that exists."""
    path = _existing(text)
    if not path.is_dir():
        raise ArgumentTypeError(f"{text} is a file; name a folder")
    return path


def output_file(text: str) -> Path:
    """Return the absolute path of a file that can be written; it and its folder need not exist."""
    path = absolute_path(text)
    _require_writable(path.parent)
    if path.is_dir() or text.endswith("/"):
        raise ArgumentTypeError(f"{text} is a folder; name a file")
    return path


def output_folder(text: str) -> Path:
    """Return the absolute path of a folder that can be written; it need not exist."""
    path = absolute_path(text)
    _require_writable(path)
    return path


def output_uri(text: str) -> str:
    """Return the absolute path or URI of an output folder; a local one must be writable but need not exist."""
    place = absolute_uri(text)
    if storage.is_local(place):
        _require_writable(Path(place))
    return place


def _existing(text: str) -> Path:
    path = absolute_path(text)
    try:
        path.stat()
    except OSError as error:
        target = f" (a link to {path})" if os.path.islink(text) else ""
        raise ArgumentTypeError(f"cannot read {text}{target}: {error.strerror}; check the path") from None
    return path


def _require_writable(folder: Path) -> None:
    """Raise ArgumentTypeError unless files can be created in `folder` or, if it is missing, in its nearest parent."""
    try:
        nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not nearest.is_dir():
            raise ArgumentTypeError(f"{nearest} is not a folder; choose another path")
        tempfile.TemporaryFile(dir=nearest).close()  # fails for missing permissions, read-only file systems and quotas
    except OSError as error:
        raise ArgumentTypeError(f"cannot write to {error.filename}: {error.strerror}; choose another path") from None


def absolute_source(text: str) -> str:
    """Return a source of code (`dir:PATH`, `git:PATH@REVISION` ...) with its path made absolute."""
    try:
        return config.absolute_source(text)
    except InfillError as error:
        raise ArgumentTypeError(str(error)) from error


def command(commands: Commands, name: str, call: Any, about: str, example: str = "") -> argparse.ArgumentParser:
    """Add the command `name`, which calls `call` with the parsed options, and return its parser."""
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
    parser.add_argument("--seed", type=seed, help="seed of every stage")
    parser.add_argument(
        "--source",
        type=absolute_source,
        action="append",
        metavar="URI",
        help="dir:PATH, git:PATH@REVISION, archive:PATH, parquet:URI or packages: (repeatable; default: packages:)",
    )
    base_options(parser, parser, "start from this {kind} instead of from scratch")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="one setting, such as pretrain.train.steps=100"
    )


def base_options(parser: argparse.ArgumentParser, group: Any, about: str) -> None:
    """Add the options for a published base, with --base-model in `group`; `about` is its help, with {kind} in it."""
    group.add_argument("--base-model", type=absolute_uri, metavar="URI", help=about.format(kind=BASE_KINDS))
    fim_and_adapter(parser)


def fim_and_adapter(parser: argparse.ArgumentParser) -> None:
    """Add the options that change a published base."""
    about = "add fill-in-the-middle tokens to a base model without them"
    parser.add_argument("--add-fim", action="store_true", help=about)
    about = "merge this LoRA adapter into the base model first"
    parser.add_argument("--adapter", type=absolute_uri, metavar="URI", help=about)


def json_option(parser: argparse.ArgumentParser) -> None:
    """Add --json to a command that prints its result for people and returns it for programs."""
    about = "print the result as one JSON object; the default if the output is not a terminal"
    parser.add_argument("--json", action="store_true", help=about)
    parser.set_defaults(shows=True)


def as_json(options: argparse.Namespace) -> bool:
    """Return whether a command writes JSON: because of --json, or because stdout is not a terminal."""
    return bool(options.json) or not sys.stdout.isatty()


def show_progress() -> None:
    """Log the progress messages of our own modules to stderr, and only the warnings of libraries."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("infill").setLevel(logging.INFO)


def budget(parser: argparse.ArgumentParser) -> None:
    """Add the option that limits the cost of a run."""
    about = "limit in GPU-hours; a run that needs more is refused"
    parser.add_argument("--budget", type=number("budget"), metavar="HOURS", help=about)


def promotion_needs(parser: argparse.ArgumentParser) -> None:
    """Add the options for what a promotion needs."""
    for name, default, what in (("requests", 500, "answers"), ("suggestions", 200, "accepted or rejected suggestions")):
        about = f"{what} of each model that a promotion needs; default: %(default)s"
        parser.add_argument(f"--{name}", type=integer(name, 0), default=default, metavar="N", help=about)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings in the options of a command, with absolute paths, since steps run in other folders."""
    short: dict[str, Any] = {}
    if options.source:
        short["sources"] = options.source
    if options.base_model:
        short["base_model"] = options.base_model
    if options.add_fim:
        short["add_fim"] = True
    if options.adapter:
        short["adapter"] = options.adapter
    if options.seed is not None:
        short["seed"] = options.seed
    return short | config.absolute_settings(config.parse_settings(options.set))
