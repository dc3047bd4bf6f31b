"""Names say what they mean when they are alone, as in a traceback: no two modules and no two classes have the same."""

import ast
import sys
from collections import Counter
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PYTHON: Final = ("__init__", "__main__")
"""Names that Python prescribes."""
KINDS: Final = ("infill/artifacts", "serving/transformer/protocols")
"""Packages whose modules have the name of an artifact or a protocol, as the module has that works with it."""


def test_no_two_modules_have_the_same_name() -> None:
    modules = [path.relative_to(ROOT) for package in ("infill", "serving") for path in (ROOT / package).rglob("*.py")]
    named = [path for path in modules if path.stem not in PYTHON and str(path.parent) not in KINDS]
    counts = Counter(path.stem for path in named)
    assert sorted(str(path) for path in named if counts[path.stem] > 1) == []


def test_no_two_classes_have_the_same_name() -> None:
    modules = [path for package in ("infill", "serving", "pipelines") for path in (ROOT / package).rglob("*.py")]
    classes = [
        (node.name, str(path.relative_to(ROOT)))
        for path in modules
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    ]
    counts = Counter(name for name, _ in classes)
    assert [(name, path) for name, path in classes if counts[name] > 1] == []


def test_nothing_next_to_a_script_hides_a_module_of_python() -> None:
    """A script that is run by its path finds its own folder first: a package `typing` there broke a peer's script."""
    folders = [ROOT / name for name in ("benchmarks", "tools", "examples", "images", "charts", "pipelines")]
    names = {path.stem for folder in folders for path in folder.iterdir() if path.suffix in ("", ".py")}
    assert sorted(names & sys.stdlib_module_names) == []
