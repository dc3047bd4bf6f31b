"""Tests of the tracker on a real MLflow: sqlite, and a server on the loopback."""

import logging
import os
import shutil
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.entities import Run

from infill import config, machine, tracking
from infill.errors import InputError, ServiceError
from tests.mlflow_store import Server


@dataclass(frozen=True, kw_only=True)
class _Inner:
    batch_tokens: int = 16
    api_key: str = "sk-123"


@dataclass(frozen=True, kw_only=True)
class _Config:
    inner: _Inner = field(default_factory=_Inner)
    source: str = "s3://user:pass@host/bucket?X-Amz-Signature=abc&part=1"
    floors: tuple[tuple[str, float], ...] = (("kk", 0.5),)
    empty_secret: str = ""


def _runs(stage: str) -> list[Run]:
    client = tracking.client()
    experiment = client.get_experiment_by_name("infill")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.`{tracking.STAGE_TAG}` = '{stage}'"))


def test_flatten_names_fields_by_their_path_and_hides_secrets() -> None:
    assert tracking.flatten(_Config()) == {
        "inner.batch_tokens": "16",
        "inner.api_key": "***",
        "source": "s3://***@host/bucket?X-Amz-Signature=***&part=1",
        "floors": '[["kk", 0.5]]',
        "empty_secret": "",
    }


def test_every_preset_can_be_flattened_without_hiding_a_setting() -> None:
    for preset in config.PRESETS.values():
        assert "***" not in tracking.flatten(preset()).values()


def test_a_long_value_is_cut_to_what_mlflow_takes() -> None:
    assert len(tracking.flatten({"long": "x" * 7_000})["long"]) == 6_000


@settings(deadline=None)
@given(user=st.text("ab:@", min_size=1), host=st.from_regex(r"\A[a-z]{1,9}\Z"))
def test_no_part_of_a_password_survives_masking(user: str, host: str) -> None:
    assert tracking.mask(f"https://{user}@{host}/x") == f"https://***@{host}/x"


def test_without_an_address_nothing_is_tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with tracking.stage_run("corpus", config=_Config()) as tracker:
        tracker.metrics({"loss": 1.0}, step=3)
        tracker.params({"a": 1})
        tracker.tags({"a": "b"})
        tracker.artifact("nowhere")
        tracker.table("rows", [])
        assert tracking.current().run_id == ""
    assert tracking.parent_run("demo", "key") == ""
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI is not set"):
        tracking.client()


def test_a_remote_output_cannot_hold_the_database() -> None:
    with pytest.raises(InputError, match="set MLFLOW_TRACKING_URI"):
        tracking.local_store("s3://bucket/run")


def test_a_stage_logs_parameters_metrics_over_tokens_tables_and_files(mlflow_store: Path) -> None:
    note = mlflow_store / "note.txt"
    note.write_text("hello")
    with tracking.stage_run("pretrain", config=_Config(), tags={"infill.output": "https://u:p@host/x"}) as tracker:
        assert tracking.current() is tracker
        for step in range(3):
            tracker.metrics({"loss (mean)": 3.0 - step}, step=1_000 * step)
        tracker.artifact(note, "notes")
        tracker.table("samples", [{"hole": 1, "output": "a"}, {"hole": 2, "output": "b"}])
        tracker.tags({"infill.winner": "sft"})
    assert tracking.current().run_id == ""
    client, run = tracking.client(), _runs("pretrain")[0]
    assert run.info.status == "FINISHED"
    assert run.data.params["inner.api_key"] == "***"
    assert run.data.tags["infill.output"] == "https://***@host/x"
    assert run.data.tags["infill.winner"] == "sft"
    history = client.get_metric_history(run.info.run_id, "loss _mean_")
    assert [(point.step, point.value) for point in history] == [(0, 3.0), (1_000, 2.0), (2_000, 1.0)]
    assert "system/process_memory_megabytes" in run.data.metrics
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["notes", "samples.json"]
    assert (mlflow_store / "mlflow" / "artifacts" / run.info.run_id / "artifacts" / "notes" / "note.txt").is_file()


def test_stages_nest_under_the_pipeline_and_a_repeated_one_takes_up_its_run(
    mlflow_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = tracking.parent_run("demo", "key", tags={"infill.preset": "demo"}, config=_Config())
    monkeypatch.setenv(tracking.PARENT_RUN, parent)
    with pytest.raises(KeyError), tracking.stage_run("sft", config=_Config()):
        raise KeyError("a defect")
    first = _runs("sft")[0]
    assert (first.info.status, first.data.tags["mlflow.parentRunId"]) == ("FAILED", parent)
    with tracking.stage_run("sft", config=_Config()) as tracker:
        assert (tracker.run_id, tracker.parent_id) == (first.info.run_id, parent)
    with tracking.stage_run("sft", config=_Config(), key="another artifact") as other:
        assert other.run_id != first.info.run_id
    assert tracking.parent_run("demo", "key") == parent
    assert tracking.parent_run("demo", "it's another key") != parent


def test_a_resumed_training_does_not_log_its_first_rows_twice(
    mlflow_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracking.PARENT_RUN, tracking.parent_run("demo", "key"))
    for rows in (range(100, 400, 100), range(100, 600, 100)):
        with tracking.stage_run("pretrain", config={}) as tracker:
            for tokens in rows:
                tracker.metrics({"loss": 1 / tokens}, step=tokens)
            tracker.metrics({"loss_last": len(rows)})
    history = tracking.client().get_metric_history(tracker.run_id, "loss")
    assert [point.step for point in history] == [100, 200, 300, 400, 500]
    assert tracking.client().get_run(tracker.run_id).data.metrics["loss_last"] == 5


def test_a_run_of_the_platform_is_used_and_an_interrupt_marks_it_killed(
    mlflow_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_id = tracking.parent_run("platform", "k")
    monkeypatch.setenv("MLFLOW_RUN_ID", given_id)
    with pytest.raises(KeyboardInterrupt), tracking.stage_run("dpo", config={"a": 1}):
        raise KeyboardInterrupt
    run = tracking.client().get_run(given_id)
    assert (run.info.status, run.data.params) == ("KILLED", {"a": "1"})
    assert run.data.tags[tracking.STAGE_TAG] == "dpo"


def test_an_existing_run_can_be_opened_again(mlflow_store: Path) -> None:
    run_id = tracking.parent_run("demo", "key")
    with tracking.open_run(run_id) as tracker:
        tracker.metrics({"tokens": 1.0})
    with tracking.open_run("") as nothing:
        assert nothing.run_id == ""
    run = tracking.client().get_run(run_id)
    assert (run.info.status, run.data.metrics["tokens"]) == ("FINISHED", 1.0)


def test_the_conclusion_is_in_the_pipeline_run(mlflow_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = tracking.parent_run("demo", "key")
    monkeypatch.setenv(tracking.PARENT_RUN, parent)
    report = mlflow_store / "report.html"
    report.write_text("<html></html>")
    with tracking.stage_run("report", config={}) as tracker:
        tracker.conclude({"kk": 0.25}, report)
    client = tracking.client()
    assert client.get_run(parent).data.metrics == {"kk": 0.25}
    assert [item.path for item in client.list_artifacts(parent)] == ["report.html"]


def test_what_mlflow_refuses_is_given_up_and_counted(mlflow_store: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="infill.tracking"), tracking.stage_run("x", config={}) as tracker:
        tracker.artifact(mlflow_store / "missing.txt")
        tracker.metrics({"loss": 1.0})
    assert len([record for record in caplog.records if "does not accept" in record.message]) == 1
    assert "missed 1 records" in caplog.text
    assert _runs("x")[0].info.status == "FINISHED"


def test_graphics_cards_that_keep_a_figure_to_themselves_are_no_error() -> None:
    assert machine.parse_gpus("0, 98, 70123, 512.3\n1, [N/A], 4, [N/A]\n") == {
        "gpu_0_utilization_percentage": 98.0,
        "gpu_0_memory_usage_megabytes": 70123.0,
        "gpu_0_power_usage_watts": 512.3,
        "gpu_1_memory_usage_megabytes": 4.0,
    }


def _closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_server_that_is_gone_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:hidden@127.0.0.1:{_closed_port()}")
    started = time.monotonic()
    with pytest.raises(ServiceError, match="cannot be used") as raised:
        tracking.parent_run("demo", "key")
    assert time.monotonic() - started < 15
    assert "hidden" not in str(raised.value)


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(ServiceError, match="timed out"), tracking.stage_run("sft", config={}):
            pass


def test_a_server_that_hangs_meanwhile_does_not_hold_up_the_stage(
    mlflow_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with tracking.stage_run("pretrain", config={"steps": 3}) as tracker:
        assert isinstance(tracker, tracking.RunTracker)
        mlflow_server.signal(signal.SIGSTOP)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        try:
            started = time.monotonic()
            for step in range(300):
                tracker.metrics({"loss": 1.0}, step=step)
            assert time.monotonic() - started < 5  # each call would wait for a second
            while not tracker.failures:
                assert time.monotonic() - started < 60
                time.sleep(0.1)
        finally:
            mlflow_server.signal(signal.SIGCONT)
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    assert tracker.lost == 0
    history = tracking.client().get_metric_history(tracker.run_id, "loss")
    assert [point.step for point in history] == list(range(300))


def test_a_server_that_stays_away_costs_records_but_not_the_stage(
    mlflow_server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(tracking, "CLOSE_WITHIN_S", 1.0)
    try:
        with tracking.stage_run("pretrain", config={}) as tracker:
            mlflow_server.signal(signal.SIGSTOP)
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
            tracker.metrics({"loss": 1.0})
    finally:
        mlflow_server.signal(signal.SIGCONT)
    assert "the files of the stage have them" in caplog.text


@pytest.mark.parametrize("name", ["python3-demo", "100%25 a?b#c&d=e", "é 'q' \"q\" $HOME", "a::b\nc"])
def test_a_local_store_may_be_at_any_path(
    name: str, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / name
    uri = tracking.local_store(str(out))
    assert tracking.database_file(uri) == out / "mlflow" / "mlflow.db"
    shutil.copy(empty_store, out / "mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking.tracking_uri() == uri
    run = tracking.client().get_run(tracking.parent_run("demo", "key"))
    assert os.listdir(tmp_path) == [name]
    assert run.info.artifact_uri == (out / "mlflow" / "artifacts" / run.info.run_id / "artifacts").as_uri()


def test_a_stage_whose_configuration_has_changed_gets_a_run_of_its_own(
    mlflow_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where and how fast a stage runs is not a part of its artifact's key, but it is logged."""
    monkeypatch.setenv(tracking.PARENT_RUN, tracking.parent_run("demo", "key"))
    logged = []
    for source in ("a", "b", "a"):
        with tracking.stage_run("sft", config=_Config(source=source), key="the artifact") as tracker:
            pass
        logged.append((tracker.run_id, tracking.client().get_run(tracker.run_id).data.params["source"]))
    assert [source for _, source in logged] == ["a", "b", "a"]
    assert logged[0] == logged[2] != logged[1]


def test_a_deleted_or_missing_experiment_is_reported(mlflow_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking.parent_run("demo", "key")
    client = tracking.client()
    experiment = client.get_experiment_by_name("infill")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(InputError, match=f"is deleted; restore it .* --experiment-id {experiment.experiment_id}"):
        tracking.parent_run("demo", "key")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "77")
    with pytest.raises(InputError, match="has no experiment 77; correct MLFLOW_EXPERIMENT_ID"):
        tracking.parent_run("demo", "key")


def test_a_database_that_cannot_be_used_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = tracking.local_store(str(tmp_path))
    (tmp_path / "mlflow" / "mlflow.db").write_text("something else, long enough to be no database at all")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ServiceError, match=r"file is not a database.*; check that it is whole and writable"):
        tracking.client()
