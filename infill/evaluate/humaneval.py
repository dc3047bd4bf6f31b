"""HumanEval-Infilling (Bavarian et al. 2022, arXiv 2207.14255): holes in functions, judged by running their tests.

The data is OpenAI's (MIT licence) and is read from the folder in INFILL_BENCH_DIR. Upstream's harness executes nothing
until it is edited, and counts that as passed; ours runs every program in `sandbox`.
"""

import gzip
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from infill import storage
from infill.errors import InputError
from infill.evaluate import sandbox
from infill.evaluate.generation import Generator, SampledCompletion
from infill.evaluate.statistics import wilson
from infill.prompt import FimRequest
from infill.text import split_lines

FOLDER: Final = "INFILL_BENCH_DIR"
"""Environment variable with the folder of the data."""
SETS: Final = {
    "single-line": "HumanEval-SingleLineInfilling.jsonl.gz",
    "multi-line": "HumanEval-MultiLineInfilling.jsonl.gz",
    "random-span": "HumanEval-RandomSpanInfilling.jsonl.gz",
    "random-span-light": "HumanEval-RandomSpanInfillingLight.jsonl.gz",
}
"""Upstream's file of each set, by name."""
PATH: Final = "solution.py"
"""File name in the prompt; the tasks have none."""


@dataclass(frozen=True, kw_only=True)
class HumanEvalTask:
    task_id: str
    entry_point: str
    prompt: str
    suffix: str
    canonical_solution: str
    test: str

    def program(self, middle: str) -> str:
        """Return the program that fails unless `middle` solves the task, the same as upstream's."""
        return f"{self.solution(middle)}\n{self.test}\ncheck({self.entry_point})"

    def solution(self, middle: str) -> str:
        """Return the file with `middle` in the hole."""
        return f"{self.prompt}{middle}{self.suffix}"

    @property
    def check(self) -> str:
        """The check of a solution in the sandbox: the test, where all but the tested function is the published file."""
        name = self.entry_point
        return f"{self.solution(self.canonical_solution)}\n{name} = remote({name!r})\n{self.test}\ncheck({name})"


def load(name: str, limit: int = 0) -> list[HumanEvalTask]:
    """Return the tasks of one of SETS in the file's order; with a `limit`, that many, spread evenly over the file.

    Raises InputError for an unknown set, without INFILL_BENCH_DIR, or when the file is missing or damaged.
    """
    if name not in SETS:
        raise InputError(f"unknown benchmark set {name!r}; choose one of {', '.join(SETS)}")
    folder = os.environ.get(FOLDER)
    if not folder:
        raise InputError(f"set {FOLDER} to the folder with the files of github.com/openai/human-eval-infilling")
    file = storage.local_path(folder) / SETS[name]
    try:
        with gzip.open(file) as lines:
            tasks = [HumanEvalTask(**json.loads(line)) for line in lines]
    except FileNotFoundError as error:
        raise InputError(f"{file} is missing; set {FOLDER} to the folder that contains it") from error
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise InputError(f"{file} is damaged ({error}); fetch it again") from error
    count = min(limit or len(tasks), len(tasks))
    return [tasks[place * len(tasks) // count] for place in range(count)]


def truncate(output: str, suffix: str, *, single_line: bool) -> str:
    """Return the part of the output before it repeats the suffix; in a single-line set, only its first line.

    The output repeats the suffix where a whole line equals the suffix's first line that is not blank.
    """
    lines = split_lines(output, keepends=True)
    if single_line:
        return "".join(lines[:1])
    following = next((line.strip() for line in split_lines(suffix) if line.strip()), "")
    for number, line in enumerate(lines):
        if following and line.strip() == following:
            return "".join(lines[:number])
    return output


def prompts(
    generator: Generator, tasks: Sequence[HumanEvalTask], *, max_new_tokens: int, prefix_only: bool = False
) -> list[list[int]]:
    """Return the token ids of the prompt of each task for `generator`.

    With `prefix_only`, a prompt is only the text before the hole, without control tokens: a fair test of a model that
    never learned to fill in the middle.
    """
    budget = generator.context_length - max_new_tokens
    if prefix_only:
        return [generator.encoder.encode(task.prompt)[-budget:] for task in tasks]
    requests = [FimRequest(path=PATH, prefix=task.prompt, suffix=task.suffix) for task in tasks]
    return [generator.prompt(request, budget) for request in requests]


def judge(
    tasks: Sequence[HumanEvalTask],
    completions: Sequence[SampledCompletion],
    name: str,
    seconds: float = 5.0,
) -> dict[str, Any]:
    """Run the completions of `tasks`, of the set `name`, each unchanged and truncated (once if both are equal).

    Returns pass@1 of both with Wilson intervals (`pass_at_1` and `pass_at_1_truncated`: value, low, high) and `tasks`:
    id, output and the two outcomes of each. Raises InputError when this machine offers no isolation.
    """
    outputs = [completion.text for completion in completions]
    cut = [
        truncate(output, task.suffix, single_line=name == "single-line")
        for task, output in zip(tasks, outputs, strict=True)
    ]
    runs = [
        (task.solution(text), task.check) for task, *texts in zip(tasks, outputs, cut, strict=True) for text in texts
    ]
    distinct = list(dict.fromkeys(runs))
    programs, checks = zip(*distinct, strict=True) if distinct else ((), ())
    outcomes = dict(zip(distinct, sandbox.run_all(programs, checks=checks, seconds=seconds), strict=True))
    rows = [
        {
            "task_id": task.task_id,
            "output": output,
            "finished": completion.finished,
            "outcome": outcomes[task.solution(output), task.check].status,
            "outcome_truncated": outcomes[task.solution(short), task.check].status,
        }
        for task, completion, output, short in zip(tasks, completions, outputs, cut, strict=True)
    ]
    return {
        "set": name,
        "pass_at_1": _share(rows, "outcome"),
        "pass_at_1_truncated": _share(rows, "outcome_truncated"),
        "finished": sum(completion.finished for completion in completions) / max(1, len(tasks)),
        "isolation": sandbox.isolation(),
        "isolation_missing": sandbox.layers(),
        "tasks": rows,
    }


def _share(rows: Sequence[dict[str, Any]], column: str) -> dict[str, float]:
    passed = sum(row[column] == "passed" for row in rows)
    low, high = wilson(passed, len(rows))
    return {"value": passed / max(1, len(rows)), "low": low, "high": high, "n": float(len(rows))}
