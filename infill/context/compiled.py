"""The decorator of inner loops: compiled ahead of time in the images, by numba at the first call elsewhere.

`python -m tools.kernels` compiles every loop for the types it is called with and puts the result beside this file, so
that an image needs neither numba nor LLVM (195 MB) and compiles nothing when it starts.
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
"""Ends the type of an array that need not be contiguous; other arrays end in C, scalars are `int` or `float`."""

Loop = Callable[..., Any]


def njit(*, cache: bool) -> Callable[[Loop], Loop]:
    """As numba's, unless this package holds `function` compiled ahead of time.

    Raises ImportError when what it holds was made of other source, or when it holds none and numba is missing.
    """

    def compile_loop(function: Loop) -> Loop:
        loops = _loops()
        if loops is None:
            try:
                from numba import njit as numba_njit
            except ModuleNotFoundError as error:
                what = (
                    "the context engine's inner loops are not compiled here, and numba, which compiles them, is missing"
                )
                raise ImportError(f"{what}: pip install 'infill[jit]', or take a wheel of `make wheels`") from error

            compiled: Loop = numba_njit(cache=cache)(function)
            return compiled
        # One that only other loops call is part of them.
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        return _dispatcher(name, loops[name]) if name in loops else function

    return compile_loop


def source_digest() -> str:
    """SHA-256 of the modules that hold the loops."""
    folder = Path(__file__).parents[1]
    return hashlib.sha256(b"".join((folder / f"{name}.py").read_bytes() for name in SOURCES)).hexdigest()


@cache
def _loops() -> dict[str, list[tuple[Loop, tuple[str, ...]]]] | None:
    """Name of a loop -> its compiled versions with the types that each takes; None where nothing was compiled."""
    file = Path(__file__).parent / TABLE
    if not file.exists():
        return None
    table = json.loads(read_text(file))
    if table["source"] != source_digest():
        raise ImportError(f"{file} was made of other source: delete it, or run `python -m tools.kernels`")
    module = importlib.import_module(f"{__package__}.{MODULE}")
    return {
        name: [(getattr(module, version["export"]), tuple(version["types"])) for version in versions]
        for name, versions in table["loops"].items()
    }


def _dispatcher(name: str, versions: Sequence[tuple[Loop, tuple[str, ...]]]) -> Loop:
    """The loop, after a look at the types: compiled code takes any bytes for the array that it expects."""

    def call(*arguments: Any) -> Any:
        for function, types in versions:
            if len(types) == len(arguments) and all(map(_fits, arguments, types)):
                return function(*arguments)
        raise TypeError(f"{name} is not compiled for {[_told(each) for each in arguments]}: extend tools.kernels")

    return call


def _fits(value: Any, wanted: str) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.str == wanted[:-1] and (value.flags.c_contiguous or wanted[-1] == ANY_STRIDE)
    if wanted == "float":
        return isinstance(value, float | int | np.number)
    return wanted == "int" and isinstance(value, int | np.integer)


def _told(value: Any) -> str:
    return f"{value.dtype.str} {value.strides}" if isinstance(value, np.ndarray) else type(value).__name__
