"""Conversion of a GGUF file to a model folder: Llama and Qwen2 architectures, and every quantisation that `gguf` reads.

transformers also reads such files, but loses the pre-tokenizer's rule (single digits) and returns a model that cannot
be saved. This module writes the tensors shard by shard, so that memory holds one shard, not the whole model.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, TokenType
from numpy.typing import NDArray
from safetensors.torch import save_file

from infill import bases
from infill.bases import pre_tokenizers
from infill.errors import InputError

ARCHITECTURES: Final = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
"""Class of transformers for each architecture name of llama.cpp."""
SHARD_BYTES: Final = 2_000_000_000
HALF: Final = {GGMLQuantizationType.F16: torch.float16, GGMLQuantizationType.BF16: torch.bfloat16}
"""Types of matrices that keep their precision; all others become fp32, which does not round."""


def convert(file: Path, folder: Path) -> None:
    """Write the model in `file` to the model folder `folder`.

    Raises InputError for a file that is not GGUF, is incomplete, or contains a model that we cannot read.
    """
    reader = _open(file)
    values = {name: field.contents() for name, field in reader.fields.items()}
    config = _config(file, values, reader)
    folder.mkdir(parents=True, exist_ok=True)
    _write_tensors(file, reader, config, folder)
    tokenizer = _tokenizer(file, values, config["vocab_size"])
    _write_json(folder / "tokenizer.json", tokenizer)
    _write_json(folder / "tokenizer_config.json", _tokenizer_settings(values, tokenizer))
    _write_json(folder / "generation_config.json", {"eos_token_id": config["eos_token_id"]})
    _write_json(folder / bases.FACTS_FILE, _facts(file, values))
    _write_json(folder / "config.json", config)


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _open(file: Path) -> GGUFReader:
    """Return the reader of a complete file. Raises InputError for any other."""
    with file.open("rb") as data:
        magic = data.read(4)
    if magic != b"GGUF":
        raise InputError(f"{file} is not a GGUF file: it does not start with 'GGUF'; download it again")
    try:
        reader = GGUFReader(file)
        end = max((tensor.data_offset + tensor.n_bytes for tensor in reader.tensors), default=0)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise InputError(f"{file} is truncated or damaged ({_first(error)}); download it again") from error
    if end > file.stat().st_size or not reader.tensors:
        raise InputError(f"{file} is truncated: it has {file.stat().st_size:,} of {end:,} bytes; download it again")
    return reader


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


# Configuration


def _config(file: Path, values: Mapping[str, Any], reader: GGUFReader) -> dict[str, Any]:
    """Return the `config.json` of the model. Raises InputError for an unsupported architecture or variant."""
    kind = values.get("general.architecture")
    if kind not in ARCHITECTURES:
        raise InputError(
            f"{file} has the unsupported architecture {kind!r}; choose a {' or '.join(sorted(ARCHITECTURES))} model"
        )
    _check_variant(file, kind, values, reader)

    def value(name: str, default: Any = None) -> Any:
        entry = values.get(f"{kind}.{name}", default)
        if entry is None:
            raise InputError(f"{file} has no {kind}.{name}; convert the model again with llama.cpp")
        return entry

    heads, width = int(value("attention.head_count")), int(value("embedding_length"))
    names = {tensor.name for tensor in reader.tensors}
    end = int(values.get("tokenizer.ggml.eos_token_id", 0))
    return {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        "vocab_size": _rows(file, reader),
        "hidden_size": width,
        "intermediate_size": int(value("feed_forward_length")),
        "num_hidden_layers": int(value("block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(value("attention.head_count_kv", heads)),
        "head_dim": int(value("attention.key_length", width // heads)),
        "hidden_act": "silu",
        "max_position_embeddings": int(value("context_length")),
        "rms_norm_eps": float(f"{value('attention.layer_norm_rms_epsilon'):.7g}"),  # stored in single precision
        "rope_parameters": {"rope_type": "default", "rope_theta": float(value("rope.freq_base", 10_000.0))},
        "tie_word_embeddings": "output.weight" not in names,
        "attention_bias": kind == "llama" and "blk.0.attn_q.bias" in names,
        "bos_token_id": int(values.get("tokenizer.ggml.bos_token_id", end)),
        "eos_token_id": end,
        "dtype": str(_dtype(reader)).removeprefix("torch."),
        "use_cache": True,
    }


def _check_variant(file: Path, kind: str, values: Mapping[str, Any], reader: GGUFReader) -> None:
    """Raise InputError for variants that would be read incorrectly: parts of a file, experts, stretched positions."""
    if int(values.get("split.count", 1)) > 1:
        raise InputError(f"{file} is one of several parts; join them with llama-gguf-split --merge first")
    scaling = str(values.get(f"{kind}.rope.scaling.type", "none"))
    stretched = scaling not in ("none", "") or any(tensor.name.startswith("rope_freqs") for tensor in reader.tensors)
    if int(values.get(f"{kind}.expert_count", 0)) or stretched:
        what = "stretched rotary positions" if stretched else "experts"
        raise InputError(f"{file} has a {kind} with {what}, which is not supported; use the Hugging Face folder")


def _rows(file: Path, reader: GGUFReader) -> int:
    for tensor in reader.tensors:
        if tensor.name == "token_embd.weight":
            return int(tensor.shape[1])
    raise InputError(f"{file} has no embedding (token_embd.weight), so it is not a complete model; download it again")


def _dtype(reader: GGUFReader) -> torch.dtype:
    kinds = {tensor.tensor_type for tensor in reader.tensors if len(tensor.shape) > 1}
    return HALF.get(next(iter(kinds)), torch.float32) if len(kinds) == 1 else torch.float32


# Weights


def _write_tensors(file: Path, reader: GGUFReader, config: Mapping[str, Any], folder: Path) -> None:
    """Write the weights in shards, with an index if there are several."""
    shards: list[dict[str, torch.Tensor]] = [{}]
    names: list[list[str]] = []
    size = 0

    def flush() -> None:
        save_file(shards[0], folder / f"part-{len(names):05d}", metadata={"format": "pt"})
        names.append(list(shards[0]))
        shards[0] = {}

    for name, tensor in _tensors(file, reader, config):
        if size + tensor.nbytes > SHARD_BYTES and shards[0]:
            flush()
            size = 0
        shards[0][name] = tensor
        size += tensor.nbytes
    flush()
    _name_shards(folder, names)


def _name_shards(folder: Path, names: list[list[str]]) -> None:
    if len(names) == 1:
        (folder / "part-00000").rename(folder / "model.safetensors")
        return
    weights: dict[str, str] = {}
    for number, own in enumerate(names):
        final = f"model-{number + 1:05d}-of-{len(names):05d}.safetensors"
        (folder / f"part-{number:05d}").rename(folder / final)
        weights |= dict.fromkeys(own, final)
    _write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weights})


def _tensors(file: Path, reader: GGUFReader, config: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights under their names in transformers."""
    kind, dtype = config["model_type"], getattr(torch, config["dtype"])
    places = {place: name for name, place in _names(config).items()}
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for tensor in reader.tensors:
        if tensor.name not in places:
            raise InputError(f"{file} has the tensor {tensor.name}, which a {kind} does not have; choose another model")
        values = _values(file, tensor)
        part = tensor.name.split(".")[-2]
        if kind == "llama" and part in heads:
            values = unpermuted(values, heads[part])
        yield places.pop(tensor.name), torch.from_numpy(np.array(values, np.float32)).to(dtype)
    optional = {"output.weight"} | {place for place in places if place.endswith(".bias")}
    if missing := sorted(set(places) - optional):
        raise InputError(f"{file} lacks {len(missing)} tensors, such as {missing[0]}; download it again")


def _names(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the name in the file of each possible tensor, by its name in transformers."""
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    parts = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for layer in range(config["num_hidden_layers"]):
        for ours, theirs in parts.items():
            for suffix in ("weight", "bias"):
                names[f"model.layers.{layer}.{ours}.{suffix}"] = f"blk.{layer}.{theirs}.{suffix}"
    return names


def _values(file: Path, tensor: Any) -> NDArray[np.float32]:
    """Return the values of a tensor of the file as fp32."""
    try:
        values: NDArray[np.float32] = gguf.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        raise InputError(
            f"{file}: {tensor.name} is stored as {tensor.tensor_type.name}, which the gguf library cannot read; "
            "choose another quantisation"
        ) from error
    return values


def unpermuted(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Return the rows of a query or key projection in the order of transformers.

    transformers rotates the two halves, llama.cpp neighbouring rows.
    """
    pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


# Tokenizer


def _tokenizer(file: Path, values: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Return the `tokenizer.json`: a byte-level BPE."""
    model = values.get("tokenizer.ggml.model")
    if model != "gpt2":
        raise InputError(f"{file} has the unsupported tokenizer {model!r}; choose a model with byte-level BPE ('gpt2')")
    tokens = values["tokenizer.ggml.tokens"]
    if len(tokens) > rows:
        raise InputError(f"{file} embeds {rows} tokens, but its tokenizer has {len(tokens)}; download it again")
    kinds = values.get("tokenizer.ggml.token_type") or [TokenType.NORMAL] * len(tokens)
    name = str(values.get("tokenizer.ggml.pre", "gpt-2"))
    try:
        steps = pre_tokenizers.steps(name)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added(number, token, kinds[number]) for number, token in enumerate(tokens) if _is_added(kinds[number])
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre_tokenizers.ALIASES.get(name, name) == "llama-bpe",
            "vocab": {token: number for number, token in enumerate(tokens) if kinds[number] != TokenType.UNUSED},
            "merges": [merge.split(" ", 1) for merge in values["tokenizer.ggml.merges"]],
        },
    }


def _is_added(kind: int) -> bool:
    return kind in (TokenType.CONTROL, TokenType.USER_DEFINED)


def _added(number: int, token: str, kind: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": token, **flags, "special": kind == TokenType.CONTROL}


def _tokenizer_settings(values: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    names = {number: token for token, number in tokenizer["model"]["vocab"].items()}
    roles = {
        f"{role}_token": names.get(values.get(f"tokenizer.ggml.{key}_token_id"))
        for role, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if template := values.get("tokenizer.chat_template"):
        settings["chat_template"] = template
    return {**settings, **{role: token for role, token in roles.items() if token is not None}}


def _facts(file: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts about the base for the model card."""
    with file.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    return {
        "name": str(values.get("general.name", file.stem)),
        "licence": str(values.get("general.license", "other")),
        "source": file.name,
        "sha256": digest,
        "quantisation": _quantisation(values),
    }


def _quantisation(values: Mapping[str, Any]) -> str:
    try:
        return gguf.LlamaFileType(int(values.get("general.file_type", -1))).name
    except ValueError:
        return "unknown"
