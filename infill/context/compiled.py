"""The decorator of inner loops: compiled ahead of time in images, otherwise by numba at the first call.

`python -m tools.kernels` compiles each loop for its types and writes the result next to this file, so that an image
needs neither numba nor LLVM (195 MB) and compiles nothing at its start.
"""

import hashlib
import importlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from infill.text import read_text

MODULE: Final = "_kernels"
TABLE: Final = "_kernels.json"
"""{"source": digest of the loops' source, "loops": {name: [{"export": name in MODULE, "types": [...]}]}}."""
SOURCES: Final = ("context/kernels", "context/scoring", "corpus/shingles")
"""Modules of loops, below `infill`; their last names differ."""
ANY_STRIDE: Final = "A"
"""Last letter of the type of an array that need not be contiguous; other arrays end in C, scalars in neither."""

Loop = Callable[..., Any]


def njit(*, cache: bool) -> Callable[[Loop], Loop]:
    """Return a decorator like numba's, which prefers the loop that was compiled ahead of time if there is one.

    The decorator raises ImportError when the compiled loops are of another source, or when there are none and numba is
    not installed.
    """

    def compile_loop(function: Loop) -> Loop:
        loops = _loops()
        if loops is None:
            try:
                from numba import njit as numba_njit
            except ModuleNotFoundError as error:
                problem = (
                    "the context engine's inner loops are not compiled, and numba is not installed to compile them"
                )
                raise ImportError(f"{problem}: pip install 'infill[jit]', or use a wheel of `make wheels`") from error

            compiled: Loop = numba_njit(cache=cache)(function)
            return compiled
        # A loop that is called only by other loops is compiled into them.
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        return _dispatcher(name, loops[name]) if name in loops else function

    return compile_loop


def source_digest() -> str:
    """Return the SHA-256 of the modules with the loops."""
    folder = Path(__file__).parents[1]
    return hashlib.sha256(b"".join((folder / f"{name}.py").read_bytes() for name in SOURCES)).hexdigest()


@cache
def _loops() -> dict[str, list[tuple[Loop, tuple[str, ...]]]] | None:
    """Return the compiled versions of each loop with their argument types, by name; None if nothing was compiled."""
    file = Path(__file__).parent / TABLE
    if not file.exists():
        return None
    table = json.loads(read_text(file))
    if table["source"] != source_digest():
        raise ImportError(f"{file} was compiled from another source: delete it, or run `python -m tools.kernels`")
    module = importlib.import_module(f"{__package__}.{MODULE}")
    return {
        name: [(getattr(module, version["export"]), tuple(version["types"])) for version in versions]
        for name, versions in table["loops"].items()
    }


def _dispatcher(name: str, versions: Sequence[tuple[Loop, tuple[str, ...]]]) -> Loop:
    """Return the loop with a check of its argument types: compiled code would read any bytes as the expected array."""

    def call(*arguments: Any) -> Any:
        for function, types in versions:
            if len(types) == len(arguments) and all(map(_fits, arguments, types)):
                return function(*arguments)
        raise TypeError(f"{name} is not compiled for {[_type_name(each) for each in arguments]}: extend tools.kernels")

    return call


def _fits(value: Any, wanted: str) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.str == wanted[:-1] and (value.flags.c_contiguous or wanted[-1] == ANY_STRIDE)
    if wanted == "float":
        return isinstance(value, float | int | np.number)
    return wanted == "int" and isinstance(value, int | np.integer)


def _type_name(value: Any) -> str:
    return f"{value.dtype.str} {value.strides}" if isinstance(value, np.ndarray) else type(value).__name__
