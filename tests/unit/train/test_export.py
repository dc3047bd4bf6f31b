"""Model folders: weights in the type that is wanted, each once."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM

from infill import config, model, prompt
from infill.train import export
from tests.builders import tiny_tokenizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tied_embeddings_are_written_once(tmp_path: Path, dtype: torch.dtype) -> None:
    """The size of the base model that may be shipped depends on it."""
    tokenizer = tiny_tokenizer(tmp_path / "tokenizer")
    built = model.build(model.llama_config(config.debug().pretrain.model, 512, prompt.infill_format()), seed=1)
    export.save(built, tokenizer, str(tmp_path / "model"), dtype=dtype)
    weights = safetensors.torch.load_file(tmp_path / "model" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {dtype}
    assert sum(weight.numel() for weight in weights.values()) == model.parameters(config.debug().pretrain.model, 512)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    for name, weight in built.named_parameters():
        assert torch.equal(loaded.get_parameter(name), weight.to(dtype).float())
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
