"""The estimate of memory: what it is made of, and how a training that would not fit is refused."""

import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from infill import config, model
from infill.config import TrainConfig
from infill.errors import TrainingError
from infill.train import memory, objectives, trainer
from infill.train.batch import pack, plain_item
from infill.train.engine import PlainEngine
from tests.unit.train import runs

CPU = torch.device("cpu")


def refusal(preset: str, free: float, **changes: object) -> str:
    created = config.PRESETS[preset]()
    settings = model.llama_config(created.pretrain.model, created.tokenizer.vocab_size)
    train = replace(created.pretrain.train, workers=1, **changes)  # type: ignore[arg-type]
    with pytest.raises(TrainingError) as caught:
        memory.check("pretrain", settings, train, CPU, 1, free)
    return str(caught.value)


def test_what_does_not_fit_is_refused_with_the_preset_that_would() -> None:
    sentence = refusal("mellum_4b_gqa", 1e9, recompute=True)
    assert "pretrain needs about" in sentence
    assert "but this machine has 1.0 GB free for it; choose the preset demo, which needs 0." in sentence


def test_recomputing_is_advised_where_it_suffices() -> None:
    assert "set pretrain.train.recompute=true, which needs" in refusal("small", 20e9)


def test_nothing_fits_into_nothing() -> None:
    assert refusal("debug", 1e6).endswith("no preset fits: use a machine with more memory")


def test_a_model_that_fits_is_let_through() -> None:
    preset = config.debug()
    settings = model.llama_config(preset.pretrain.model, 512)
    memory.check("pretrain", settings, preset.pretrain.train, CPU, 1, 1e9)


def test_a_training_is_refused_before_its_model_is_made(tmp_path: Path) -> None:
    train = replace(runs.TRAIN, batch_tokens=2**40, micro_batch_tokens=2**40, workers=1, launcher="local")
    training = replace(runs.job(tmp_path, train), label="pretrain", model=lambda: pytest.fail("the model was made"))
    with pytest.raises(TrainingError, match="pretrain needs about"):
        trainer.fit(training)


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = memory.available(CPU)
    assert 0 < free < 1e15
    assert memory.available(CPU, 4) == pytest.approx(free / 4, rel=0.2)
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert memory.available(CPU) == 2e6
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available(CPU) > 2e6


def measure(folder: Path, recompute: bool) -> None:
    """A step of the demo's model on 8,192 positions; the process's peak goes to a file."""
    shape, train = config.demo().pretrain.model, replace(runs.TRAIN, recompute=recompute)
    train = replace(train, launcher="local", workers=1, batch_tokens=8_192, micro_batch_tokens=8_192)
    engine = PlainEngine(model.build(model.llama_config(shape, 4_096)), train, CPU)
    items = [plain_item(list(range(1_024)), group="any") for _ in range(8)]
    batch = pack(items, 8_192)
    engine.backward(objectives.language_model(engine.score(batch), batch).loss)
    engine.step(1e-3)
    (folder / "peak").write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024))
    estimate = memory.needed(shape, 4_096, train, CPU, 1)
    (folder / "estimate").write_text(str(estimate))


@pytest.mark.parametrize("recompute", [False, True])
def test_the_estimate_is_near_what_is_measured(tmp_path: Path, recompute: bool) -> None:
    assert runs.ended(runs.start(measure, tmp_path, recompute)) == 0
    peak, estimate = (float((tmp_path / name).read_text()) for name in ("peak", "estimate"))
    assert 0.8 * peak < estimate < 1.35 * peak


def test_recomputing_changes_no_bit() -> None:
    gradients = []
    for recompute in (False, True):
        train = TrainConfig(launcher="local", recompute=recompute)
        engine = PlainEngine(runs.new_model(), train, CPU)
        batch = pack([plain_item(list(range(40)), group="any"), plain_item(list(range(9)), group="any")], 64)
        engine.backward(objectives.language_model(engine.score(batch), batch).loss)
        gradients.append([weight.grad for weight in engine.model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
