"""The model: a Hugging Face Llama built from a `ModelConfig`, and its cost in parameters, operations and memory.

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

if TYPE_CHECKING:  # the pipeline's preflight uses the counts without torch
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PretrainedConfig

ADAM_BYTES: Final = 16
"""Bytes per parameter: weight, gradient and two moments, each in fp32."""
LOGITS: Final = {"cpu": 1 << 26, "cuda": 1 << 31}
"""Maximum number of logits that training keeps for the backward pass; more are recomputed chunk by chunk."""
LOGIT_BYTES: Final = {"cpu": 4, "cuda": 12}
"""Bytes of fp32 per logit: on a GPU for the logit, its softmax and its gradient; on a CPU these share their memory."""
PROCESS_BYTES: Final = 0.6e9
"""Bytes of a training process without model and data."""


def llama_config(config: ModelConfig, vocab_size: int, fmt: PromptFormat | None = None) -> "LlamaConfig":
    """Return the Hugging Face configuration of `config` with V = `vocab_size`; control tokens come from `fmt`."""
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
    """Return a model with random fp32 weights, the same for the same seed. On the `meta` device it uses no memory."""
    import torch
    from transformers import LlamaForCausalLM

    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def load_config(folder: Path) -> "PretrainedConfig":
    """Return the configuration of the decoder in `folder`. Raises InputError when it is missing or damaged."""
    from transformers import AutoConfig

    if not (folder / "config.json").exists():
        raise InputError(f"{folder} is not a model folder: it has no config.json")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)  # type: ignore[no-any-return]
    except Exception as error:  # as in `load`
        first = str(error).strip().partition("\n")[0]
        raise InputError(f"the configuration in {folder} cannot be read ({first}); fetch or train it again") from error


def load(folder: Path, dtype: "torch.dtype | None" = None) -> Any:
    """Return the decoder in `folder` for training, in `dtype`, by default fp32.

    It is a Llama or has the same structure (Qwen2, StarCoder2). Raises InputError as `load_any` does, and for a model
    of another structure.
    """
    decoder = load_any(folder, dtype)
    if not hasattr(decoder, "lm_head") or not hasattr(getattr(decoder, "model", None), "layers"):
        raise InputError(f"{folder} holds a {decoder.config.model_type}, which is not built like Llama; choose another")
    return decoder


def load_any(folder: Path, dtype: "torch.dtype | None" = None) -> Any:
    """Return the causal language model in `folder`, in `dtype`, by default fp32.

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
    except Exception as error:  # transformers, safetensors and json each raise their own errors
        first = str(error).strip().partition("\n")[0]
        raise InputError(f"the model in {folder} cannot be loaded ({first}); fetch or train it again") from error


def context_length(config: "PretrainedConfig | Mapping[str, Any]") -> int:
    """Return a model's context length in tokens: its positions, or its sliding window if that is shorter.

    `config` is its configuration, or the content of its `config.json`. The result is 0 if that has no positions.
    """
    values = config if isinstance(config, Mapping) else config.to_dict()
    positions = int(values.get("max_position_embeddings") or 0)
    window = values.get("sliding_window") if values.get("use_sliding_window", True) else None
    return min(positions, int(window or positions))


def parameters(config: ModelConfig, vocab_size: int) -> int:
    """Return the number of weights with `vocab_size` embedding rows; 4,019,248,128 for Mellum-4b with 98,304 rows."""
    head_width = config.width // config.heads
    attention = config.width * head_width * (2 * config.heads + 2 * config.kv_heads)
    layer = attention + 3 * config.width * config.mlp_width + 2 * config.width
    rows = vocab_size * (1 if config.tie_embeddings else 2)
    return config.layers * layer + rows * config.width + config.width


def flops_per_token(config: ModelConfig, vocab_size: int, tokens: int) -> float:
    """Return the floating-point operations of a training step per token of a sequence of `tokens`: 6 N + 6 L D T.

    N excludes the input embedding, which is not a matrix product. The second term is causal attention, half of PaLM's
    12 L D T (arXiv 2204.02311, appendix B).
    """
    looked_up = 0 if config.tie_embeddings else vocab_size * config.width
    matrix_weights = parameters(config, vocab_size) - looked_up
    return 6.0 * matrix_weights + 6.0 * config.layers * config.width * tokens


def cache_bytes_per_token(config: ModelConfig, itemsize: int = 2) -> int:
    """Return the bytes of keys and values that a server keeps per token; 368,640 for Mellum-4b in bf16."""
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
    """Return an estimate of the bytes that one worker needs to train; docs/log.md compares it with measured peaks.

    - With LoRA, `trained` weights are added to the others, which have neither gradients nor moments.
    - Each worker has all weights and gradients; the moments are split (ZeRO-1). DeepSpeed (`sharded`) keeps a second
      copy of its share of weights and gradients.
    - Activations are those that Llama's backward pass keeps: about 16 D + 4 MLP numbers per layer and token; with
      `recompute`, those of one layer, and D per layer.
    - At most LOGITS logits exist at a time, each with LOGIT_BYTES, plus `itemsize` bytes if that is below 4.
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
