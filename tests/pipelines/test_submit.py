"""`infill pipeline submit|status|logs|cancel` against an HTTP server that speaks KFP's REST API."""

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from components.images import NAMES
from infill import cli, tracking
from infill.errors import InputError, ServiceError
from pipelines import pod_names, run_table, service, submit
from tests.kube.apiserver import Fault
from tests.kube.kfp import Kfp
from tests.mlflow_store import Server as Mlflow

IMAGES = ("pipeline", "train", "transformer", "predictor")
STORE = ["--store", "s3://bucket/infill", "--preset", "debug"]
TASKS = {key.replace("-", "_"): "SUCCEEDED" for key in run_table.step_names()}


@pytest.fixture
def kfp(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kfp]:
    """A KFP without users; KFP_HOST names it. Following asks quickly."""
    for name in ("KFP_TOKEN", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    images = tmp_path_factory.mktemp("images") / "images.json"
    images.write_text(json.dumps({name: f"registry.example/infill-{name}@sha256:{'1' * 64}" for name in NAMES}))
    monkeypatch.setenv("INFILL_IMAGES", str(images))
    with Kfp().running() as started:
        monkeypatch.setenv("KFP_HOST", started.url)
        yield started


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Follow without long pauses."""
    follow = run_table.follow
    monkeypatch.setattr(run_table, "follow", lambda *given: follow(*given, pause=0.05, outage=2.0))


def run(*words: str) -> int:
    return cli.main(["pipeline", *words])


@contextmanager
def meanwhile(kfp: Kfp, script: Callable[[str], None]) -> Iterator[None]:
    """KFP's part, in a thread, once there is a run."""

    def wait() -> None:
        for _ in range(400):
            if kfp.runs:
                break
            time.sleep(0.05)
        script(next(iter(kfp.runs)))

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def succeed(kfp: Kfp) -> Callable[[str], None]:
    def script(name: str) -> None:
        kfp.set(name, "RUNNING", preflight="SUCCEEDED", preflight_driver="SUCCEEDED", corpus="RUNNING")
        time.sleep(0.3)
        kfp.set(name, "SUCCEEDED", **TASKS)

    return script


def test_a_run_is_started_followed_and_reported(kfp: Kfp, quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    with meanwhile(kfp, succeed(kfp)):
        assert run("submit", *STORE, "--set", "sft.train.steps=3", "--budget", "2") == 0
    captured = capsys.readouterr()
    ((name, item),) = kfp.runs.items()
    assert item["runtime_config"]["parameters"] == {
        "preset": "debug",
        "store": "s3://bucket/infill",
        "settings": '{"sft.train.steps": 3}',
        "budget": 2.0,
    }
    summary = json.loads(captured.out.splitlines()[-1])
    assert summary["state"] == "SUCCEEDED"
    assert summary["url"] == f"{kfp.url}/#/runs/details/{name}"
    assert summary["steps"]["evaluate-sft"] == 65.0
    assert f"{kfp.url}/#/runs/details/{name}" in captured.err
    assert "corpus: RUNNING" in captured.err
    assert "report: SUCCEEDED 1:05" in captured.err
    assert "driver" not in captured.err


def test_an_unchanged_pipeline_is_uploaded_once(kfp: Kfp, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for state in ("uploaded", "reused"):
        assert run("submit", *STORE, "--no-wait") == 0
        assert json.loads(capsys.readouterr().out)["pipeline"] == state
    assert len(kfp.uploads) == len(kfp.versions) == len(kfp.pipelines) == len(kfp.experiments) == 1
    assert len(kfp.runs) == 2
    cli.main(["pipeline", "compile", "--to", str(tmp_path / "p.yaml")])
    assert kfp.uploads[0] == (tmp_path / "p.yaml").read_text()


def test_parameters_come_from_a_file_and_options_go_before_them(kfp: Kfp, tmp_path: Path) -> None:
    given = {"store": "s3://team/x", "preset": "small", "budget": 5, "settings": {"seed": 1, "sft.train.steps": 9}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(given))
    assert run("submit", "--parameters", str(tmp_path / "run.yaml"), "--seed", "7", "--no-wait") == 0
    (item,) = kfp.runs.values()
    expected = {**given, "settings": '{"seed": 7, "sft.train.steps": 9}'}
    assert item["runtime_config"]["parameters"] == expected
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(expected))  # as a run's page shows them
    assert run("submit", "--parameters", str(tmp_path / "run.yaml"), "--no-wait") == 0
    assert [item["runtime_config"]["parameters"] for item in kfp.runs.values()] == [expected, expected]


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ("- 1", "is not a file of parameters"),
        ("{", "is not a file of parameters"),
        ("colour: red", "unknown parameter 'colour'; choose from store, preset, settings, budget"),
        ("settings: [1]", "settings must be an object"),
        ("settings: {a.b: 1}", "unknown setting 'a.b'"),
        ("preset: none", "unknown preset"),
        ("preset: debug", "the run has no store"),
        ("store: /tmp/x", "store must be the URI of an object store"),
    ],
)
def test_parameters_that_cannot_be_used_start_nothing(
    kfp: Kfp, tmp_path: Path, capsys: pytest.CaptureFixture[str], parameters: str, sentence: str
) -> None:
    (tmp_path / "run.yaml").write_text(parameters)
    assert run("submit", "--parameters", str(tmp_path / "run.yaml")) == 2
    assert sentence in capsys.readouterr().err
    assert not [request for request in kfp.requests if request[0] == "POST"]


def test_a_failed_run_ends_with_its_reason(kfp: Kfp, quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(name: str) -> None:
        kfp.set(name, "FAILED", preflight="SUCCEEDED", corpus="FAILED")
        kfp.runs[name]["run_details"]["task_details"][1]["error"] = {"message": "exit code 22"}

    with meanwhile(kfp, fail):
        assert run("submit", *STORE) == 1
    (name,) = kfp.runs
    output = capsys.readouterr().err
    assert (
        f"run {name} ended as FAILED: step corpus failed (exit code 22); see infill pipeline logs {name} corpus"
        in output
    )


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_wrong_token_is_one_sentence(
    kfp: Kfp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], token: str
) -> None:
    kfp.token = "right"
    monkeypatch.setenv("KFP_TOKEN", token) if token else None
    started = time.monotonic()
    assert run("submit", *STORE) == 2
    captured = capsys.readouterr()
    assert "rejects the login (401)" in captured.err
    assert ("renew the token in KFP_TOKEN" if token else "put a token into KFP_TOKEN") in captured.err
    assert len(captured.err.splitlines()) == 1
    assert time.monotonic() - started < 30
    assert not kfp.pipelines
    monkeypatch.setenv("KFP_TOKEN", "right")
    assert run("submit", *STORE, "--no-wait") == 0
    assert "right" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Fault("GET", "pipelines", times=9, status=403), "rejects the login (403)"),
        (Fault("POST", "upload_version", status=400), "answered 400: made up by the test"),
        (Fault("GET", "pipelines", times=9, status=500), "answered 500"),
        (Fault("GET", "pipelines", times=9, drop=True), "does not answer"),
    ],
)
def test_a_kfp_that_refuses_is_reported(
    kfp: Kfp, capsys: pytest.CaptureFixture[str], fault: Fault, sentence: str
) -> None:
    kfp.faults.append(fault)
    assert run("submit", *STORE) == 2
    assert sentence in capsys.readouterr().err
    assert not kfp.runs


def test_a_login_page_is_not_taken_for_kfp(kfp: Kfp, capsys: pytest.CaptureFixture[str]) -> None:
    kfp.login_page = True
    assert run("status", "x") == 2
    assert "perhaps a login page" in capsys.readouterr().err


def test_a_run_is_started_once_whatever_the_server_does(kfp: Kfp, capsys: pytest.CaptureFixture[str]) -> None:
    kfp.faults.append(Fault("POST", "v2beta1/runs$", status=503))
    assert run("submit", *STORE) == 2
    assert len([path for verb, path in kfp.requests if verb == "POST" and path.endswith("/runs")]) == 1


def test_slow_and_failing_answers_are_lived_with(kfp: Kfp, quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    kfp.faults += [
        Fault("GET", "pipelines", status=503),
        Fault("GET", "experiments", drop=True),
        Fault("GET", "runs/", wait=0.3),
        Fault("GET", "runs/", times=4, status=502),
        Fault("GET", "runs/", times=4, drop=True),
    ]
    with meanwhile(kfp, succeed(kfp)):
        assert run("submit", *STORE) == 0


def test_a_kfp_that_stays_away_is_reported(kfp: Kfp) -> None:
    there = service.connect(kfp.url)
    kfp.faults.append(Fault("GET", "runs/", times=99, status=503))
    started = time.monotonic()
    with pytest.raises(ServiceError, match="answered 503"):
        run_table.follow(there, "x", Console(file=io.StringIO()), pause=0.05, outage=1.0)
    assert time.monotonic() - started < 10


def test_a_server_that_hangs_is_not_waited_for(kfp: Kfp) -> None:
    from dataclasses import replace

    kfp.faults.append(Fault("GET", "runs/", times=9, wait=5.0))
    hasty = replace(service.connect(kfp.url), timeout=0.3, attempts=2)
    with pytest.raises(ServiceError, match="does not answer"):
        hasty.run("x")


def start(kfp: Kfp) -> str:
    assert run("submit", *STORE, "--no-wait") == 0
    return next(iter(kfp.runs))


def test_status_shows_a_table(kfp: Kfp, capsys: pytest.CaptureFixture[str]) -> None:
    name = start(kfp)
    kfp.set(name, "RUNNING", preflight="SUCCEEDED", corpus="RUNNING", tokenizer="PENDING")
    capsys.readouterr()
    assert run("status", name) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["steps"] == {"preflight": "SUCCEEDED", "corpus": "RUNNING", "tokenizer": "PENDING"}
    rows = [line for line in captured.err.splitlines() if "│" in line]
    assert len(rows) == len(run_table.step_names())
    assert "1:05" in rows[0]
    assert run("status", "none") == 2
    assert "does not have this" in capsys.readouterr().err


def test_on_a_terminal_the_table_lives(kfp: Kfp) -> None:
    name = start(kfp)
    screen = io.StringIO()
    with meanwhile(kfp, succeed(kfp)):
        console = Console(file=screen, force_terminal=True, width=100)
        run_table.follow(service.connect(kfp.url), name, console, pause=0.05)
    assert "RUNNING" in screen.getvalue()
    assert "evaluate-dpo" in screen.getvalue()


def test_a_run_that_does_not_begin_is_reported(kfp: Kfp) -> None:
    name, screen = start(kfp), io.StringIO()

    def later(run: str) -> None:
        time.sleep(0.5)
        kfp.set(run, "SUCCEEDED", **TASKS)

    with meanwhile(kfp, later):
        run_table.follow(service.connect(kfp.url), name, Console(file=screen), pause=0.05, patience=0.2)
    assert screen.getvalue().count("no step has begun for 0 s; check its image") == 1


def test_images_without_digests_are_refused(
    kfp: Kfp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "images.json").write_text(json.dumps({name: f"infill-{name}:0.1.0" for name in IMAGES}))
    monkeypatch.setenv("INFILL_IMAGES", str(tmp_path / "images.json"))
    assert run("submit", *STORE) == 2
    assert "the images have no digests (infill-pipeline:" in capsys.readouterr().err
    assert kfp.requests == []


def test_leaving_does_not_stop_the_run(kfp: Kfp, monkeypatch: pytest.MonkeyPatch) -> None:
    name = start(kfp)
    monkeypatch.setattr(time, "sleep", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(run_table.LeftError, match=f"the run continues; see infill pipeline status {name}") as left:
        run_table.follow(service.connect(kfp.url), name, Console(file=io.StringIO()))
    assert left.value.exit_code == 130
    assert kfp.runs[name]["state"] == "PENDING"


def test_cancel_stops_the_run(kfp: Kfp, capsys: pytest.CaptureFixture[str]) -> None:
    name = start(kfp)
    capsys.readouterr()
    assert run("cancel", name) == 0
    assert json.loads(capsys.readouterr().out) == {"run": name, "state": "CANCELING"}
    kfp.runs[name]["state"] = "FAILED"
    assert run("cancel", name) == 0
    assert json.loads(capsys.readouterr().out) == {"run": name, "state": "FAILED"}


EVALUATE = "w.root.for-loop-1.evaluate-2"
NODES = {
    "w": ["w.root-driver"],
    "w.root-driver": ["w.root"],
    "w.root": ["w.root.corpus-driver"],
    "w.root.corpus-driver": ["w.root.corpus"],
    "w.root.corpus": ["w.root.corpus.executor"],
    "w.root.corpus.executor": ["w.root.for-loop-1"],
    "w.root.for-loop-1": [f"{EVALUATE}-driver"],
    f"{EVALUATE}-driver": [EVALUATE],
    EVALUATE: [f"{EVALUATE}.executor"],
    f"{EVALUATE}.executor": [f"{EVALUATE}.executor(0)", f"{EVALUATE}.executor(10)", f"{EVALUATE}.executor(2)"],
    f"{EVALUATE}.executor(0)": [],
    f"{EVALUATE}.executor(10)": [],
    f"{EVALUATE}.executor(2)": [],
}
"""A workflow: `corpus` may not be retried, and the evaluation has begun thrice."""
ATTEMPTS = [f"w-retry-system-container-impl-{pod_names.fnv(f'{EVALUATE}.executor({number})')}" for number in (0, 2, 10)]


STOCK = {
    "w": ["w(0)"],
    "w(0)": ["w(0).root"],
    "w(0).root": ["w(0).root(0)"],
    "w(0).root(0)": ["w(0).root(0).sft-driver"],
    "w(0).root(0).sft-driver": ["w(0).root(0).sft-driver(0)"],
    "w(0).root(0).sft-driver(0)": ["w(0).root(0).sft"],
    "w(0).root(0).sft": ["w(0).root(0).sft(0)", "w(0).root(0).sft(1)"],
    "w(0).root(0).sft(0)": ["w(0).root(0).sft(0).executor"],
    "w(0).root(0).sft(0).executor": ["w(0).root(0).sft(0).executor(0)", "w(0).root(0).sft(0).executor(1)"],
    "w(0).root(0).sft(0).executor(0)": [],
    "w(0).root(0).sft(0).executor(1)": [],
    "w(0).root(0).sft(1)": ["w(0).root(0).sft(1).executor"],
    "w(0).root(0).sft(1).executor": ["w(0).root(0).sft(1).executor(0)"],
    "w(0).root(0).sft(1).executor(0)": [],
}
"""Shaped as in a run of KFP 2.17 as it is installed, which lets Argo retry every node."""


def test_a_workflows_ids_are_hashes() -> None:
    assert [pod_names.fnv(text) for text in ("", "a", "foobar")] == [0x811C9DC5, 0xE40C292C, 0xBF9CF968]


def test_logs_are_those_of_the_steps_own_pods(kfp: Kfp, capsys: pytest.CaptureFixture[str]) -> None:
    name = start(kfp)
    kfp.nodes(name, "SUCCEEDED", NODES)
    kfp.logs = {ATTEMPTS[1]: "broke\n", ATTEMPTS[2]: "first\nlast\n"}  # that of the first attempt is gone
    kfp.logs[f"w-system-container-impl-{pod_names.fnv('w.root.corpus.executor')}"] = "documents\n"
    capsys.readouterr()
    assert run("logs", name, "evaluate-sft") == 0
    assert capsys.readouterr().out == "broke\nfirst\nlast\n"
    assert run("logs", name, "corpus", "--follow") == 0
    assert capsys.readouterr().out == "documents\n"
    assert run("logs", name, "dpo") == 2
    assert "has no log" in capsys.readouterr().err
    assert run("logs", name, "colour") == 2
    assert "unknown step 'colour'" in capsys.readouterr().err


def test_logs_of_a_workflow_whose_every_node_may_be_retried(kfp: Kfp, capsys: pytest.CaptureFixture[str]) -> None:
    name = start(kfp)
    kfp.nodes(name, "SUCCEEDED", STOCK)
    attempts = ["sft(0).executor(0)", "sft(0).executor(1)", "sft(1).executor(0)"]
    pods = [f"w-retry-system-container-impl-{pod_names.fnv(f'w(0).root(0).{each}')}" for each in attempts]
    kfp.logs = {pod: f"{attempt}\n" for pod, attempt in zip(pods, attempts, strict=True)}
    capsys.readouterr()
    assert run("logs", name, "sft") == 0
    assert capsys.readouterr().out.split() == attempts


def test_a_log_is_followed_to_the_steps_end(
    kfp: Kfp, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = start(kfp)
    kfp.nodes(name, "RUNNING", NODES)
    capsys.readouterr()
    later = iter([{ATTEMPTS[2]: "first\n"}, {ATTEMPTS[2]: "first\nsecond\n"}, {ATTEMPTS[2]: "first\nsecond\nlast\n"}])

    def sleep(_seconds: float) -> None:
        kfp.logs = next(later)
        kfp.nodes(name, "SUCCEEDED" if "last" in kfp.logs[ATTEMPTS[2]] else "RUNNING", NODES)

    monkeypatch.setattr(time, "sleep", sleep)
    assert run("logs", name, "evaluate-sft", "--follow") == 0
    assert capsys.readouterr().out == "first\nsecond\nlast\n"


def test_mlflow_is_linked(kfp: Kfp, mlflow_server: Mlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_table.mlflow_page({"run_id": "r"}) == ""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    parent = tracking.parent_run("infill-debug", "r")
    assert run_table.mlflow_page({"run_id": "r"}).startswith(f"{mlflow_server.uri}/#/experiments/")
    assert run_table.mlflow_page({"run_id": "r"}).endswith(f"/runs/{parent}")
    assert run_table.mlflow_page({"run_id": "another"}) == ""
    plugin: dict[str, Any] = {"mlflow": {"entries": {"run_url": {"value": "https://mlflow.example/#/runs/1"}}}}
    assert run_table.mlflow_page({"run_id": "r", "plugins_output": plugin}) == "https://mlflow.example/#/runs/1"


def test_settings_are_checked_before_anything_is_asked(kfp: Kfp) -> None:
    with pytest.raises(InputError, match="no store"):
        submit.submit(service.connect(kfp.url), {"preset": "debug"})
    assert kfp.requests == []
