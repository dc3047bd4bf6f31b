"""`infill benchmark build|show`. A command imports what it needs when it runs."""

import argparse
import sys
from argparse import ArgumentTypeError
from datetime import date
from typing import Any

from infill.cli_options import (
    Commands,
    absolute_source,
    absolute_uri,
    as_json,
    command,
    integer,
    json_option,
    number,
    output_uri,
    seed,
)


def add(commands: Commands) -> None:
    """Add the group `infill benchmark` to all commands."""
    group = commands.add_parser("benchmark", help="benchmarks of your own code: see infill benchmark --help")
    about = "freeze holes from the history of Git repositories: lines that commits added, with the context before them"
    example = "infill benchmark build --source git:~/code/widgets --after 2025-01-01 --output out/benchmark"
    inner = group.add_subparsers(metavar="COMMAND", required=True)
    _add_show(inner)
    build = command(inner, "build", _build, about, example)
    about = "a Git repository, or a folder of them, as git:PATH or git:PATH@REVISION; repeat it"
    build.add_argument("--source", type=absolute_source, action="append", required=True, metavar="URI", help=about)
    about = "the first day whose commits count, such as 2025-01-31: later than what your models were trained on"
    build.add_argument("--after", type=_day, required=True, metavar="DATE", help=about)
    _numbers(build)
    about = "a finished corpus that must not have an answer; repeat it"
    build.add_argument("--corpus", type=absolute_uri, action="append", default=[], metavar="URI", help=about)
    about = "a published benchmark that must not overlap with a hole's file; repeat it; INFILL_BENCH_DIR names another"
    build.add_argument("--benchmark", type=absolute_uri, action="append", default=[], metavar="URI", help=about)
    _to_learn_from(build)
    build.add_argument("--seed", type=seed, default=0, help="default: %(default)s")
    build.add_argument("--output", type=output_uri, required=True, metavar="URI", help="put the benchmark here")


def _add_show(inner: Commands) -> None:
    about = "print an evaluation's metrics by language and by kind of hole, with their intervals"
    show = command(inner, "show", _show, about, "infill benchmark show out/evaluation")
    show.add_argument("evaluation", type=absolute_uri, metavar="EVALUATION", help="the finished evaluation")
    json_option(show)


def _show(options: argparse.Namespace) -> dict[str, Any]:
    from infill.evaluate.record_table import read, text

    record = read(options.evaluation)
    if not as_json(options):
        sys.stdout.write(text(record))
    return record


def _numbers(build: argparse.ArgumentParser) -> None:
    about = "number of holes; default: %(default)s"
    build.add_argument("--holes", type=integer("the number of holes", 1), default=200, metavar="N", help=about)
    about = "share of the holes whose answers are only kept as hashes; default: %(default)s"
    share = number("the share that is held back", high=1)
    build.add_argument("--held-back", type=share, default=0.2, metavar="SHARE", help=about)
    about = "commits to read of a repository; default: %(default)s"
    build.add_argument("--commits", type=integer("the number of commits", 1), default=400, metavar="N", help=about)


def _to_learn_from(build: argparse.ArgumentParser) -> None:
    about = "the first day whose commits do not count any more"
    build.add_argument("--before", type=_day, metavar="DATE", help=about)
    about = "a benchmark from history whose commits are left out; repeat it"
    build.add_argument("--without", type=absolute_uri, action="append", default=[], metavar="URI", help=about)
    about = "holes to learn from, for preferences.history, instead of a benchmark; needs --before or --without"
    build.add_argument("--train", action="store_true", help=about)


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ArgumentTypeError(f"a date must look like 2025-01-31, got {text!r}") from None


def _build(options: argparse.Namespace) -> dict[str, Any]:
    from infill.edits.benchmark_build import BenchmarkConfig, build

    config = BenchmarkConfig(
        sources=tuple(options.source),
        after=options.after,
        holes=options.holes,
        held_back=options.held_back,
        commits=options.commits,
        corpora=tuple(options.corpus),
        benchmarks=tuple(options.benchmark),
        seed=options.seed,
        train=options.train,
        before=options.before or "",
        without=tuple(options.without),
    )
    artifact = build(config, options.output)
    return {"uri": artifact.uri, "digest": artifact.digest, "seconds": artifact.seconds, "metrics": artifact.metrics}
