"""GGUF files read back with llama.cpp's own library. `tests.e2e.llama_cpp` asks llama.cpp itself."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.torch
import torch
from tokenizers import Tokenizer

from infill import cli, prompt, tokenizer
from infill.bases.pre_tokenizers import name_of
from infill.errors import InputError
from infill.train.gguf import export, permuted
from tests.builders import tiny_model, tiny_repositories


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_model(tmp_path_factory.mktemp("gguf") / "model"))


def values(file: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items()}


@pytest.mark.parametrize(("kind", "tolerance"), [("f32", 0.0), ("f16", 1e-3), ("bf16", 8e-3), ("q8_0", 8e-3)])
def test_the_weights_are_those_of_the_folder(model: Path, tmp_path: Path, kind: str, tolerance: float) -> None:
    result = export(str(model), tmp_path / "model.gguf", kind)
    expected = safetensors.torch.load_file(model / "model.safetensors")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert result["tensors"] == len(stored) == len(expected)
    for name, weight in expected.items():
        tensor = stored[str(names.get_name(name, try_suffixes=(".weight",)))]
        back = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(weight.shape)
        if name.endswith(("q_proj.weight", "k_proj.weight")):  # the inverse of the permutation
            back = back.reshape(4, 4, 2, 32).swapaxes(1, 2).reshape(weight.shape)
        largest = float(weight.abs().max())
        np.testing.assert_allclose(back, weight.numpy(), rtol=0, atol=tolerance * largest)
        assert tensor.tensor_type.name.lower() == ("f32" if weight.dim() == 1 else kind)


def test_neighbours_are_rotated_as_the_halves_were() -> None:
    """Rotary positions: attention scores with llama.cpp's order and rule are those with transformers'."""
    heads, width, inner = 2, 8, 16
    generator = np.random.default_rng(0)
    query, key = (generator.normal(size=(heads * width, inner)).astype(np.float32) for _ in range(2))
    state = generator.normal(size=(2, inner)).astype(np.float32)
    angles = np.array([3.0, 7.0])[:, None, None] * 10_000.0 ** (-np.arange(width // 2) * 2 / width)

    def turned(first: Any, second: Any) -> tuple[Any, Any]:
        return first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)

    def by_halves(weight: Any) -> Any:
        created = (state @ weight.T).reshape(2, heads, width)
        return np.concatenate(turned(created[..., : width // 2], created[..., width // 2 :]), -1)

    def by_neighbours(weight: Any) -> Any:
        created = (state @ permuted(weight, heads).T).reshape(2, heads, width)
        return np.stack(turned(created[..., 0::2], created[..., 1::2]), -1).reshape(2, heads, width)

    scores = [np.einsum("qhd,khd->hqk", rotate(query), rotate(key)) for rotate in (by_halves, by_neighbours)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4, atol=1e-4)


def test_the_header_tells_architecture_and_control_tokens(model: Path, tmp_path: Path) -> None:
    export(str(model), tmp_path / "model.gguf")
    hit, fmt = values(tmp_path / "model.gguf"), prompt.infill_format()
    expected = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.context_length": 256,
        "llama.embedding_length": 32,
        "llama.feed_forward_length": 64,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 4,
        "llama.rope.dimension_count": 8,
        "llama.rope.freq_base": 10_000.0,
        "llama.vocab_size": 512,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.bos_token_id": fmt.endoftext,
        "tokenizer.ggml.eos_token_id": fmt.endoftext,
        "tokenizer.ggml.fim_pre_token_id": fmt.fim_prefix,
        "tokenizer.ggml.fim_suf_token_id": fmt.fim_suffix,
        "tokenizer.ggml.fim_mid_token_id": fmt.fim_middle,
        "tokenizer.ggml.fim_pad_token_id": fmt.fim_pad,
        "tokenizer.ggml.fim_sep_token_id": fmt.filename,
    }
    assert {name: hit[name] for name in expected} == expected
    kinds = hit["tokenizer.ggml.token_type"]
    assert kinds == [gguf.TokenType.CONTROL] * 32 + [gguf.TokenType.NORMAL] * 480


def test_the_tokenizer_in_the_file_gives_the_same_ids(model: Path, tmp_path: Path) -> None:
    """A tokenizer made of what the file contains, by the rules of its pre-tokenizer's name."""
    texts = [text for files in tiny_repositories(8).values() for text in files.values()]
    trained = tokenizer.train(texts, vocab_size=512)
    folder = shutil.copytree(model, tmp_path / "model", ignore=shutil.ignore_patterns("manifest.json"))
    trained.save(str(folder / "tokenizer.json"))
    assert export(str(folder), tmp_path / "model.gguf")["pre"] == "qwen2"
    result = values(tmp_path / "model.gguf")
    value = json.loads(trained.to_str())
    value["model"]["vocab"] = {token: number for number, token in enumerate(result["tokenizer.ggml.tokens"])}
    value["model"]["merges"] = [merge.split(" ") for merge in result["tokenizer.ggml.merges"]]
    again = Tokenizer.from_str(json.dumps(value))
    for text in texts[:4]:
        assert again.encode(text).ids == trained.encode(text).ids


def test_a_vocabulary_with_fewer_tokens_than_rows_is_filled_up(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "model", ignore=shutil.ignore_patterns("manifest.json"))
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"] = torch.nn.functional.pad(weights["model.embed_tokens.weight"], (0, 0, 0, 8))
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text()) | {"vocab_size": 520}
    (folder / "config.json").write_text(json.dumps(config))
    export(str(folder), tmp_path / "model.gguf")
    result = values(tmp_path / "model.gguf")
    assert result["tokenizer.ggml.tokens"][512:] == [f"[PAD{number}]" for number in range(512, 520)]
    assert result["tokenizer.ggml.token_type"][512:] == [gguf.TokenType.UNUSED] * 8


def change(folder: Path, name: str, edit: Callable[[Any], None]) -> None:
    value = json.loads((folder / name).read_text())
    edit(value)
    (folder / name).write_text(json.dumps(value))


REFUSED: list[tuple[str, Callable[[Any], object], str]] = [
    ("config.json", lambda value: value.update(model_type="qwen2"), "a qwen2 that is not a plain Llama"),
    ("config.json", lambda value: value.update(attention_bias=True), "not a plain Llama"),
    ("config.json", lambda value: value["rope_parameters"].update(rope_type="yarn"), "not a plain Llama"),
    ("tokenizer.json", lambda value: value.update(normalizer={"type": "NFC"}), "rules for splitting text are none of"),
    (
        "tokenizer.json",
        lambda value: value["pre_tokenizer"].update(add_prefix_space=True),
        "rules for splitting text are none of",
    ),
    ("tokenizer.json", lambda value: value.update(pre_tokenizer=None), "rules for splitting text are none of"),
]


@pytest.mark.parametrize(("name", "edit", "message"), REFUSED)
def test_what_llama_cpp_would_read_otherwise_is_refused(
    model: Path, tmp_path: Path, name: str, edit: Callable[[Any], None], message: str
) -> None:
    folder = shutil.copytree(model, tmp_path / "model", ignore=shutil.ignore_patterns("manifest.json"))
    change(folder, name, edit)
    with pytest.raises(InputError, match=message):
        export(str(folder), tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("name", "message"), [("config.json", "no config.json"), ("model.safetensors", "no safetensors files")]
)
def test_a_folder_that_is_not_a_model_is_reported(model: Path, tmp_path: Path, name: str, message: str) -> None:
    folder = shutil.copytree(model, tmp_path / "model", ignore=shutil.ignore_patterns("manifest.json"))
    (folder / name).unlink()
    with pytest.raises(InputError, match=message):
        export(str(folder), tmp_path / "model.gguf")


def test_starcoders_rules_have_a_name() -> None:
    digits = {"type": "Digits", "individual_digits": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    steps = {"type": "Sequence", "pretokenizers": [digits, level]}
    assert name_of({"model": {"type": "BPE"}, "normalizer": None, "pre_tokenizer": steps}) == "starcoder"


def test_the_command_tells_what_it_wrote(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "gguf", str(model), "--to", str(tmp_path / "a" / "m.gguf"), "--type", "q8_0"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["bytes"] == (tmp_path / "a" / "m.gguf").stat().st_size
    assert (summary["type"], summary["pre"]) == ("q8_0", "gpt-2")
    assert cli.main(["export", "gguf", str(model), "--to", str(tmp_path / "m.gguf"), "--type", "q3"]) == 2
    assert "unknown GGUF type 'q3'; choose one of f32" in capsys.readouterr().err
