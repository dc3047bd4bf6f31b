"""Model folders made of GGUF files."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from safetensors.torch import load_file

from infill import bases, model, prompt
from infill.bases import gguf_file
from infill.errors import InputError
from tests.unit.bases import files

READABLE = [GGMLQuantizationType.F32, GGMLQuantizationType.F16, *gguf.quants._type_traits]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_the_folder_computes_what_the_model_did(kind: str, tied: bool, tmp_path: Path) -> None:
    original = files.tiny(kind, tied=tied)
    folder = bases.fetch(str(files.write(tmp_path / "model.gguf", original)))
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(model.load(folder)(ids).logits, original(ids).logits)


@pytest.mark.parametrize("kind", READABLE, ids=lambda kind: str(kind.name))
def test_every_quantisation_is_read(kind: GGMLQuantizationType, tmp_path: Path) -> None:
    original = files.tiny("qwen2")
    file = files.write(tmp_path / "model.gguf", original, kind=kind)
    weights = load_file(bases.fetch(str(file)) / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    expected = gguf.dequantize(files.stored(original.state_dict()[name].numpy(), kind), kind)
    np.testing.assert_array_equal(weights[name].float().numpy(), expected)


def test_large_models_are_written_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "SHARD_BYTES", 600_000)
    original = files.tiny("llama")
    folder = bases.fetch(str(files.write(tmp_path / "model.gguf", original)))
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    loaded = model.load(folder).state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in original.state_dict().items())


def test_numbers_fall_into_digits_and_control_tokens_are_text(tmp_path: Path) -> None:
    folder = bases.fetch(str(files.write(tmp_path / "model.gguf", files.tiny("llama"))))
    encoder = prompt.load_encoder(folder)
    assert len(encoder.encode("2026")) == 4
    assert min(encoder.encode("<filename> <|endoftext|>")) >= len(files.SPECIAL)


def test_a_file_is_converted_once(tmp_path: Path) -> None:
    file = files.write(tmp_path / "model.gguf", files.tiny("llama"))
    first = bases.fetch(str(file))
    changed = (first / "config.json").stat().st_mtime_ns
    assert bases.fetch(str(file)) == first
    assert (first / "config.json").stat().st_mtime_ns == changed


def test_licence_and_digest_of_the_file_are_kept(tmp_path: Path) -> None:
    folder = bases.fetch(str(files.write(tmp_path / "model.gguf", files.tiny("llama"))))
    facts = json.loads((folder / "base.json").read_text())
    assert facts["licence"] == "mit"
    assert len(facts["sha256"]) == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "gemma2"}, "unsupported architecture 'gemma2'; choose a llama or qwen2 model"),
        ({"tokenizer__ggml__model": "llama"}, "unsupported tokenizer 'llama'"),
        ({"tokenizer__ggml__pre": "bloom"}, "pre-tokenizer 'bloom'"),
        ({"llama__rope__scaling__type": "yarn"}, "stretched rotary positions"),
        ({"llama__expert_count": 8}, "experts"),
        ({"split__count": 2}, "several parts"),
        ({"llama__block_count": 3}, "lacks 9 tensors"),
        ({"llama__block_count": 1}, "a llama does not have"),
        ({"llama__embedding_length": None}, "has no llama.embedding_length"),
    ],
)
def test_what_we_do_not_read_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = files.write(tmp_path / "model.gguf", files.tiny("llama"), **changes)
    with pytest.raises(InputError, match=message):
        bases.fetch(str(file))
    assert not list((tmp_path / "cache").rglob("config.json"))


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.3, 0.999])
def test_a_truncated_file_is_refused(share: float, tmp_path: Path) -> None:
    file = files.write(tmp_path / "model.gguf", files.tiny("llama"))
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(InputError, match=r"truncated|not a GGUF file"):
        bases.fetch(str(file))


def test_a_tokenizer_with_more_ids_than_rows_is_refused(tmp_path: Path) -> None:
    original = files.tiny("llama")
    original.resize_token_embeddings(files.VOCABULARY - 64)
    with pytest.raises(InputError, match="embeds 448 tokens, but its tokenizer has 512"):
        bases.fetch(str(files.write(tmp_path / "model.gguf", original)))
