"""`infill pipeline schedule` against an HTTP server that speaks KFP's REST API."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.images import NAMES
from infill import cli
from tests.kube.apiserver import Fault
from tests.kube.kfp import Kfp
from tests.pipelines.test_submit import STORE, kfp

__all__ = ["kfp"]

NIGHTLY = ["--name", "nightly", "--cron", "0 3 * * *"]


def run(*words: str) -> int:
    return cli.main(["pipeline", "schedule", *words])


def result(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert run(*words) == 0
    return json.loads(capsys.readouterr().out)


def only(kfp: Kfp) -> dict[str, Any]:
    (recurring,) = kfp.recurring.values()
    return recurring


def test_a_schedule_starts_the_runs_that_submit_would_start(kfp: Kfp, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--set", "sft.train.steps=3", "--budget", "2"]
    created = result(capsys, "set", *NIGHTLY, *STORE, *more)
    assert cli.main(["pipeline", "submit", *STORE, *more, "--no-wait"]) == 0
    capsys.readouterr()
    (started,) = kfp.runs.values()
    recurring = only(kfp)
    for name in ("experiment_id", "pipeline_version_reference", "runtime_config"):
        assert recurring[name] == started[name]
    assert recurring["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert (recurring["max_concurrency"], recurring["no_catchup"], recurring["mode"]) == ("1", True, "ENABLE")
    assert (created["state"], created["cron"]) == ("created", "0 0 3 * * *")
    assert result(capsys, "list") == [{name: created[name] for name in ("name", "id", "status", "cron", "parameters")}]


def test_a_second_call_changes_the_schedule_of_its_name(kfp: Kfp, capsys: pytest.CaptureFixture[str]) -> None:
    result(capsys, "set", "--every", "7d", *STORE)
    first = result(capsys, "set", *NIGHTLY, *STORE)
    assert result(capsys, "set", *NIGHTLY, *STORE) == {**first, "state": "unchanged"}
    changed = result(capsys, "set", *NIGHTLY, *STORE, "--seed", "7")
    assert (changed["state"], changed["id"] == first["id"]) == ("replaced", False)
    posts = [path.rpartition("/")[2] for verb, path in kfp.requests if verb in ("POST", "DELETE")]
    assert posts[-3:] == ["recurringruns", f"{first['id']}:disable", first["id"]]
    names = {each["name"]: each for each in result(capsys, "list")}
    assert (len(kfp.recurring), names["infill"]["every_s"], names["nightly"]["id"]) == (2, 604_800, changed["id"])


def test_a_schedule_with_a_run_in_progress_is_deleted_by_a_later_call(
    kfp: Kfp, capsys: pytest.CaptureFixture[str]
) -> None:
    first = result(capsys, "set", *NIGHTLY, *STORE)
    experiment = only(kfp)["experiment_id"]
    kfp.runs["r"] = {"recurring_run_id": first["id"], "state": "RUNNING", "experiment_id": experiment}
    for seed in ("1", "2"):
        result(capsys, "set", *NIGHTLY, *STORE, "--seed", seed)
        assert [each["status"] for each in kfp.recurring.values()] == ["DISABLED", "ENABLED"]
    kfp.runs["r"]["state"] = "SUCCEEDED"
    result(capsys, "set", *NIGHTLY, *STORE, "--seed", "2")
    assert only(kfp)["status"] == "ENABLED"


@pytest.mark.parametrize(
    "fault",
    [Fault("POST", "recurringruns$", status=503), Fault("POST", ":disable$", times=9, status=500)],
    ids=["before", "after"],
)
def test_a_change_that_was_interrupted_is_completed_by_the_next_call(
    kfp: Kfp, capsys: pytest.CaptureFixture[str], fault: Fault
) -> None:
    result(capsys, "set", *NIGHTLY, *STORE)
    kfp.faults.append(fault)
    assert run("set", *NIGHTLY, *STORE, "--seed", "7") == 2
    assert next(each["status"] for each in kfp.recurring.values()) == "ENABLED"
    kfp.faults.clear()
    result(capsys, "set", *NIGHTLY, *STORE, "--seed", "7")
    assert only(kfp)["status"] == "ENABLED"
    assert only(kfp)["runtime_config"]["parameters"]["settings"] == '{"seed": 7}'


def test_a_schedule_is_disabled_enabled_and_deleted_by_its_name(kfp: Kfp, capsys: pytest.CaptureFixture[str]) -> None:
    assert result(capsys, "list") == []
    result(capsys, "set", *NIGHTLY, *STORE)
    for verb, status in (("disable", "DISABLED"), ("enable", "ENABLED"), ("disable", "DISABLED")):
        assert result(capsys, verb, "nightly") == {"name": "nightly", "status": status}
        assert only(kfp)["status"] == status
    assert result(capsys, "set", *NIGHTLY, *STORE)["state"] == "enabled"
    assert only(kfp)["status"] == "ENABLED"
    assert result(capsys, "delete", "nightly") == {"name": "nightly", "status": "DELETED"}
    assert not kfp.recurring
    for verb in ("disable", "enable", "delete"):
        assert run(verb, "nightly") == 2
        assert capsys.readouterr().err.splitlines() == [
            "infill: there is no schedule 'nightly': see infill pipeline schedule list"
        ]


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        (["--cron", "0 3 * *"], "a cron expression has five fields"),
        (["--cron", "0 3 * * $(x)"], "a cron expression has five fields"),
        (["--every", "12"], "an interval is a number of minutes, hours or days"),
        (["--every", "0h"], "an interval is a number of minutes, hours or days"),
        (["--cron", "0 99 * * *"], "answered 400: Invalid input error"),
        ([], "one of the arguments --cron --every is required"),
        (["--every", "1h", "--cron", "0 3 * * *"], "not allowed with argument"),
    ],
)
def test_times_that_cannot_be_used_are_one_sentence(
    kfp: Kfp, capsys: pytest.CaptureFixture[str], times: list[str], sentence: str
) -> None:
    try:
        code: Any = run("set", *times, *STORE)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert sentence in capsys.readouterr().err
    assert not kfp.recurring


@pytest.mark.parametrize(
    "words", [["schedule", "set", "--every", "1h"], ["schedule", "set", *NIGHTLY], ["submit", "--no-wait"]]
)
def test_runs_have_the_images_of_the_command(kfp: Kfp, tmp_path: Path, words: list[str]) -> None:
    images = {name: f"registry.example/{name}@sha256:{'7' * 64}" for name in NAMES}
    (tmp_path / "images.json").write_text(json.dumps(images))
    words = [*words, *STORE, "--host", kfp.url, "--images", str(tmp_path / "images.json")]
    variables = {name: text for name, text in os.environ.items() if name != "INFILL_IMAGES"}
    command = [sys.executable, "-m", "infill.cli", "pipeline", *words]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert images["pipeline"] in kfp.uploads[-1]
    assert "infill-pipeline:" not in kfp.uploads[-1]
