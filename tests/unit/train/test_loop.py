"""The loop: it learns, resumes to the bit, and gives up on bad batches with reasons."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from infill import model
from infill.config import TrainConfig, debug
from infill.errors import InputError, StoppedError, TrainingError
from infill.train import checkpoint, history, loop, objectives, update
from infill.train.batch import Batch, Item
from infill.train.data import ItemLane, State
from infill.train.engine import PlainEngine, load_weights
from infill.train.held_out import validation
from tests.unit.train.runs import Rows

CONFIG = TrainConfig(
    steps=12,
    batch_tokens=256,
    micro_batch_tokens=128,
    learning_rate=3e-3,
    warmup_steps=2,
    log_every=2,
    checkpoint_every=5,
    launcher="local",
)


class Killed(Exception):  # noqa: N818
    """Stands for a kill: what follows it is not run."""


def open_lane(number: int, state: State | None) -> ItemLane:
    return ItemLane(Rows(), 128, seed=5, lane=number, lanes=2, state=state)


WORK = loop.Work(
    objective=objectives.language_model,
    open_lane=open_lane,
    identity="this",
    validate=validation(lambda: [ItemLane(Rows(), 128, seed=9, lane=0, lanes=1)()]),
)


def train(
    output: Path,
    config: TrainConfig = CONFIG,
    work: loop.Work = WORK,
    alive: Callable[[], None] = lambda: None,
    asked: Callable[[], bool] = lambda: False,
) -> dict[str, Tensor]:
    """Train, or continue; return the weights."""
    llama = model.build(model.llama_config(debug().pretrain.model, 64), seed=1)
    resumed = checkpoint.latest(str(output))
    if resumed:
        load_weights(llama, resumed.tensors)
    engine = PlainEngine(llama, config, torch.device("cpu"))
    loop.train(engine, work, config, str(output), resumed, alive, asked)
    return {name: weight.detach() for name, weight in llama.named_parameters()}


def after(steps: int) -> Callable[[], None]:
    """Raises Killed when it has been called `steps` times."""
    left = iter(range(steps - 1))

    def alive() -> None:
        if next(left, None) is None:
            raise Killed

    return alive


def without_times(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    times = ("tokens_per_s", "seconds", "lap_s", "memory_peak_mb")
    return [{name: value for name, value in row.items() if name not in times and "_share" not in name} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    output = tmp_path_factory.mktemp("undisturbed")
    return output, train(output)


@pytest.mark.parametrize("kills", [(1,), (7,), (3, 8), (12, 1), (6, 2)])
def test_a_killed_training_ends_with_the_same_bits(
    tmp_path: Path, undisturbed: tuple[Path, dict[str, Tensor]], kills: Sequence[int]
) -> None:
    for steps in kills:
        with pytest.raises(Killed):
            train(tmp_path, alive=after(steps))
    weights = train(tmp_path)
    output, expected = undisturbed
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert without_times(history.read(str(tmp_path))) == without_times(history.read(str(output)))


@pytest.mark.parametrize("step", [1, 7])
def test_a_training_that_is_asked_to_stop_leaves_a_checkpoint_of_the_moment(
    tmp_path: Path, undisturbed: tuple[Path, dict[str, Tensor]], step: int
) -> None:
    answers = iter([*[False] * (step - 1), True])
    with pytest.raises(StoppedError, match=rf"at step {step}; run it again"):
        train(tmp_path, asked=lambda: next(answers))
    latest = checkpoint.latest(str(tmp_path))
    assert latest is not None
    assert latest.step == step
    weights = train(tmp_path)
    assert all(torch.equal(weights[name], weight) for name, weight in undisturbed[1].items())


def test_the_history_tells_what_happened(undisturbed: tuple[Path, dict[str, Tensor]]) -> None:
    rows = history.read(str(undisturbed[0]))
    assert [row["step"] for row in rows] == [2, 4, 5, 6, 8, 10, 12]
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    assert rows[-1]["validation_loss"] < rows[2]["validation_loss"]
    assert {"loss/a", "loss/b", "lr", "grad_norm", "padding", "tokens_per_s", "data_wait_share"} <= set(rows[0])
    assert history.metrics(str(undisturbed[0]))["steps"] == 12


def test_a_cut_off_line_of_history_is_dropped(tmp_path: Path) -> None:
    (tmp_path / history.FILE_NAME).write_text(json.dumps({"step": 1}) + '\n{"step": 2, "lo')
    assert [row["step"] for row in history.read(str(tmp_path))] == [1]
    history.History(str(tmp_path), 1).append({"step": 2})
    assert [row["step"] for row in history.read(str(tmp_path))] == [1, 2]


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, alive=after(6))
    with pytest.raises(InputError, match="another configuration"):
        train(tmp_path, work=replace(WORK, identity="that"))


def poisoned(steps: set[int], value: float) -> Callable[[Tensor, Batch], objectives.Result]:
    """The objective with its loss multiplied at some calls, counted in micro-batches from one, two of them a step."""
    calls: Iterator[int] = iter(range(1, 10_000))

    def objective(log_probs: Tensor, batch: Batch) -> objectives.Result:
        result = objectives.language_model(log_probs, batch)
        return result._replace(loss=result.loss * value) if next(calls) in steps else result

    return objective


def steep(steps: set[int]) -> Callable[[Tensor, Batch], objectives.Result]:
    """The objective with a gradient a million times too long at some calls, and the loss that it should have."""
    calls: Iterator[int] = iter(range(1, 10_000))

    def objective(log_probs: Tensor, batch: Batch) -> objectives.Result:
        result = objectives.language_model(log_probs, batch)
        long = 1e6 * (result.loss - result.loss.detach())
        return result._replace(loss=result.loss + long) if next(calls) in steps else result

    return objective


def refused(output: Path) -> dict[str, Any]:
    """What is recorded of the batches that were refused, by the step."""
    files = sorted((output / update.FOLDER).glob("*.json"))
    return {path.name.split("_")[1].lstrip("0"): json.loads(path.read_text()) for path in files}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 50.0])
def test_a_bad_batch_is_recorded_and_tried_again(tmp_path: Path, value: float) -> None:
    train(tmp_path, work=replace(WORK, objective=poisoned({9}, value)))
    assert history.read(str(tmp_path))[-1]["skipped"] == 0
    (record,) = refused(tmp_path).values()
    assert (record["step"], len(record["tries"])) == (5, 1)
    assert record["tries"][0]["why"].startswith("loss ")
    batch = record["micro_batches"][0]
    documents = [Rows()[int(name.removeprefix("r"))] for name in batch["documents"]]
    assert batch["ids"] == [token for item in documents if item for token in item.ids]


def test_a_batch_that_stays_bad_is_skipped(tmp_path: Path) -> None:
    weights = train(tmp_path, work=replace(WORK, objective=poisoned({9, 11}, float("nan"))))
    assert history.read(str(tmp_path))[-1]["skipped"] == 1
    assert all(weight.isfinite().all() for weight in weights.values())
    assert [attempt["why"] for attempt in refused(tmp_path)["5"]["tries"]] == ["loss is not a number"] * 2


def test_a_gradient_that_is_too_long_is_refused_too(tmp_path: Path) -> None:
    train(tmp_path, work=replace(WORK, objective=steep({10})))
    (record,) = refused(tmp_path).values()
    assert "gradient norm" in record["tries"][0]["why"]
    assert float(record["tries"][0]["norm"]) > 100 * record["mean_norm"]
    assert history.read(str(tmp_path))[-1]["skipped"] == 0


def test_too_many_bad_batches_end_the_training(tmp_path: Path) -> None:
    work = replace(WORK, objective=poisoned(set(range(9, 999)), float("nan")))
    with pytest.raises(TrainingError, match=r"at step 7, and steps \[5, 6, 7\] were skipped; lower the learning rate"):
        train(tmp_path, replace(CONFIG, max_skipped=2), work)
    assert list(refused(tmp_path)) == ["5", "6", "7"]
    latest = checkpoint.latest(str(tmp_path))
    assert latest is not None
    assert all(tensor.isfinite().all() for tensor in latest.tensors.values())


def test_a_gradient_that_is_not_a_number_changes_nothing() -> None:
    engine = PlainEngine(model.build(model.llama_config(debug().pretrain.model, 64)), CONFIG, torch.device("cpu"))
    before = [weight.clone() for weight in engine.model.parameters()]
    engine.backward(engine.model.lm_head.weight.sum() * float("nan"))
    assert not engine.step(1e-3) < float("inf")
    assert all(map(torch.equal, before, engine.model.parameters()))
    assert all(weight.grad is None for weight in engine.model.parameters())


def test_the_schedule_warms_up_stays_and_decays_to_zero() -> None:
    config = TrainConfig(steps=100, learning_rate=1.0, warmup_steps=10, decay_share=0.2)
    rates = [loop.learning_rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:81] == [1.0] * 72
    assert rates[90] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.05)


def test_micro_batches_add_up_to_the_batch(tmp_path: Path) -> None:
    """Two micro-batches of 128 give the gradients of one of 256, whatever their numbers of targets."""
    items = [Rows()[index] for index in range(8)]
    norms = []
    for parts in ([items], [items[:3], items[3:]]):
        engine = PlainEngine(model.build(model.llama_config(debug().pretrain.model, 64)), CONFIG, torch.device("cpu"))
        batches = [loop_batch(part) for part in parts]
        weight = sum(batch.weight for batch in batches)
        for batch in batches:
            engine.backward(objectives.language_model(engine.score(batch), batch).loss / weight)
        norms.append(engine.step(1e-3))
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def loop_batch(items: Sequence[Item | None]) -> Batch:
    from infill.train.batch import pack

    return pack([item for item in items if item is not None], 320)
