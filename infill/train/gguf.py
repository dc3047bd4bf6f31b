"""Conversion of a model folder to one GGUF file for llama.cpp, with llama.cpp's Python library (`gguf`).

llama.cpp's converter recognises a pre-tokenizer by a hash of its result for a sample text, which depends on the
vocabulary, so it refuses a newly trained tokenizer. This module recognises it by its rules. Otherwise the file is the
converter's: the same tensors under the same names (`tests.e2e.llama_cpp` compares them).
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from numpy.typing import NDArray
from safetensors import safe_open

from infill import manifest, prompt, storage
from infill.bases import pre_tokenizers
from infill.errors import InputError
from infill.text import read_text
from infill.train import card

TYPES: Final[Mapping[str, tuple[GGMLQuantizationType, gguf.LlamaFileType]]] = {
    "f32": (GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
"""Types in which matrices are stored; vectors are always fp32."""

FIM_KEYS: Final = {
    "fim_prefix": gguf.Keys.Tokenizer.FIM_PRE_ID,
    "fim_suffix": gguf.Keys.Tokenizer.FIM_SUF_ID,
    "fim_middle": gguf.Keys.Tokenizer.FIM_MID_ID,
    "fim_pad": gguf.Keys.Tokenizer.FIM_PAD_ID,
    "filename": gguf.Keys.Tokenizer.FIM_SEP_ID,
}


def export(model: str, target: Path, kind: str = "") -> dict[str, Any]:
    """Write the model folder `model` as the GGUF file `target`; return its path, size, type and contents.

    `kind` is one of TYPES, by default that of the folder's weights. The file appears whole. Raises InputError for a
    model or a tokenizer that llama.cpp would read differently.
    """
    folder = manifest.fetch(model)
    config = _config(folder)
    tensors = _Tensors(folder)
    kind = kind or tensors.kind
    if kind not in TYPES:
        raise InputError(f"unknown GGUF type {kind!r}; choose one of {', '.join(TYPES)}")
    facts = {"title": folder.name, **card.of_base(model)}
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as scratch:
        part = Path(scratch, target.name)
        with closing(GGUFWriter(part, "llama")) as writer:
            _write_settings(writer, config, kind)
            writer.add_name(facts["title"])
            writer.add_license(facts["licence"])
            pre = _write_tokenizer(writer, config, folder)
            _write_tensors(writer, config, tensors, TYPES[kind][0])
        storage.publish(part, target)
    return {"file": str(target), "bytes": target.stat().st_size, "type": kind, "tensors": len(tensors), "pre": pre}


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.exists():
        raise InputError(f"{folder} is not a model folder: it has no config.json")
    config: dict[str, Any] = json.loads(read_text(file))
    rope = config.get("rope_parameters") or {
        "rope_theta": config.get("rope_theta"),
        **(config.get("rope_scaling") or {}),
    }
    plain = rope.get("rope_type", "default") == "default" and not config.get("attention_bias")
    if config.get("model_type") != "llama" or not plain or config.get("mlp_bias"):
        raise InputError(
            f"{folder} has a {config.get('model_type')} that is not a plain Llama; "
            "for published architectures use llama.cpp's convert_hf_to_gguf.py"
        )
    return {**config, "rope_theta": rope["rope_theta"]}


class _Tensors:
    """The weights of a folder, read one by one."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                self.files |= dict.fromkeys(file.keys(), path)
        if not self.files:
            raise InputError(f"{folder} has no safetensors files; save it with transformers again")
        dtype = self[next(iter(self.files))].dtype
        self.kind = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}.get(dtype, str(dtype))

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __getitem__(self, name: str) -> torch.Tensor:
        with safe_open(self.files[name], "pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
            return tensor


def _write_settings(writer: GGUFWriter, config: Mapping[str, Any], kind: str) -> None:
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(TYPES[kind][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _write_tokenizer(writer: GGUFWriter, config: Mapping[str, Any], folder: Path) -> str:
    """Write vocabulary, merges and special tokens; return llama.cpp's name of the pre-tokenizer."""
    fmt, tokenizer = prompt.load_format(folder), json.loads(read_text(folder / "tokenizer.json"))
    words, pre = tokenizer["model"], pre_tokenizers.name_of(tokenizer)
    tokens = {number: (token, TokenType.NORMAL) for token, number in words["vocab"].items()}
    tokens |= {added["id"]: (added["content"], TokenType.USER_DEFINED) for added in tokenizer["added_tokens"]}
    tokens |= {number: (token, TokenType.CONTROL) for number, token in prompt.control_tokens(tokenizer).items()}
    table = [tokens.get(number, (f"[PAD{number}]", TokenType.UNUSED)) for number in range(config["vocab_size"])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([token for token, _ in table])
    writer.add_token_types([kind for _, kind in table])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in words["merges"]])
    writer.add_bos_token_id(fmt.endoftext)  # never inserted, but without it llama.cpp uses the id 11
    writer.add_eos_token_id(fmt.endoftext)
    writer.add_pad_token_id(fmt.fim_pad)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    for role, key in FIM_KEYS.items():
        writer.add_uint32(key, getattr(fmt, role))
    return pre


def _write_tensors(
    writer: GGUFWriter, config: Mapping[str, Any], tensors: _Tensors, kind: GGMLQuantizationType
) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = config["num_attention_heads"]
    rotated = {"q_proj": heads, "k_proj": config.get("num_key_value_heads") or heads}
    kinds: dict[str, GGMLQuantizationType] = {}
    for name in tensors:
        tensor, new = tensors[name], names.get_name(name, try_suffixes=(".weight",))
        if new is None:
            raise InputError(f"llama.cpp's Llama has no weight {name}; export a plain Llama")
        kinds[name] = _kind(tensor, kind)
        shape = tuple(tensor.shape)
        dtype, size = _layout(kinds[name], shape)
        stored = gguf.quant_shape_to_byte_shape(shape, kinds[name]) if dtype == np.uint8 else shape
        writer.add_tensor_info(new, stored, np.dtype(dtype), size, kinds[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name in tensors:
        values: NDArray[np.float32] = tensors[name].float().numpy()
        count = rotated.get(name.split(".")[-2])
        writer.write_tensor_data(gguf.quantize(permuted(values, count) if count else values, kinds[name]))


def _kind(tensor: torch.Tensor, wanted: GGMLQuantizationType) -> GGMLQuantizationType:
    """Return the type of a tensor in the file: F16, as in the converter, if its rows do not fit the wanted blocks."""
    if tensor.dim() == 1:
        return GGMLQuantizationType.F32
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    return GGMLQuantizationType.F16 if tensor.shape[-1] % block else wanted


def _layout(kind: GGMLQuantizationType, shape: tuple[int, ...]) -> tuple[type[np.generic], int]:
    """Return the type of the array that `gguf.quantize` returns for a tensor, and its size in bytes."""
    whole: dict[GGMLQuantizationType, type[np.generic]] = {
        GGMLQuantizationType.F32: np.float32,
        GGMLQuantizationType.F16: np.float16,
    }
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return whole.get(kind, np.uint8), int(np.prod(shape)) // block * size


def permuted(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Return the rows of a query or key projection in llama.cpp's order.

    llama.cpp rotates neighbouring rows, transformers the two halves.
    """
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))
