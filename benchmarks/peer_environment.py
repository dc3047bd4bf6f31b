"""An environment of its own for the peers of a benchmark, in the user's cache, filled by pip."""

import functools
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Final

from infill import storage
from infill.errors import ServiceError

SECONDS: Final = 1_800


@functools.cache
def python(name: str, requirements: tuple[str, ...]) -> str:
    """Return the interpreter of an environment with `requirements`, which the first call installs.

    Raises ServiceError when pip cannot install them.
    """
    place = storage.cache() / "benchmarks" / f"{name}-{hashlib.sha256(repr(requirements).encode()).hexdigest()[:12]}"
    interpreter = str(place / "bin" / "python")
    if not (place / "ready").exists():
        _install(place, interpreter, requirements)
        (place / "ready").touch()
    return interpreter


def _install(place: Path, interpreter: str, requirements: tuple[str, ...]) -> None:
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True, timeout=SECONDS)
        pip = [interpreter, "-m", "pip", "install", "--quiet", "--no-compile", *requirements]
        subprocess.run(pip, check=True, timeout=SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        raise ServiceError(
            f"cannot install {' '.join(requirements)} with pip ({error}): check the network, or use --no-peers"
        ) from error
