"""`infill experiment NAME`. A command imports what it needs when it runs."""

import argparse
import functools
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any

from infill.cli_options import (
    Commands,
    absolute_uri,
    as_json,
    command,
    input_folder,
    integer,
    json_option,
    number,
    output_uri,
    show_progress,
)
from infill.experiments import training_commands


def add(commands: Commands, serve: Any) -> None:
    """Add the group `infill experiment` to all commands; `serve` starts the servers (`typists.Serve`)."""
    group = commands.add_parser("experiment", help="experiments that end in a report: see infill experiment --help")
    inner = group.add_subparsers(metavar="NAME", required=True)
    _add_context_budget(inner)
    _add_embeddings(inner)
    _add_monorepo(inner)
    _add_typists(inner, serve)
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


def _add_embeddings(inner: Commands) -> None:
    about = "compare retrieval by embeddings with the overlap of identifiers, in coverage, accuracy and time"
    example = "infill experiment embeddings --repo infill --model out/model --output out/embeddings"
    parser = command(inner, "embeddings", _embeddings, about, example)
    about = "folder with a repository; may be repeated"
    parser.add_argument("--repo", type=input_folder, required=True, action="append", metavar="DIR", help=about)
    about = "a sentence encoder: a Hugging Face folder, or package:NAME==VERSION#sha256=HASH; default: all-MiniLM-L6-v2"
    parser.add_argument("--embedder", type=absolute_uri, metavar="BASE", help=about)
    _retrieval(parser)


def _add_monorepo(inner: Commands) -> None:
    about = "compare the whole of a monorepo with the folders around the caret, in coverage, accuracy, time and memory"
    example = "infill experiment monorepo --repo infill --model out/model --output out/monorepo"
    parser = command(inner, "monorepo", _monorepo, about, example)
    parser.add_argument("--repo", type=input_folder, required=True, metavar="DIR", help="folder of the monorepo")
    _retrieval(parser)


def _add_typists(inner: Commands, serve: Any) -> None:
    about = "compare numbers of people who type at once, in the time that they wait for one server"
    example = "infill experiment typists --repo infill --model out/model --output out/typists"
    call = functools.partial(_typists, serve=serve)
    parser = command(inner, "typists", call, about, example)
    parser.add_argument("--repo", type=input_folder, required=True, metavar="DIR", help="folder of the project")
    parser.add_argument("--model", type=absolute_uri, required=True, metavar="URI", help="folder of the model")
    about = "people who type at once, one cell each, the first is the baseline; default: 1,2,4,8"
    parser.add_argument("--typists", type=_numbers_of_typists, metavar="N,N,...", help=about)
    for name, what, default in (
        ("rounds", "the number of rounds", 8),
        ("moments", "the number of requests of a typist in a round", 6),
        ("max-prompt-tokens", "the number of tokens of a prompt", 1_024),
        ("max-new-tokens", "the number of new tokens", 16),
    ):
        about = f"{what.removeprefix('the ')}; default: %(default)s"
        parser.add_argument(f"--{name}", type=integer(what, 1), default=default, metavar="N", help=about)
    about = "mean seconds between an answer and the next request; default: %(default)s"
    pause = number("the pause", positive=True)
    parser.add_argument("--pause-s", type=pause, default=0.6, metavar="N", help=about)
    about = "engine of the predictor; default: %(default)s"
    parser.add_argument("--engine", choices=("auto", "transformers", "llama.cpp"), default="auto", help=about)
    _output(parser)


def _retrieval(parser: argparse.ArgumentParser) -> None:
    """Add the options that experiments on retrieval share."""
    parser.add_argument("--model", type=absolute_uri, required=True, metavar="URI", help="folder of the model")
    for name, what, default in (
        ("holes", "the number of holes", 60),
        ("context-tokens", "the number of tokens of context in which names are looked for", 4_096),
        ("max-prompt-tokens", "the number of tokens of a prompt", 1_024),
        ("max-new-tokens", "the number of new tokens", 64),
    ):
        about = f"{what.removeprefix('the ')}; default: %(default)s"
        parser.add_argument(f"--{name}", type=integer(what, 1), default=default, metavar="N", help=about)
    _output(parser)


def _output(parser: argparse.ArgumentParser) -> None:
    about = "put the report here; a run that was killed continues there"
    parser.add_argument("--output", type=output_uri, required=True, metavar="URI", help=about)
    json_option(parser)


def _budgets(text: str) -> tuple[int, ...]:
    return _different(text, integer("a budget", 0), "budgets, such as 0,1024")


def _numbers_of_typists(text: str) -> tuple[int, ...]:
    return _different(text, integer("a number of typists", 1), "numbers of typists, such as 1,4")


def _different(text: str, read: Callable[[str], int], what: str) -> tuple[int, ...]:
    values = tuple(read(part) for part in text.split(","))
    if len(set(values)) < max(len(values), 2):
        raise ArgumentTypeError(f"give at least two different {what}, got {text!r}")
    return values


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


def _embeddings(options: argparse.Namespace) -> dict[str, Any]:
    from infill.experiments import embeddings

    show_progress()
    artifact = embeddings.run(
        embeddings.EmbeddingsConfig(**_retrieval_settings(options)),
        repositories=options.repo,
        model=options.model,
        embedder=options.embedder or embeddings.EMBEDDER,
        output=options.output,
    )
    return _result(options, artifact)


def _monorepo(options: argparse.Namespace) -> dict[str, Any]:
    from infill.experiments import monorepo

    show_progress()
    config = monorepo.MonorepoConfig(**_retrieval_settings(options))
    artifact = monorepo.run(config, repository=options.repo, model=options.model, output=options.output)
    return _result(options, artifact)


def _typists(options: argparse.Namespace, serve: Any) -> dict[str, Any]:
    from infill.experiments import typists

    show_progress()
    config = typists.TypistsConfig(
        typists=options.typists or typists.TYPISTS,
        rounds=options.rounds,
        moments=options.moments,
        pause_s=options.pause_s,
        max_prompt_tokens=options.max_prompt_tokens,
        max_new_tokens=options.max_new_tokens,
        engine=options.engine,
    )
    artifact = typists.run(config, repository=options.repo, model=options.model, output=options.output, serve=serve)
    return _result(options, artifact)


def _retrieval_settings(options: argparse.Namespace) -> dict[str, Any]:
    names = ("holes", "context_tokens", "max_prompt_tokens", "max_new_tokens")
    return {name: getattr(options, name) for name in names}


def _trained(call: Callable[[argparse.Namespace], Any], options: argparse.Namespace) -> dict[str, Any]:
    return _result(options, call(options))


def _result(options: argparse.Namespace, artifact: Any) -> dict[str, Any]:
    """Print the report for people; return the result for programs."""
    from infill import manifest
    from infill.artifacts import experiment

    if not as_json(options):
        sys.stdout.write(experiment.read_page(artifact))
    return {"uri": artifact.uri, "seconds": artifact.seconds, **manifest.read_report(artifact.uri)}
