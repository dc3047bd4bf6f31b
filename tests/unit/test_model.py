"""Model sizes against the published numbers, and what `load` refuses."""

from pathlib import Path

import pytest
import torch

from infill import config, model
from infill.config import ModelConfig
from infill.errors import InputError
from tests.builders import tiny_model


def test_mellum_has_the_published_number_of_parameters() -> None:
    assert model.parameters(ModelConfig(), 98_304) == 4_019_248_128
    assert round(model.parameters(ModelConfig(), 49_152) / 1e9, 2) == 3.72


@pytest.mark.parametrize("preset", sorted(config.PRESETS))
def test_the_count_is_that_of_the_model_that_is_built(preset: str) -> None:
    settings = config.resolve(preset)
    vocab_size = settings.tokenizer.vocab_size
    built = model.build(model.llama_config(settings.pretrain.model, vocab_size), device="meta")
    assert sum(weight.numel() for weight in built.parameters()) == model.parameters(settings.pretrain.model, vocab_size)


def test_the_base_that_may_be_shipped_is_small() -> None:
    """At most 12M parameters, and in bf16 with its tokenizer (0.47 MB, docs/log.md) and card at most 25 MB."""
    preset = config.base()
    count = model.parameters(preset.pretrain.model, preset.tokenizer.vocab_size)
    assert count <= 12_000_000
    assert 2 * count + 1_000_000 <= 25_000_000


def test_costs_of_mellum() -> None:
    assert model.cache_bytes_per_token(ModelConfig()) == 368_640
    # 6 x 3.566e9 matrix weights + 6 x 30 x 3,072 x 8,192 of attention
    assert model.flops_per_token(ModelConfig(), 49_152, 8_192) == pytest.approx(25.93e9, rel=1e-3)
    needed = model.training_bytes(ModelConfig(), 49_152, micro_batch_tokens=8_192, itemsize=2, workers=1)
    assert 64e9 < needed < 139 * 2**30


def test_the_same_seed_gives_the_same_weights_and_leaves_the_random_state_alone() -> None:
    settings = model.llama_config(config.debug().pretrain.model, 64)
    before = torch.get_rng_state()
    first, second, other = (model.build(settings, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_load_refuses_what_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a model folder"):
        model.load(tmp_path)
    folder = Path(tiny_model(tmp_path / "model"))
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be loaded"):
        model.load(folder)


def test_context_length_is_that_of_the_sliding_window() -> None:
    settings = model.llama_config(config.debug().pretrain.model, 64)
    assert model.context_length(settings) == 256
    settings.sliding_window = 128
    assert model.context_length(settings) == 128
