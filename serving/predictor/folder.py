"""Readers of a model folder, and limits, that both engines share."""

import math
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open

from infill import storage
from infill.errors import InputError
from infill.prompt import Encoder, load_format

CPU_CACHE_BYTES: Final = 1 << 30
"""Memory for KV caches on a CPU by default."""


def read_config(folder: Path) -> dict[str, Any]:
    """Return `config.json`. Raises InputError when there is none."""
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} is not a model folder: it has no config.json")
    config: dict[str, Any] = storage.read_json(str(folder / "config.json"))
    return config


def read_stop_ids(folder: Path, encoder: Encoder) -> frozenset[int]:
    """Return the tokens that end a text: the model's own end of text, and every control token."""
    file = folder / "generation_config.json"
    own = storage.read_json(str(file)) if file.exists() else read_config(folder)
    eos = own.get("eos_token_id")
    stops = {eos} if isinstance(eos, int) else set(eos or ())
    stops |= set(encoder.control)
    with suppress(InputError):
        stops |= set(load_format(folder).stop_ids)
    return frozenset(stops)


def count_parameters(folder: Path) -> int:
    """Return the number of weights in the safetensors files of `folder`."""
    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "np") as file:
            count += sum(math.prod(weight.get_shape()) for weight in map(file.get_slice, file.keys()))
    return count
