"""A model on a public benchmark of code completion, read from a file in the format in which it is published.

    python -m benchmarks.public_sets --set safim --file FILE --model URI [--limit N] [--keep FILE]
    python -m benchmarks.public_sets --set safim --file FILE --check [--limit N]

Completions are greedy, with the set's context as far as it fits. All metrics of `infill.metrics` are reported with 95 %
intervals, and pass@1 where the file has tests, by language. They run in the sandbox: those in Python everywhere, in C++
and Java if g++ or a JDK is installed. `infill.evaluate.public_sets` lists the sets. With `--keep` a killed run resumes.
`--check` needs no model: it executes the true solutions, which should all pass, and empty ones, which should not.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from benchmarks import completions
from infill import entry, manifest, metrics
from infill.cli_options import absolute_uri, integer, number
from infill.errors import InputError
from infill.evaluate import public_sets, sandbox
from infill.evaluate.generation import Generator
from infill.evaluate.statistics import interval, wilson

CHUNK: Final = 50
"""Tasks between two reports of the progress."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = entry.Parser(prog="python -m benchmarks.public_sets", description="Public benchmarks of completion.")
    parser.add_argument("--set", required=True, choices=public_sets.READERS)
    parser.add_argument("--file", type=absolute_uri, required=True, metavar="FILE", help="a file of the set")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=absolute_uri, metavar="URI", help="folder of the model")
    what.add_argument("--check", action="store_true", help="execute true and empty solutions")
    parser.add_argument(
        "--seconds",
        type=number("a time in seconds", positive=True),
        default=20.0,
        metavar="S",
        help="for building and testing each task; default: %(default)g",
    )
    parser.add_argument("--limit", type=integer("the number of tasks", 0), default=0, metavar="N", help="the first N")
    parser.add_argument("--max-new-tokens", type=integer("the number of tokens", 1), default=128, metavar="N")
    completions.option(parser)
    options = parser.parse_args(arguments)
    tasks = public_sets.read(options.set, options.file, options.limit)
    if options.check:
        if not any(task.test for task in tasks):
            raise InputError(f"{options.file} has no tests that can run here; measure a model with --model")
        print(json.dumps({"set": options.set, "tasks": len(tasks), "pass_at_1": _check(tasks, options.seconds)}))
        return
    generator = Generator(manifest.fetch(options.model))
    budget = generator.context_length - options.max_new_tokens
    completed = completions.complete(
        generator,
        [generator.prompt(task.request, budget) for task in tasks],
        model=completions.model_key(options.model),
        max_new_tokens=options.max_new_tokens,
        keep=options.keep,
    )
    outputs = [each.text for each in completed]
    finished = [each.finished for each in completed]
    print(json.dumps({"set": options.set, "tasks": len(tasks), **_figures(tasks, outputs, finished, options.seconds)}))


def _check(tasks: Sequence[public_sets.PublicTask], seconds: float) -> dict[str, dict[str, dict[str, float]]]:
    """Return the share of true and of empty solutions that pass; show the true ones that fail, and the progress."""
    outcomes = defaultdict[str, list[sandbox.Outcome | None]](list)
    for first in range(0, len(tasks), CHUNK):
        chunk = tasks[first : first + CHUNK]
        for name, middles in (("true", [task.middle for task in chunk]), ("empty", [""] * len(chunk))):
            outcomes[name] += public_sets.run(chunk, middles, seconds=seconds)
        for task, outcome in zip(chunk, outcomes["true"][first:], strict=True):
            if outcome and not outcome.passed:
                print(f"{task.task_id}: {outcome.status}: {outcome.detail.strip()[-500:]}", file=sys.stderr)
        print(f"executed {first + len(chunk)} of {len(tasks)} tasks", file=sys.stderr)
    return {name: _pass_rates(tasks, each) for name, each in outcomes.items()}


def _figures(
    tasks: Sequence[public_sets.PublicTask], outputs: Sequence[str], finished: Sequence[bool], seconds: float
) -> dict[str, Any]:
    """Return each metric's mean, and pass@1 of the tasks with tests, with their intervals."""
    scores = [
        metrics.score(
            output,
            task.middle,
            prefix=task.request.prefix,
            suffix=task.request.suffix,
            language=task.language,
            finished=ended,
        )
        for task, output, ended in zip(tasks, outputs, finished, strict=True)
    ]
    means = {name: interval(name, [each[name] for each in scores], resamples=1_000, seed=0) for name in metrics.METRICS}
    rates = _pass_rates(tasks, public_sets.run(tasks, outputs, seconds=seconds))
    return {"metrics": means, **({"pass_at_1": rates} if rates else {})}


def _pass_rates(
    tasks: Sequence[public_sets.PublicTask], outcomes: Sequence[sandbox.Outcome | None]
) -> dict[str, dict[str, float]]:
    """Return the share of tasks with tests that pass, with Wilson's interval, for all and for each language."""
    passed = defaultdict[str, list[bool]](list)
    for task, outcome in zip(tasks, outcomes, strict=True):
        if task.test is not None and outcome is not None:
            for name in ("all", task.test.language or "python"):
                passed[name].append(outcome.passed)
    rates = {}
    for name, each in passed.items():
        low, high = wilson(sum(each), len(each))
        rates[name] = {"value": sum(each) / len(each), "low": low, "high": high, "n": len(each)}
    return rates


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.public_sets", main))
