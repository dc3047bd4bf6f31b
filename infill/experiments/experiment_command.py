"""`infill experiment NAME`. A command imports what it needs when it runs."""

import argparse
import functools
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any

from infill.cli_options import Commands, absolute_uri, as_json, command, integer, json_option, output_uri, show_progress
from infill.experiments import training_commands


def add(commands: Commands) -> None:
    """Add the group `infill experiment` to all commands."""
    group = commands.add_parser("experiment", help="experiments that end in a report: see infill experiment --help")
    inner = group.add_subparsers(metavar="NAME", required=True)
    _add_context_budget(inner)
    for parser in training_commands.add(inner):
        _output(parser)
        parser.set_defaults(call=functools.partial(_trained, parser.get_default("call")))


def _add_context_budget(inner: Commands) -> None:
    about = "compare budgets of project context on the same holes, in quality and in time"
    example = "infill experiment context-budget --examples out/benchmark --model out/model --output out/context-budget"
    parser = command(inner, "context-budget", _context_budget, about, example)
    parser.add_argument("--examples", type=absolute_uri, required=True, metavar="URI", help="examples or a benchmark")
    parser.add_argument("--model", type=absolute_uri, required=True, metavar="URI", help="folder of the model")
    about = "tokens of context, one cell each, the first is the baseline; default: 0,1024,2048,4096,8192"
    parser.add_argument("--budgets", type=_budgets, metavar="N,N,...", help=about)
    about = "number of holes; default: %(default)s"
    parser.add_argument("--holes", type=integer("the number of holes", 1), default=200, metavar="N", help=about)
    about = "tokens around the caret; default: %(default)s"
    caret = integer("the number of tokens around the caret", 64)
    parser.add_argument("--caret-tokens", type=caret, default=1_024, metavar="N", help=about)
    new = integer("the number of new tokens", 1)
    parser.add_argument("--max-new-tokens", type=new, default=64, metavar="N", help="default: %(default)s")
    _output(parser)


def _output(parser: argparse.ArgumentParser) -> None:
    about = "put the report here; a run that was killed continues there"
    parser.add_argument("--output", type=output_uri, required=True, metavar="URI", help=about)
    json_option(parser)


def _budgets(text: str) -> tuple[int, ...]:
    read = integer("a budget", 0)
    budgets = tuple(read(part) for part in text.split(","))
    if len(set(budgets)) < max(len(budgets), 2):
        raise ArgumentTypeError(f"give at least two different budgets, such as 0,1024, got {text!r}")
    return budgets


def _context_budget(options: argparse.Namespace) -> dict[str, Any]:
    from infill.experiments import context_budget

    config = context_budget.ContextBudgetConfig(
        holes=options.holes,
        budgets=options.budgets or context_budget.BUDGETS,
        caret_tokens=options.caret_tokens,
        max_new_tokens=options.max_new_tokens,
    )
    show_progress()
    artifact = context_budget.run(config, examples=options.examples, model=options.model, output=options.output)
    return _result(options, artifact)


def _trained(call: Callable[[argparse.Namespace], Any], options: argparse.Namespace) -> dict[str, Any]:
    return _result(options, call(options))


def _result(options: argparse.Namespace, artifact: Any) -> dict[str, Any]:
    """Print the report for people; return the result for programs."""
    from infill import manifest
    from infill.artifacts import experiment

    if not as_json(options):
        sys.stdout.write(experiment.read_page(artifact))
    return {"uri": artifact.uri, "seconds": artifact.seconds, **manifest.read_report(artifact.uri)}
