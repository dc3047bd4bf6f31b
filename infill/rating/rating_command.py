"""`infill rate build|serve|show`. A command imports what it needs when it runs."""

import argparse
import sys
from argparse import ArgumentTypeError
from typing import Any

from infill.cli_options import (
    Commands,
    absolute_path,
    absolute_uri,
    as_json,
    command,
    integer,
    json_option,
    output_uri,
    port,
    seed,
)


def add(commands: Commands) -> None:
    """Add the group `infill rate` to all commands."""
    group = commands.add_parser("rate", help="blind comparison of completions by people: see infill rate --help")
    inner = group.add_subparsers(metavar="COMMAND", required=True)
    _add_build(inner)
    _add_serve(inner)
    _add_show(inner)


def _add_build(inner: Commands) -> None:
    about = "choose pairs of completions for people to compare: those of the preferences, or of two evaluated models"
    example = "infill rate build --preferences out/demo/store/preferences/KEY --output out/rating"
    build = command(inner, "build", _build, about, example)
    source = build.add_mutually_exclusive_group(required=True)
    about = "finished preferences: raters check the judge, and their choices can be trained on"
    source.add_argument("--preferences", type=absolute_uri, metavar="URI", help=about)
    about = "a finished evaluation; give two, of the same holes"
    source.add_argument("--evaluation", type=absolute_uri, action="append", metavar="URI", help=about)
    about = "the examples or the benchmark of the evaluations"
    build.add_argument("--examples", type=absolute_uri, metavar="URI", help=about)
    about = "number of pairs; default: %(default)s"
    build.add_argument("--items", type=integer("the number of items", 1), default=100, metavar="N", help=about)
    build.add_argument("--seed", type=seed, default=0, help="default: %(default)s")
    build.add_argument("--output", type=output_uri, required=True, metavar="URI", help="put the rating set here")


def _add_serve(inner: Commands) -> None:
    about = "show a rater the pairs in a browser, on this machine only, and store each choice at once"
    serve = command(inner, "serve", _serve, about, "infill rate serve out/rating --rater ada")
    serve.add_argument("set", type=absolute_path, metavar="SET", help="a folder of infill rate build")
    about = "the rater's name or a pseudonym: letters, digits, dots, dashes"
    serve.add_argument("--rater", type=_rater, required=True, metavar="NAME", help=about)
    serve.add_argument("--port", type=port, default=8090, help="default: %(default)s")


def _add_show(inner: Commands) -> None:
    about = "print what raters chose, and how far they agree with each other and with the judge"
    show = command(inner, "show", _show, about, "infill rate show out/rating")
    show.add_argument("set", type=absolute_uri, metavar="SET", help="a folder of infill rate build")
    json_option(show)


def _rater(text: str) -> str:
    from infill.artifacts.rating import RATER

    if not RATER.fullmatch(text):
        raise ArgumentTypeError(
            f"a rater's name must have 1 to 64 letters, digits, dots, dashes or underscores, got {text!r}"
        )
    return text


def _build(options: argparse.Namespace) -> dict[str, Any]:
    from infill.errors import InputError
    from infill.rating.rating_items import RatingConfig, of_evaluations, of_pairs

    config = RatingConfig(items=options.items, seed=options.seed)
    if options.preferences:
        artifact = of_pairs(config, options.preferences, options.output)
    elif len(options.evaluation) != 2 or not options.examples:
        raise InputError("a comparison of models needs --evaluation twice and --examples once")
    else:
        artifact = of_evaluations(config, options.examples, options.evaluation, options.output)
    return {"uri": artifact.uri, "digest": artifact.digest, "metrics": artifact.metrics}


def _serve(options: argparse.Namespace) -> None:
    import socket

    from infill.rating.rating_server import LOOPBACK, RatingSession, serve

    session = RatingSession(options.set, options.rater)
    bound = socket.create_server((LOOPBACK, options.port))
    sys.stderr.write(f"infill: rate at http://{LOOPBACK}:{options.port}/ (Ctrl-C stops it; each choice is stored)\n")
    serve(session, bound)


def _show(options: argparse.Namespace) -> dict[str, Any]:
    from infill.artifacts.rating import read_items, read_ratings
    from infill.rating.rater_agreement import summary

    result = summary(read_items(options.set), read_ratings(options.set))
    if not as_json(options):
        sys.stdout.write(_text(result))
    return result


def _text(result: dict[str, Any]) -> str:
    """Return a summary for people."""
    raters = ", ".join(f"{name} {number}" for name, number in result["raters"].items()) or "nobody"
    choices = ", ".join(f"{name} {number}" for name, number in result["choices"].items())
    first = _figure(result["first_preferred"])
    between, judge = result["between_raters"], result["with_judge"]
    return "\n".join(
        [
            f"{result['rated']} of {result['items']} items rated ({raters}); choices: {choices};"
            f" skipped {result['skipped']}",
            *([f"first model preferred           {first}"] if first != "unknown" else []),
            f"left side preferred             {_figure(result['left_preferred'])}",
            f"raters agree with each other    {_figure(between['agree'])}, alpha {_figure(between['alpha'])}",
            f"raters agree with the judge     {_figure(judge['agree'])}, alpha {_figure(judge['alpha'])}",
            "",
        ]
    )


def _figure(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "unknown"
    count = f" of {figure['n']:.0f}" if "n" in figure else ""
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]{count}"
