"""pass@1 of a model on HumanEval-Infilling, each completion executed in the sandbox.

    INFILL_BENCH_DIR=DIR python -m benchmarks.humaneval --model URI [--set single-line] [--limit N] [--prefix-only]
        [--keep FILE]

DIR holds the files of github.com/openai/human-eval-infilling. Completions are greedy; pass@1 is reported, with 95 %
intervals, for the whole completion and for the completion cut where an editor would cut it; and for each metric of
`infill.metrics` its agreement with passing the tests (AUC), so that one knows which to trust where there are no tests.
With `--keep` a killed run resumes.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks import completions
from infill import entry, manifest, metrics
from infill.cli_options import absolute_uri, integer
from infill.evaluate import humaneval
from infill.evaluate.agreement import agreement
from infill.evaluate.generation import Generator

QUICK: Final = 40
"""Number of tasks of a quick run."""
RESAMPLES: Final = 1_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = entry.Parser(prog="python -m benchmarks.humaneval", description="HumanEval-Infilling, executed.")
    parser.add_argument("--model", type=absolute_uri, required=True, metavar="URI", help="folder of the model")
    parser.add_argument("--set", default="single-line", choices=humaneval.SETS)
    parser.add_argument(
        "--limit",
        type=integer("the number of tasks", 0),
        default=0,
        metavar="N",
        help="N tasks, spread over the set; 0 for all",
    )
    parser.add_argument("--max-new-tokens", type=integer("the number of tokens", 1), default=128, metavar="N")
    parser.add_argument("--prefix-only", action="store_true", help="for a model that cannot fill in the middle")
    completions.option(parser)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} tasks")
    options = parser.parse_args(arguments)
    tasks = humaneval.load(options.set, QUICK if options.quick else options.limit)
    generator = Generator(manifest.fetch(options.model))
    completed = completions.complete(
        generator,
        humaneval.prompts(generator, tasks, max_new_tokens=options.max_new_tokens, prefix_only=options.prefix_only),
        model=completions.model_key(options.model),
        max_new_tokens=options.max_new_tokens,
        keep=options.keep,
    )
    result = humaneval.judge(tasks, completed, options.set)
    rows = result.pop("tasks")
    for row in rows:
        print(f"{row['outcome']:8} {row['outcome_truncated']:8} {row['task_id']}")
    result["agreement"] = _agreement(tasks, rows)
    print(f"\n{'metric':24} AUC   95 % interval")
    for name, area in sorted(result["agreement"].items(), key=lambda item: -item[1]["value"]):
        print(f"{name:24} {area['value']:.3f} {area['low']:.3f} to {area['high']:.3f}")
    print(json.dumps(result))


def _agreement(
    tasks: Sequence[humaneval.HumanEvalTask], rows: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """Return how each metric of the completions agrees with their outcomes; only metrics that are not all the same."""
    scores: dict[str, list[float]] = defaultdict(list)
    for task, row in zip(tasks, rows, strict=True):
        around = {"prefix": task.prompt, "suffix": task.suffix, "language": "python"}
        middle = task.canonical_solution
        for name, value in metrics.score(row["output"], middle, **around, finished=row["finished"]).items():
            scores[name].append(value)
    varied = {name: values for name, values in scores.items() if len(set(values)) > 1}
    return agreement(varied, [row["outcome"] == "passed" for row in rows], resamples=RESAMPLES, seed=0)


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.humaneval", main))
