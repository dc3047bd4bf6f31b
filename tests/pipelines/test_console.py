import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.console import Console, span
from pipelines.run_table import step_names

KFP = """21:10:45.473 - INFO - Running pipeline: \x1b[95m'infill'\x1b[0m
21:10:45.600 - INFO - Executing task \x1b[96m'corpus'\x1b[0m
21:10:45.601 - INFO - Streamed logs:

    [KFP Executor 2026-11-22 21:10:46,917 INFO]: Looking for component `corpus` in --component_module_path `x.py`
    [KFP Executor 2026-11-22 21:10:46,918 INFO]: Got executor_input:
    {
        "inputs": {"parameterValues": {"preset": "debug"}}
    }
    [KFP Executor 2026-11-22 21:10:50,917 WARNING]: corpus: 2 repositories hold no file
    infill: corpus: no file is permissively licensed
21:10:53.319 - ERROR - Task \x1b[96m'corpus'\x1b[0m finished with status \x1b[91mFAILURE\x1b[0m
"""
STEPS = {
    "corpus": "corpus",
    "evaluate": "evaluate-base",
    "evaluate-2": "evaluate-sft",
    "deploy": "deploy",
    "last": "last",
}


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def console(tmp_path: Path, screen: io.StringIO, clock: Clock) -> Iterator[Console]:
    created = Console(tmp_path / "run.log", screen, STEPS, clock=clock)
    yield created
    created.close()


def begin(task: str) -> str:
    return f"21:10:45.600 - INFO - Executing task \x1b[96m'{task}'\x1b[0m\n"


def end(task: str, status: str = "SUCCESS") -> str:
    return f"21:10:53.319 - INFO - Task \x1b[96m'{task}'\x1b[0m finished with status \x1b[91m{status}\x1b[0m\n"


def log(text: str) -> str:
    return f"    [KFP Executor 2026-11-22 21:10:50,917 INFO]: {text}\n"


def test_the_terminal_has_the_steps_and_the_file_has_all(
    console: Console, screen: io.StringIO, clock: Clock, tmp_path: Path
) -> None:
    clock.now = 3.0
    for start in range(0, len(KFP), 7):
        console.write(KFP[start : start + 7])
    assert screen.getvalue().splitlines() == [
        "stage 1 of 5: corpus (after 0:03)",
        "   2 repositories hold no file",
        "   failed after 0:00",
    ]
    assert (tmp_path / "run.log").read_text() == KFP
    assert console.error == "corpus: no file is permissively licensed"


def test_a_stage_is_reported_with_its_model_its_number_and_its_time(
    console: Console, screen: io.StringIO, clock: Clock
) -> None:
    console.write(begin("corpus") + end("corpus") + begin("evaluate"))
    clock.now = 75.0
    console.write(end("evaluate") + begin("evaluate-2"))
    assert screen.getvalue().splitlines()[2:] == [
        "stage 2 of 5: evaluate base (after 0:00)",
        "   done in 1:15",
        "stage 3 of 5: evaluate sft (after 1:15)",
    ]


def test_a_deployment_that_is_left_out_is_reported(console: Console, screen: io.StringIO) -> None:
    for task in ("corpus", "evaluate", "evaluate-2", "last"):
        console.write(begin(task) + end(task))
    assert screen.getvalue().splitlines()[-3:-1] == [
        "stage 4 of 5: deploy, skipped: no model passed the gate",
        "stage 5 of 5: last (after 0:00)",
    ]


def test_progress_is_thinned_out_but_for_a_steps_last_line(console: Console, screen: io.StringIO, clock: Clock) -> None:
    console.write(begin("corpus"))
    clock.now = 5.0
    for done in range(1, 5):
        console.write(log(f"corpus: shard {done} of 4"))
    console.write(end("corpus"))
    assert screen.getvalue().splitlines()[1:] == ["   shard 1 of 4", "   shard 4 of 4", "   done in 0:05"]


def test_a_long_step_is_never_silent(tmp_path: Path, screen: io.StringIO) -> None:
    console = Console(tmp_path / "run.log", screen, STEPS, silent_s=0.05)
    console.write(begin("corpus"))
    deadline = time.monotonic() + 10
    while "running" not in screen.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    console.close()
    assert "   running, 0:00 so far\n" in screen.getvalue()


def test_a_watcher_that_leaves_does_not_end_the_run(tmp_path: Path) -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    console = Console(tmp_path / "run.log", Gone(), STEPS)
    console.write(begin("corpus"))
    console.close()


def test_every_step_of_the_pipeline_has_a_name_of_its_own() -> None:
    names = list(step_names().values())
    assert len(set(names)) == len(names) > 10
    assert {"evaluate-base", "evaluate-sft", "evaluate-dpo"} < set(names)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3_600, "1:00:00"), (5_025, "1:23:45")])
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text
