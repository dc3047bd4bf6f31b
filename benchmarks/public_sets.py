"""A model on a public benchmark of code completion, read from a file in the format in which it is published.

    python -m benchmarks.public_sets --set safim --file FILE --model URI [--limit N] [--keep FILE]

Completions are greedy, with the set's context as far as it fits. All metrics of `infill.metrics` are reported with 95 %
intervals, and pass@1 where the file has tests in Python, which run in the sandbox. `infill.evaluate.public_sets` lists
the sets. With `--keep` a killed run resumes.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import completions
from infill import entry, manifest, metrics
from infill.cli_options import absolute_uri, integer
from infill.evaluate import public_sets
from infill.evaluate.generation import Generator
from infill.evaluate.statistics import interval, wilson


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = entry.Parser(prog="python -m benchmarks.public_sets", description="Public benchmarks of completion.")
    parser.add_argument("--set", required=True, choices=public_sets.READERS)
    parser.add_argument("--file", type=absolute_uri, required=True, metavar="FILE", help="a file of the set")
    parser.add_argument("--model", type=absolute_uri, required=True, metavar="URI", help="folder of the model")
    parser.add_argument("--limit", type=integer("the number of tasks", 0), default=0, metavar="N", help="the first N")
    parser.add_argument("--max-new-tokens", type=integer("the number of tokens", 1), default=128, metavar="N")
    completions.option(parser)
    options = parser.parse_args(arguments)
    tasks = public_sets.read(options.set, options.file, options.limit)
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
    print(json.dumps({"set": options.set, "tasks": len(tasks), **_figures(tasks, outputs, finished)}))


def _figures(
    tasks: Sequence[public_sets.PublicTask], outputs: Sequence[str], finished: Sequence[bool]
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
    tested = [outcome.passed for outcome in public_sets.run(tasks, outputs) if outcome is not None]
    if not tested:
        return {"metrics": means}
    low, high = wilson(sum(tested), len(tested))
    return {
        "metrics": means,
        "pass_at_1": {"value": sum(tested) / len(tested), "low": low, "high": high, "n": len(tested)},
    }


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.public_sets", main))
