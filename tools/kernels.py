"""The inner loops of context engine and corpus compiled ahead of time: `python -m tools.kernels`.

For images without numba. A small project is indexed and asked in every way, and searched for copies, which shows with
what types each loop is called; numba compiles the loops for these, a C compiler makes an extension module of them, and
it is put next to `infill/context/compiled.py`.
"""

import json
import platform
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import pyarrow as pa

from infill import entry
from infill.artifacts import corpus_tables
from infill.context import Query, compiled, rank, store
from infill.context.index import ProjectIndex
from infill.context.strategies import STRATEGIES
from infill.corpus import benchmarks, dedup, shingles
from infill.storage import write_bytes, write_table

CPU: Final = {"x86_64": "x86-64-v2"}.get(platform.machine(), "generic")
"""The instruction set, which all servers of the last fifteen years have."""


def exercise() -> None:
    """Call every loop with every combination of types that the engine uses."""
    index = ProjectIndex.from_documents((f"p{number}/m.py", _module(number)) for number in range(8))
    unasked = ProjectIndex()
    for number in range(60):  # its garbage is squeezed before the first query
        unasked.update("p0/m.py", _module(number))
    index.update("p0/m.py", _module(9))
    index.update("p1/m.py", "")
    index.update("p2/m.py", "x = 1")
    index.remove("p3/m.py")
    index.table.squeeze()
    with tempfile.TemporaryDirectory() as folder:
        store.save(index, f"{folder}/index")
        restored = store.load(f"{folder}/index")
    for each in (index, restored or index, ProjectIndex()):
        for strategy in STRATEGIES:
            for path in ("p0/m.py", "p0/new.py"):
                rank(each, Query(path=path, prefix=_module(4)[:900], suffix=_module(4)[900:]), strategy, 8)
                rank(each, Query(path=path, prefix="", suffix=""), strategy, 8)
    _find_copies()


def _find_copies() -> None:
    contents = [_module(number) for number in (1, 1, 2)]
    signatures = [dedup.sign(content.encode()) for content in contents]
    columns = {
        "content": contents,
        "signature": pa.array([signature.values for signature in signatures], corpus_tables.SIGNATURE),
        "shingles": [signature.shingles for signature in signatures],
    }
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/documents.parquet"
        write_table(file, pa.table(columns))
        part = dedup.DocumentsPart(file, file)
        similar = dedup.similar([part], np.arange(3), count=3, fixed=0, threshold=0.7, lower=0.6)
        similar.near(np.zeros(3, bool))
        table, task = f"{folder}/benchmarks.parquet", f"{folder}/task.py"
        write_bytes(task, contents[0].encode())
        benchmarks.prepare([task], table)
        benchmarks.load(table).overlap(contents[0].encode())


def _module(number: int) -> str:
    functions = (
        f"def area_{number}_{each}(width_{each}, height):\n    scale = factor_{each}(width_{each})\n\n"
        f"    return scale * height + constant_{number}\n\n"
        for each in range(30)
    )
    return "import p1.m\n\n" + "".join(functions)


def called(modules: list[ModuleType]) -> Iterator[tuple[str, Any, list[tuple[Any, ...]]]]:
    """Yield the name, function and argument types (of each version) of each loop that Python calls.

    Raises ValueError for a loop that `exercise` does not call.
    """
    for module in modules:
        for name, loop in vars(module).items():
            if getattr(loop, "__module__", "") != module.__name__ or not hasattr(loop, "py_func"):
                continue
            if name.startswith("_"):  # only other loops call it
                continue
            if not loop.signatures:
                raise ValueError(f"{module.__name__}.{name} was never called: extend `exercise` in tools/kernels.py")
            yield f"{module.__name__.rpartition('.')[2]}.{name}", loop.py_func, _merged(loop.signatures)


def _merged(signatures: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return one version for those that differ only in strides or mutability: the one that accepts every array."""
    groups: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for types in signatures:
        groups.setdefault(tuple(getattr(each, "dtype", each) for each in types), []).append(types)
    return [tuple(max(each, key=_generality) for each in zip(*versions, strict=True)) for versions in groups.values()]


def _generality(kind: Any) -> tuple[bool, bool]:
    return getattr(kind, "layout", "C") != "C", not getattr(kind, "mutable", True)


def _type_name(kind: Any) -> str:
    """Return the name of a numba type in `compiled`."""
    from numba import types
    from numba.np.numpy_support import as_dtype

    if isinstance(kind, types.Array):
        return f"{as_dtype(kind.dtype).str}{'C' if kind.layout == 'C' else compiled.ANY_STRIDE}"
    return "float" if isinstance(kind, types.Float) else "int"


def build(folder: Path) -> Path:
    """Compile the loops into `folder`, replacing older files; return the path of the extension module.

    Raises ValueError if a loop was never called, or if the loops in use are already compiled.
    """
    for old in (*folder.glob(f"{compiled.MODULE}.*.so"), folder / compiled.TABLE):
        old.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba deprecates its only ahead-of-time compiler
        from numba.pycc.cc import CC

    from infill.context import kernels, scoring

    exercise()
    compiler: Any = CC(compiled.MODULE)  # type: ignore[no-untyped-call]
    compiler.output_dir, compiler.target_cpu = str(folder), CPU
    table: dict[str, list[dict[str, Any]]] = {}
    for name, function, versions in called([kernels, scoring, shingles]):
        table[name] = []
        for number, types in enumerate(versions):
            export = f"{name.replace('.', '_')}_{number}"
            compiler.export(export, types)(function)
            table[name].append({"export": export, "types": [_type_name(kind) for kind in types]})
    if not table:
        raise ValueError("the loops in use are already compiled: delete the module next to infill/context/compiled.py")
    compiler.compile()
    file = folder / compiled.TABLE
    file.write_text(json.dumps({"source": compiled.source_digest(), "loops": table}, indent=1, sort_keys=True) + "\n")
    return folder / str(compiler.output_file)


def main() -> None:
    """Compile the loops next to the source and print the extension module's path."""
    sys.stdout.write(f"{build(Path(compiled.__file__).parent)}\n")


if __name__ == "__main__":
    sys.exit(entry.run("python -m tools.kernels", main))
