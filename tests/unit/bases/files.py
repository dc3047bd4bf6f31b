"""Tiny GGUF files, written with llama.cpp's own library, for the tests of what reads them."""

import json
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from infill.train.gguf import permuted
from tests.builders import tiny_tokenizer

WIDTH: Final = 256
"""A row of the quantisations with large blocks."""
VOCABULARY: Final = 512
SPECIAL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<filename>", "<issue_start>", "<issue_comment>")


def tiny(kind: str, *, tied: bool = True) -> Any:
    """Return a model with random weights."""
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": tied,
        "rms_norm_eps": 1e-5,
    }
    torch.manual_seed(0)
    model: Any = (
        LlamaForCausalLM(LlamaConfig(**settings)) if kind == "llama" else Qwen2ForCausalLM(Qwen2Config(**settings))
    )
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight)
    return model.eval()


def write(file: Path, model: Any, *, kind: GGMLQuantizationType = GGMLQuantizationType.F32, **changes: Any) -> Path:
    """Write `model` as a GGUF file with a tiny byte-level BPE; `changes` are keys of the file, None leaves one out."""
    name, config = model.config.model_type, model.config
    values = {
        f"{name}.block_count": config.num_hidden_layers,
        f"{name}.context_length": config.max_position_embeddings,
        f"{name}.embedding_length": config.hidden_size,
        f"{name}.feed_forward_length": config.intermediate_size,
        f"{name}.attention.head_count": config.num_attention_heads,
        f"{name}.attention.head_count_kv": config.num_key_value_heads,
        "tokenizer.ggml.eos_token_id": 0,
        f"{name}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{name}.rope.freq_base": 10_000.0,
        "general.license": "mit",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    writer = GGUFWriter(file, str(changes.get("architecture", name)))
    for key, value in values.items():
        if isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str) and key != "architecture":
            writer.add_string(key, value)
    _add_tokens(writer, file.parent)
    _add_tensors(writer, model, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_tokens(writer: GGUFWriter, folder: Path) -> None:
    value = json.loads((Path(tiny_tokenizer(folder / "words", VOCABULARY)) / "tokenizer.json").read_text())
    names = {number: token for token, number in value["model"]["vocab"].items()}
    tokens = [
        SPECIAL[number] if number < len(SPECIAL) else names.get(number, f"[{number}]") for number in range(VOCABULARY)
    ]
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if n < len(SPECIAL) else TokenType.NORMAL for n in range(VOCABULARY)])
    writer.add_token_merges([" ".join(merge) for merge in value["model"]["merges"]])


def _add_tensors(writer: GGUFWriter, model: Any, kind: GGMLQuantizationType) -> None:
    architecture = gguf.MODEL_ARCH.LLAMA if model.config.model_type == "llama" else gguf.MODEL_ARCH.QWEN2
    names = gguf.get_tensor_name_map(architecture, model.config.num_hidden_layers)
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        values = weight.float().numpy()
        if model.config.model_type == "llama" and (count := heads.get(name.split(".")[-2])):
            values = permuted(values, count)
        place = str(names.get_name(name, try_suffixes=(".weight", ".bias")))
        if weight.dim() == 1:
            writer.add_tensor(place, values)
        else:
            writer.add_tensor(place, stored(values, kind), raw_dtype=kind)


def stored(values: Any, kind: GGMLQuantizationType) -> Any:
    """Return `values` as `kind`; bytes by chance where the library can read a type and not write it."""
    try:
        return gguf.quantize(values, kind)
    except NotImplementedError:
        shape = gguf.quant_shape_to_byte_shape(values.shape, kind)
        return np.random.default_rng(0).integers(0, 48, shape, dtype=np.uint8)
