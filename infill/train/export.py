"""The model folder, which transformers and vLLM load and `gguf` converts for llama.cpp."""

import tempfile
from pathlib import Path
from typing import Any, Final

import torch
import transformers

from infill import prompt, storage
from infill.train import card

TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    prompt.FILE_NAME,
)
"""Files that are copied next to the weights, if the source has them."""


def save(model: Any, source: str, output: str, *, dtype: torch.dtype) -> None:
    """Write the Hugging Face `model` with its weights as `dtype`, and the tokenizer of the folder `source`."""
    tokenizer = storage.fetch(source)
    fmt, encoder = prompt.load_format(tokenizer), prompt.load_encoder(tokenizer)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model.generation_config.eos_token_id = list(prompt.stop_ids(fmt, encoder))
    model.generation_config.pad_token_id = fmt.fim_pad
    with tempfile.TemporaryDirectory() as folder:
        kept: dict[int, torch.Tensor] = {}  # tied weights stay one tensor, which is written once
        state = {
            name: kept.setdefault(weight.data_ptr(), weight.detach().to("cpu", dtype))
            for name, weight in model.state_dict().items()
        }
        model.config.dtype = dtype
        model.save_pretrained(folder, state_dict=state)
        for path in sorted(Path(folder).iterdir()):
            storage.write_bytes(storage.join(output, path.name), path.read_bytes())
    copy_tokenizer(source, output)


def copy_tokenizer(source: str, output: str) -> None:
    """Copy the tokenizer of `source`, and write its prompt format, which is detected if `source` has no file of it."""
    folder = storage.fetch(source)
    for name in TOKENIZER_FILES:
        if (folder / name).exists():
            storage.write_bytes(storage.join(output, name), (folder / name).read_bytes())
    storage.write_json(storage.join(output, prompt.FILE_NAME), prompt.load_format(folder).to_json())


def finished(output: str) -> bool:
    """Return whether the model folder `output` is complete."""
    return storage.exists(storage.join(output, card.FILE_NAME))
