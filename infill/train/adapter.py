"""LoRA (arXiv 2106.09685) through `peft`: small matrices beside frozen weights, and the rows of the control tokens.

This is the only module that knows peft. The adapted decoder is the same object with its layers wrapped, so that all
that trains, scores and checkpoints a decoder does the same for it; what is frozen is in no checkpoint.
"""

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from infill import manifest, storage
from infill.config import ModelConfig, TrainConfig
from infill.errors import InputError
from infill.prompt import PromptFormat

if TYPE_CHECKING:
    from peft import PeftModel

FOLDER: Final = "adapter"
"""Below the model folder: the adapter as peft writes it. The model folder itself has it merged."""
BASE_FILE: Final = "base.json"
"""In the adapter's folder: digest of the model that it belongs to."""


def adapt(decoder: Any, config: TrainConfig, fmt: PromptFormat) -> "PeftModel":
    """Freeze `decoder` and wrap its layers; the new weights are the same for the same seed.

    Raise InputError for a module that the decoder does not have.
    """
    from peft import LoraConfig, get_peft_model

    names = {name.rpartition(".")[2] for name, _ in decoder.named_modules()}
    if unknown := sorted(set(config.lora_modules) - names):
        raise InputError(f"lora_modules names {', '.join(unknown)}, which the model does not have")
    settings = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha or config.lora_rank,
        target_modules=list(config.lora_modules),
        trainable_token_indices={"embed_tokens": sorted(fmt.stop_ids)} if config.lora_rows else None,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft asks by an old name
        torch.manual_seed(config.seed)
        return get_peft_model(decoder, settings)


@contextlib.contextmanager
def off(decoder: Any) -> Iterator[None]:
    """Let an adapted decoder compute what its base does: the reference of DPO, without a second copy."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    layers = [module for module in decoder.modules() if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def save(adapted: "PeftModel", base: str, output: str) -> None:
    """Write the adapter below the model folder `output`, with the digest of the model folder `base`."""
    with tempfile.TemporaryDirectory() as name:
        adapted.save_pretrained(name)
        for path in sorted(Path(name).iterdir()):
            if path.name != "README.md":  # a template of peft's; the model's card stands above
                storage.write_bytes(storage.join(output, FOLDER, path.name), path.read_bytes())
    storage.write_json(storage.join(output, FOLDER, BASE_FILE), {"digest": _digest(base)})


def _digest(base: str) -> str:
    """Return the digest of a model folder: its manifest's, or that of a published base's files."""
    artifact = storage.exists(storage.join(base, manifest.FILE_NAME))
    return manifest.digest_of(base) if artifact else storage.fingerprint(base)


def count(shape: ModelConfig, config: TrainConfig) -> int:
    """Return the weights that training with LoRA changes, rows of tokens aside."""
    head = shape.width // shape.heads
    sides = {
        "q_proj": shape.width + shape.heads * head,
        "k_proj": shape.width + shape.kv_heads * head,
        "v_proj": shape.width + shape.kv_heads * head,
        "o_proj": shape.width + shape.heads * head,
        **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), shape.width + shape.mlp_width),
    }
    return shape.layers * config.lora_rank * sum(sides.get(name, 0) for name in config.lora_modules)
