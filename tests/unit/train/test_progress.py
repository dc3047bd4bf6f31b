"""What a person and MLflow see of a training."""

import io
import json
import logging
from pathlib import Path

import pytest
from rich.console import Console

from infill import storage, tracking
from infill.config import TrainConfig
from infill.train import history
from infill.train.progress import SAMPLES_TABLE, Display, clock, following


def row(step: int) -> history.Row:
    figures = {"loss": 3.25, "loss/python": 3.0, "tokens_per_s": 50.0, "mfu": 0.4, "memory_peak_mb": 812.0}
    return {"step": step, "steps": 10, "tokens": 1_000 * step, "device": "CPU", "workers": 1, **figures}


def test_the_bar_tells_tokens_rate_and_time_left() -> None:
    text = io.StringIO()
    display = Display("sft", Console(file=text, force_terminal=True, width=140))
    display.show(row(4))
    display.close()
    assert "loss 3.250  4,000 tokens  50 tokens/s  2:00 left" in text.getvalue()


def test_without_a_terminal_there_are_lines(caplog: pytest.LogCaptureFixture) -> None:
    display = Display("sft", Console(file=io.StringIO()))
    with caplog.at_level(logging.INFO):
        display.show(row(4))  # too soon after the start
        display.show(row(10))
    assert caplog.messages == ["sft: step 10 of 10  loss 3.250  10,000 tokens  50 tokens/s  0:00 left"]


@pytest.mark.parametrize(("seconds", "text"), [(7.2, "0:07"), (725, "12:05"), (10_800, "3:00:00")])
def test_time_left_is_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_rows_and_completions_go_to_mlflow_over_tokens_seen(mlflow_store: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    written = history.History(output, 0)
    with tracking.stage_run("sft", config=TrainConfig()) as tracker, following(output, "sft"):
        for step in (2, 4):
            written.append(row(step))
            written.show(step, 1_000 * step, [{"hole": 1, "expected": "pass", "completion": "pa"}])
    client = tracking.client()
    for name in ("loss", "loss/python", "mfu", "memory_peak_mb", "tokens_per_s"):
        assert [point.step for point in client.get_metric_history(tracker.run_id, name)] == [2_000, 4_000]
    assert "workers" not in client.get_run(tracker.run_id).data.metrics
    table = json.loads(Path(client.download_artifacts(tracker.run_id, f"{SAMPLES_TABLE}.json")).read_text())
    assert table["columns"][:3] == ["step", "tokens", "hole"]
    assert [line[0] for line in table["data"]] == [2, 4]


def test_a_resumed_training_forgets_what_it_did_after_its_checkpoint(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    written = history.History(output, 0)
    for step in (2, 4, 6):
        written.append(row(step))
        written.show(step, 1_000 * step, [{"hole": 1}, {"hole": 2}])
    history.History(output, 4).append(row(5))
    assert [line["step"] for line in history.read(output)] == [2, 4, 5]
    assert [line["step"] for line in history.read(output, history.SAMPLES_FILE)] == [2, 2, 4, 4]


def test_a_store_that_cannot_append_has_every_row_at_a_checkpoint() -> None:
    output = "memory://history/out"
    written = history.History(output, 0)
    for step in (2, 4, 6):
        written.append(row(step))
        written.show(step, 1_000, [{"hole": 1}])
    assert [line["step"] for line in history.read(output)] == [2]  # it is not written each time
    written.flush()
    assert [line["step"] for line in history.read(output)] == [2, 4, 6]
    assert [line["step"] for line in history.read(output, history.SAMPLES_FILE)] == [2, 4, 6]
    storage.remove(output)


@pytest.mark.parametrize("where", ["memory://tail/out", "local"])
def test_a_growing_file_is_read_piece_by_piece(tmp_path: Path, where: str) -> None:
    output = str(tmp_path) if where == "local" else where
    tail, file = history.HistoryTail(output), storage.join(output, history.FILE_NAME)
    assert tail.new() == []
    lines = [json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in range(1, 9)]
    entries = []
    for text in (lines[0], "".join(lines[:3]) + lines[3][:5], "".join(lines[:4]), "".join(lines[:4])):
        storage.write_bytes(file, text.encode())
        entries.append([line["step"] for line in tail.new()])
    assert entries == [[1], [2, 3], [4], []]
    storage.write_bytes(file, (lines[0] + lines[6]).encode())  # a resumed training has dropped some
    assert [line["step"] for line in tail.new()] == [1, 7]
    storage.write_bytes(file, (lines[2] + "".join(lines)).encode())  # and one that grew in between
    assert [line["step"] for line in tail.new()] == [3, *range(1, 9)]
    storage.remove(output)


def test_losses_of_parts_add_up() -> None:
    sums = {
        "loss/python/fim": (6.0, 2.0),
        "loss/python/plain": (2.0, 2.0),
        "loss/c/fim": (1.0, 1.0),
        "margin": (1.0, 1),
    }
    scores = history.with_margins(sums)
    assert scores["loss/python"] == (8.0, 4.0)
    assert scores["loss/fim"] == (7.0, 3.0)
    assert scores["loss/plain"] == (2.0, 2.0)
    assert set(scores) == {*sums, "loss/python", "loss/c", "loss/fim", "loss/plain"}


def test_time_is_added_up_over_all_starts() -> None:
    laps = [("A", 1, 5.0), ("A", 1, 4.0), ("B", 2, 1.0), ("A", 1, 2.0)]
    rows = [{"device": device, "workers": workers, "lap_s": lap} for device, workers, lap in laps]
    assert history.spent(rows) == {("A", 1): 11.0, ("B", 2): 1.0}
