"""`infill experiment NAME`. A command imports what it needs when it runs."""

import argparse
import sys
from argparse import ArgumentTypeError
from typing import Any

from infill.cli_options import (
    Commands,
    absolute_uri,
    as_json,
    command,
    input_folder,
    integer,
    json_option,
    output_uri,
    show_progress,
)


def add(commands: Commands) -> None:
    """Add the group `infill experiment` to all commands."""
    group = commands.add_parser("experiment", help="experiments that end in a report: see infill experiment --help")
    inner = group.add_subparsers(metavar="NAME", required=True)
    _add_context_budget(inner)
    _add_embeddings(inner)
    _add_monorepo(inner)


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


def _retrieval_settings(options: argparse.Namespace) -> dict[str, Any]:
    names = ("holes", "context_tokens", "max_prompt_tokens", "max_new_tokens")
    return {name: getattr(options, name) for name in names}


def _result(options: argparse.Namespace, artifact: Any) -> dict[str, Any]:
    """Print the report for people; return the result for programs."""
    from infill import manifest
    from infill.artifacts import experiment

    if not as_json(options):
        sys.stdout.write(experiment.read_page(artifact))
    return {"uri": artifact.uri, "seconds": artifact.seconds, **manifest.read_report(artifact.uri)}
