import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from infill.errors import InputError
from infill.evaluate import humaneval, sandbox
from infill.evaluate.generation import Generator, SampledCompletion
from tests import benchmark_data, builders

TASKS: list[dict[str, Any]] = [
    {
        "task_id": f"SingleLineInfilling/Made/{number}",
        "entry_point": "add",
        "prompt": f"def add(a, b):\n    c = a + {number}\n",
        "suffix": f"    return c - {number}\n",
        "canonical_solution": "    c += b\n",
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(5, 5) == 10\n",
    }
    for number in range(6)
]


@pytest.fixture
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gzip.open(tmp_path / humaneval.SETS["single-line"], "wt") as file:
        file.writelines(json.dumps(task) + "\n" for task in TASKS)
    monkeypatch.setenv(humaneval.FOLDER, str(tmp_path))


def _judge(outputs: list[str], name: str = "multi-line", seconds: float = 20.0) -> dict[str, Any]:
    tasks = [humaneval.HumanEvalTask(**task) for task in TASKS[: len(outputs)]]
    completions = [SampledCompletion(text=output, finished=True, tokens=1) for output in outputs]
    return humaneval.judge(tasks, completions, name, seconds)


def test_canonical_solutions_pass_and_wrong_ones_fail() -> None:
    result = _judge([TASKS[0]["canonical_solution"], "    c -= b\n", "    c +=\n", ""])
    assert [row["outcome"] for row in result["tasks"]] == ["passed", "failed", "failed", "failed"]
    assert result["pass_at_1"]["value"] == 0.25
    assert 0 < result["pass_at_1"]["low"] < 0.25 < result["pass_at_1"]["high"] < 1


def test_an_endless_completion_times_out() -> None:
    assert _judge(["    while True: pass\n"], seconds=1.0)["tasks"][0]["outcome"] == "timeout"


def test_truncation_forgives_what_follows_and_is_reported_as_well() -> None:
    again = "    c += b\n    return c - 0\n\nassert False\n"
    result = _judge([again])
    assert (result["pass_at_1"]["value"], result["pass_at_1_truncated"]["value"]) == (0.0, 1.0)
    assert _judge(["    c += b\n    c = 7\n"], "single-line")["pass_at_1_truncated"]["value"] == 1.0


@pytest.mark.parametrize(
    ("output", "single_line", "kept"),
    [
        ("a\nb\n", True, "a\n"),
        ("a\nb\n", False, "a\nb\n"),
        ("a\n    tail\nb\n", False, "a\n"),
        ("", True, ""),
    ],
)
def test_truncate(output: str, single_line: bool, kept: str) -> None:
    assert humaneval.truncate(output, "\n  tail\nmore", single_line=single_line) == kept


@pytest.mark.usefixtures("_data")
def test_a_limit_is_spread_over_the_file() -> None:
    assert [task.task_id[-1] for task in humaneval.load("single-line", 3)] == ["0", "2", "4"]
    assert len(humaneval.load("single-line")) == len(humaneval.load("single-line", 99)) == 6
    assert [len(humaneval.load("single-line", limit)) for limit in range(1, 7)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.usefixtures("_data")
def test_a_model_is_evaluated_from_prompt_to_verdict(tmp_path: Path) -> None:
    builders.tiny_model(tmp_path / "model")
    generator, tasks = Generator(tmp_path / "model"), humaneval.load("single-line", 2)
    completed = generator.complete(humaneval.prompts(generator, tasks, max_new_tokens=4), max_new_tokens=4)
    result = humaneval.judge(tasks, completed, "single-line")
    assert [row["task_id"] for row in result["tasks"]] == [TASKS[0]["task_id"], TASKS[3]["task_id"]]
    assert result["pass_at_1"]["n"] == 2


@pytest.mark.skipif(not benchmark_data.FOLDER, reason="the benchmark's data is not here")
@pytest.mark.parametrize("name", humaneval.SETS)
def test_published_solutions_pass_and_stubs_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(humaneval.FOLDER, benchmark_data.FOLDER)
    tasks = humaneval.load(name, 6)
    checks = [task.check for task in tasks]
    outcomes = sandbox.run_all([task.solution(task.canonical_solution) for task in tasks], checks=checks, seconds=20)
    assert [outcome.status for outcome in outcomes] == ["passed"] * 6
    stubs = sandbox.run_all([task.solution("    pass\n") for task in tasks], checks=checks, seconds=20)
    assert not any(outcome.passed for outcome in stubs)
    assert sandbox.run(tasks[0].program(tasks[0].canonical_solution), seconds=20).passed  # as upstream runs it


def test_missing_data_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="choose one of single-line"):
        humaneval.load("double-line")
    monkeypatch.delenv(humaneval.FOLDER, raising=False)
    with pytest.raises(InputError, match="set INFILL_BENCH_DIR"):
        humaneval.load("single-line")
    monkeypatch.setenv(humaneval.FOLDER, str(tmp_path))
    with pytest.raises(InputError, match="is missing"):
        humaneval.load("single-line")
    (tmp_path / humaneval.SETS["single-line"]).write_bytes(b"no gzip")
    with pytest.raises(InputError, match="is damaged"):
        humaneval.load("single-line")


@pytest.mark.usefixtures("_data")
def test_a_model_that_cannot_fill_in_sees_the_prefix_alone(tmp_path: Path) -> None:
    generator = Generator(Path(builders.tiny_model(tmp_path / "model")))
    asked = humaneval.prompts(generator, humaneval.load("single-line", 2), max_new_tokens=2, prefix_only=True)
    assert [generator.encoder.decode(ids) for ids in asked] == [TASKS[0]["prompt"], TASKS[3]["prompt"]]
