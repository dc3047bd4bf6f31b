"""The model: a Hugging Face Llama built from a `ModelConfig`, and what it costs.

    V = vocabulary, D = width, L = layers, T = tokens

The published Mellum-4b is L = 30, D = 3,072, MLP 8,256, 24 heads without grouping, untied
embeddings (header of its GGUF).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infill.config import ModelConfig
from infill.errors import InputError
from infill.prompt import PromptFormat

if TYPE_CHECKING:  # the counts are also read where there is no torch: the pipeline's preflight
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PretrainedConfig

ADAM_BYTES: Final = 16
"""Bytes a parameter: weight, gradient and two moments, each in fp32."""
LOGITS: Final = {"cpu": 1 << 26, "cuda": 1 << 31}
"""Most logits that training keeps for the backward pass; beyond that they are made again, chunk by chunk."""
LOGIT_BYTES: Final = {"cpu": 4, "cuda": 12}
"""Bytes of fp32 that each takes: on a GPU itself, its softmax and its gradient; on a CPU they share their memory."""
PROCESS_BYTES: Final = 0.6e9
"""A training process without model and data."""


def llama_config(config: ModelConfig, vocab_size: int, fmt: PromptFormat | None = None) -> "LlamaConfig":
    """The Hugging Face configuration of `config` with V = `vocab_size`; control tokens from `fmt`."""
    from transformers import LlamaConfig

    end = fmt.endoftext if fmt else 0
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=config.width,
        intermediate_size=config.mlp_width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=config.context_length,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
        tie_word_embeddings=config.tie_embeddings,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=None,
        use_cache=True,
        dtype="float32",
    )


def build(config: "LlamaConfig", *, seed: int = 0, device: str = "cpu") -> "LlamaForCausalLM":
    """A model with random fp32 weights, the same for the same seed. On the `meta` device it takes no memory."""
    import torch
    from transformers import LlamaForCausalLM

    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def load_config(folder: Path) -> "PretrainedConfig":
    """The configuration of the decoder in `folder`. Raises InputError when there is none."""
    from transformers import AutoConfig

    if not (folder / "config.json").exists():
        raise InputError(f"{folder} is not a model folder: it has no config.json")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)  # type: ignore[no-any-return]
    except Exception as error:  # as in `load`
        first = str(error).strip().partition("\n")[0]
        raise InputError(f"the configuration in {folder} cannot be read ({first}); fetch or train it again") from error


def load(folder: Path, dtype: "torch.dtype | None" = None) -> Any:
    """Return the decoder in `folder`, in fp32 unless `dtype` says otherwise, for training.

    It is a Llama or built alike (Qwen2, StarCoder2). Raises InputError as `load_any`, and when it is built in another
    way.
    """
    decoder = load_any(folder, dtype)
    if not hasattr(decoder, "lm_head") or not hasattr(getattr(decoder, "model", None), "layers"):
        raise InputError(f"{folder} holds a {decoder.config.model_type}, which is not built like Llama; choose another")
    return decoder


def load_any(folder: Path, dtype: "torch.dtype | None" = None) -> Any:
    """Return the causal language model in `folder`, in fp32 unless `dtype` says otherwise.

    Raises InputError when its files are missing or damaged.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    if not (folder / "config.json").exists():
        raise InputError(f"{folder} is not a model folder: it has no config.json")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype or torch.float32, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers, safetensors and json each raise their own
        first = str(error).strip().partition("\n")[0]
        raise InputError(f"the model in {folder} cannot be loaded ({first}); fetch or train it again") from error


def context_length(config: "PretrainedConfig | Mapping[str, Any]") -> int:
    """Return the tokens that a model was made for: its positions, or less where its attention slides over them.

    `config` is its configuration, or what its `config.json` holds; 0 when that tells no positions.
    """
    values = config if isinstance(config, Mapping) else config.to_dict()
    positions = int(values.get("max_position_embeddings") or 0)
    window = values.get("sliding_window") if values.get("use_sliding_window", True) else None
    return min(positions, int(window or positions))


def parameters(config: ModelConfig, vocab_size: int) -> int:
    """Number of weights with `vocab_size` embedding rows: Mellum-4b has 4,019,248,128 with 98,304 untied rows."""
    head_width = config.width // config.heads
    attention = config.width * head_width * (2 * config.heads + 2 * config.kv_heads)
    layer = attention + 3 * config.width * config.mlp_width + 2 * config.width
    rows = vocab_size * (1 if config.tie_embeddings else 2)
    return config.layers * layer + rows * config.width + config.width


def flops_per_token(config: ModelConfig, vocab_size: int, tokens: int) -> float:
    """Floating-point operations of a training step per token of a sequence of `tokens`: 6 N + 6 L D T.

    N leaves out the input embedding, which is no matrix product; the second term is causal attention, half of the
    12 L D T of PaLM (arXiv 2204.02311, appendix B).
    """
    looked_up = 0 if config.tie_embeddings else vocab_size * config.width
    matrix_weights = parameters(config, vocab_size) - looked_up
    return 6.0 * matrix_weights + 6.0 * config.layers * config.width * tokens


def cache_bytes_per_token(config: ModelConfig, itemsize: int = 2) -> int:
    """Bytes of keys and values that a server keeps per token: Mellum-4b 368,640 in bf16."""
    return 2 * config.layers * config.kv_heads * (config.width // config.heads) * itemsize


def training_bytes(
    config: ModelConfig,
    vocab_size: int,
    *,
    micro_batch_tokens: int,
    itemsize: int,
    workers: int,
    recompute: bool = False,
    sharded: bool = True,
    device: str = "cuda",
    trained: int | None = None,
) -> float:
    """An estimate of the bytes that one worker needs to train; docs/log.md has it beside measured peaks.

    - With LoRA `trained` weights are beside the others, which have neither gradient nor moments.
    - Weights and gradients are whole on each worker, the moments are split (ZeRO-1). DeepSpeed (`sharded`) keeps its
      share of weights and gradients once more, in one piece.
    - Activations are those that Llama's backward pass keeps: about 16 D + 4 MLP numbers per layer and token; with
      `recompute` one layer's, and D per layer.
    - Of the logits, at most LOGITS at a time, each LOGIT_BYTES, and in the type of the products if that is shorter.
    - PROCESS_BYTES for Python, its packages and the device's libraries.
    """
    count = parameters(config, vocab_size)
    half = ADAM_BYTES / 2
    changed = count if trained is None else trained
    frozen = 0 if trained is None else count
    state = changed * (half + half / workers + (half / workers if sharded else 0)) + frozen * ADAM_BYTES / 4
    state += (frozen + changed) * (itemsize if itemsize < 4 else 0)
    layer = (16 * config.width + 4 * config.mlp_width) * itemsize
    kept = layer + config.layers * config.width * itemsize if recompute else config.layers * layer
    logit_bytes = LOGIT_BYTES[device] + (itemsize if itemsize < 4 else 0)
    logits = min(micro_batch_tokens * vocab_size, LOGITS[device]) * logit_bytes
    return PROCESS_BYTES + state + micro_batch_tokens * kept + logits
