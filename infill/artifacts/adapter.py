"""A LoRA adapter: the subfolder `adapter` of a model folder, or a folder that was published alone."""

import hashlib
from typing import Final

from infill import storage

FOLDER: Final = "adapter"
"""Subfolder of the model folder with the adapter as peft writes it; the model folder has it merged."""
SETTINGS_FILE: Final = "adapter_config.json"
WEIGHTS_FILE: Final = "adapter_model.safetensors"
BASE_FILE: Final = "base.json"
"""In the adapter's folder: what identifies the model that it belongs to."""


def digest(folder: str) -> str:
    """Return the SHA-256 of the settings and weights of the adapter in `folder`. Raises InputError without them."""
    files = (storage.read_bytes(storage.join(folder, name)) for name in (SETTINGS_FILE, WEIGHTS_FILE))
    return hashlib.sha256(b"".join(files)).hexdigest()
