"""Source code for the benchmarks: published packages, which pip and npm download once into the user's cache."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from infill.context.files import IndexLimits, LeftOut, read, sources
from infill.errors import ServiceError

CACHE: Final = Path.home() / ".cache" / "infill" / "benchmarks"
SECONDS: Final = 300


class Package(NamedTuple):
    """A published package."""

    name: str
    client: str
    """`pip` or `npm`."""
    requirement: str
    folder: str
    """The folder of the package that is used."""
    extensions: tuple[str, ...]
    compiled: tuple[str, ...] = ()
    """Folders of the package with compiled forms of the same code."""


TUNED: Final = (
    Package("sqlalchemy", "pip", "sqlalchemy==2.0.36", "sqlalchemy", (".py",)),
    Package("mypy", "pip", "mypy==1.13.0", "mypy", (".py",)),
    Package("rxjs", "npm", "rxjs@7.8.1", "package/src", (".ts",)),
    Package("three", "npm", "three@0.170.0", "package/src", (".js",)),
)
"""Packages on which the weights of Infill's ranking were tuned, in other versions, with a small Rust project."""
CHECKED: Final = (
    Package("django", "pip", "django==5.1.4", "django", (".py",)),
    Package("scikit-learn", "pip", "scikit-learn==1.5.2", "sklearn", (".py",)),
    Package("effect", "npm", "effect@3.11.0", "package/src", (".ts",)),
    Package("viem", "npm", "viem@2.21.0", "package", (".ts",), ("_cjs", "_esm", "_types")),
    Package("rocksdb", "npm", "rocksdb@5.2.1", "package/deps", (".cc", ".h")),
    Package("react-native", "npm", "react-native@0.74.5", "package/ReactAndroid", (".java", ".kt")),
)
"""Packages that had no part in the tuning."""

Project = dict[str, str]
"""Texts by path."""


def fetch(package: Package) -> Project:
    """Return the package's source files. Raises ServiceError if it cannot be downloaded."""
    place = CACHE / package.requirement.replace("==", "-").replace("@", "-")
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            _download(package, Path(folder))
            (archive,) = Path(folder).iterdir()
            if archive.suffix == ".whl":
                shutil.unpack_archive(archive, f"{folder}/unpacked", "zip")
            else:
                shutil.unpack_archive(archive, f"{folder}/unpacked", "gztar", filter="data")
            Path(folder, "unpacked").rename(place)
    return {
        path: text
        for path, text in files(place / package.folder)
        if path.endswith(package.extensions)
        and not path.endswith(".d.ts")
        and path.partition("/")[0] not in package.compiled
    }


def _download(package: Package, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(folder)]
    npm = ["npm", "pack", "--silent", "--pack-destination", str(folder)]
    command = pip if package.client == "pip" else npm
    try:
        subprocess.run([*command, package.requirement], check=True, timeout=SECONDS, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        raise ServiceError(
            f"cannot download {package.requirement} with {package.client} ({error}): check the network and that "
            f"{package.client} is installed, or measure on a folder with --repo DIR"
        ) from error


def files(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the path and text of the source files below `root` that an index would contain."""
    limits, left_out = IndexLimits(files=1_000_000, total_bytes=1_000_000_000), LeftOut()
    for source in sources(root, limits, left_out):
        content = read(root, source, limits)
        if not isinstance(content, str):
            yield source.path, content[0].decode()
