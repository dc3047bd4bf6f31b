"""What a training costs: operations against a count by hand, and the table of devices."""

import pytest
import torch

from benchmarks import rates
from infill import inference, model
from infill.config import PRESETS, ModelConfig, TrainConfig
from infill.errors import InputError
from infill.train import cost, memory, objectives
from infill.train.batch import pack, pair_item, plain_item
from infill.train.engine import PlainEngine

VOCABULARY = 64


def shape(tie: bool, kv_heads: int = 4) -> ModelConfig:
    return ModelConfig(
        layers=2,
        width=32,
        mlp_width=64,
        heads=4,
        kv_heads=kv_heads,
        context_length=64,
        rope_base=1e4,
        tie_embeddings=tie,
    )


@pytest.mark.parametrize("tie", [True, False])
def test_one_whole_document_is_the_formula_of_the_model(tie: bool) -> None:
    """Where every position is predicted, it is 6 N + 6 L D T for each token."""
    config, length = shape(tie), 40
    built = model.build(model.llama_config(config, VOCABULARY))
    batch = pack([plain_item([1] * length, group="any")], 64)
    expected = length * model.flops_per_token(config, VOCABULARY, length)
    unpredicted = 6 * VOCABULARY * config.width  # the last position has no next token
    assert cost.step_flops(built, [batch]) == pytest.approx(expected - unpredicted)


def test_only_what_is_done_is_counted() -> None:
    built = model.build(model.llama_config(shape(True, kv_heads=2), VOCABULARY))
    long, short = plain_item([1] * 60, group="any"), plain_item([1] * 30, group="any")
    apart = cost.step_flops(built, [pack([short, short], 64)])
    assert apart == cost.step_flops(built, [pack([short], 64), pack([short], 64), pack([], 64)])
    assert apart < cost.step_flops(built, [pack([long], 64)])  # documents do not see each other
    masked = plain_item([1] * 60, start=50, group="any")
    assert cost.step_flops(built, [pack([masked], 64)]) < cost.step_flops(built, [pack([long], 64)])


def test_a_shared_prompt_is_counted_once() -> None:
    built = model.build(model.llama_config(shape(True), VOCABULARY))
    pair = pair_item([1] * 30, [2] * 10, [3] * 10)
    two = [plain_item([1] * 30 + [2] * 10, start=29, group="any")] * 2
    assert cost.step_flops(built, [pack([pair], 128)]) < 0.8 * cost.step_flops(built, [pack(two, 128)])


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
    ],
)
def test_devices_are_known_by_their_names(name: str, flops: float) -> None:
    device = cost.find_device(name)
    assert device is not None
    assert device.bf16_flops == flops
    assert cost.utilisation(flops, name, 2, bf16=True) == {"mfu": pytest.approx(0.5)}


def test_an_unknown_peak_has_no_share() -> None:
    assert cost.utilisation(1e12, "AMD EPYC 7763", 1, bf16=True) == {}
    assert cost.utilisation(1e12, "NVIDIA H200", 1, bf16=False) == {}


def test_this_machine_has_a_name_and_memory() -> None:
    device = torch.device("cpu")
    assert inference.device_name(device)
    assert 20 < cost.memory(device)["memory_peak_mb"] < 1e6


def test_energy_is_an_upper_bound_or_unknown() -> None:
    assert cost.energy_kwh(3_600, "NVIDIA H200", 2) == pytest.approx(2 * 0.7 * cost.PUE)
    assert cost.energy_kwh(3_600, "AMD EPYC 7763", 2) is None


@pytest.mark.parametrize(
    ("preset", "rows", "billions"),
    [("mellum_4b", 98_304, 4.02), ("mellum_4b", 49_152, 3.72), ("mellum_4b_gqa", 49_152, 3.25)],
)
def test_mellum_takes_a_step_on_the_meta_device(preset: str, rows: int, billions: float) -> None:
    """Forward, backward and update of the published model on 2,048 positions: what is counted is what is estimated."""
    from torch.utils.flop_counter import FlopCounterMode

    shape, tokens = PRESETS[preset]().pretrain.model, 2_048
    built = model.build(model.llama_config(shape, rows), device="meta")
    engine = PlainEngine(built, TrainConfig(launcher="local", precision="fp32"), torch.device("meta"))
    engine.scorer.max_logits = model.LOGITS["cuda"]  # as on a GPU, where so few are not made twice
    batch = pack([plain_item([1] * tokens, group="any")], tokens).to(torch.device("meta"))
    with FlopCounterMode(display=False) as counter:
        engine.backward(objectives.language_model(engine.score(batch), batch).loss / batch.weight)
    engine.optimizer.step()
    state = [value for kept in engine.optimizer.state.values() for value in kept.values() if value.numel() > 1]
    weights = list(built.parameters())
    count = sum(weight.numel() for weight in weights)
    assert round(count / 1e9, 2) == billions
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    held = sum(tensor.numel() * tensor.element_size() for tensor in [*weights, *gradients, *state])
    assert held == model.ADAM_BYTES * count
    # The counter takes attention as if it were not causal: 12 L D T instead of 6.
    estimate = model.flops_per_token(shape, rows, tokens) * tokens + 6 * shape.layers * shape.width * tokens**2
    assert counter.get_total_flops() == pytest.approx(estimate, rel=0.002)


def test_the_rates_of_a_preset_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU that is a command of the benchmarks; here its device is given a peak, so that there is an MFU."""
    monkeypatch.setattr(cost, "DEVICES", {"": cost.Device(bf16_flops=1e12, watts=1, source="this test")})
    monkeypatch.setattr(rates, "precision", lambda *_: torch.bfloat16)
    measured = rates.measure(["debug"], torch.device("cpu"))
    assert measured["peak"] == "1e+12 FLOP/s in bf16, this test"
    assert measured["tokens_per_s"]["debug"] > 0
    assert 0 < measured["mfu"]["debug"] < 1
    assert measured["sft_vs_pretrain"]["debug"] > 0


@pytest.mark.parametrize(
    ("free_gb", "tokens", "recompute"),
    [(200, 16_384, False), (150, 8_192, False), (100, 16_384, True), (80, 8_192, True)],
)
def test_a_preset_is_measured_with_the_micro_batch_that_fits(
    monkeypatch: pytest.MonkeyPatch, free_gb: float, tokens: int, recompute: bool
) -> None:
    """With 150 GB (an H200) the 4B preset goes without recomputing, but not with its own micro-batch."""
    monkeypatch.setattr(memory, "available", lambda _: free_gb * 1e9)
    train = rates.fitting(PRESETS["mellum_4b"](), torch.device("cuda")).pretrain.train
    assert (train.micro_batch_tokens, train.recompute) == (tokens, recompute)
    assert train.workers == 1


def test_a_preset_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda _: 1e9)
    with pytest.raises(InputError, match=r"has 1\.0 GB free, too little for the preset"):
        rates.fitting(PRESETS["mellum_4b"](), torch.device("cuda"))
