import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infill.context import Query, compiled, kernels, rank, scoring
from infill.context.index import ProjectIndex
from infill.context.strategies import STRATEGIES
from infill.corpus import shingles
from tools import kernels as tool

ROOT = Path(__file__).parents[3]


def add(values: Any, number: int, scale: float) -> float:
    return float(values.sum() + number * scale)


@pytest.fixture
def call() -> Callable[..., Any]:
    return compiled._dispatcher("toy.add", [(add, ("<i4A", "int", "float")), (add, ("<i8C", "int", "float"))])


def test_a_loop_takes_the_types_that_it_was_compiled_for(call: Callable[..., Any]) -> None:
    assert call(np.arange(4, dtype=np.int32)[::2], np.int64(1), 0.5) == 2.5
    assert call(np.arange(3), True, 2) == 5


@pytest.mark.parametrize(
    "arguments",
    [
        (np.zeros(2), 1, 0.5),
        (np.arange(6)[::2], 1, 0.5),
        (np.arange(3), 1.5, 0.5),
        (np.arange(3), 1),
        (3, 1, 0.5),
    ],
    ids=["another item", "with gaps", "a fraction", "one less", "no array"],
)
def test_a_loop_refuses_every_other_type(call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match=r"toy\.add is not compiled for"):
        call(*arguments)


def test_loops_of_other_source_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in compiled.SOURCES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "context" / compiled.TABLE).write_text(json.dumps({"source": "0" * 64, "loops": {}}))
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "context" / "compiled.py"))
    compiled._loops.cache_clear()
    with pytest.raises(ImportError, match="other source"):
        compiled.njit(cache=True)(add)
    compiled._loops.cache_clear()


def test_every_loop_is_called_by_the_exercise() -> None:
    tool.exercise()
    by_name = {name for name, _, _ in tool.called([kernels, scoring, shingles])}
    assert {"kernels.lex", "kernels.link", "scoring.rank", "scoring.best", "shingles.elect"} <= by_name


def test_a_loop_that_nothing_calls_is_named() -> None:
    module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec("toy", None))
    loop = compiled.njit(cache=False)(add)
    loop.__module__ = "toy"
    module.__dict__["add"] = loop
    with pytest.raises(ValueError, match=r"toy\.add was never called"):
        list(tool.called([module]))


ASK = """
import json, sys
sys.modules["numba"] = sys.modules["llvmlite"] = None
from tests.unit.context.test_compiled import answers
print(json.dumps(answers()))
"""


def answers() -> list[list[Any]]:
    """What all strategies find in this repository's own context engine."""
    files = sorted((ROOT / "infill" / "context").glob("*.py"))
    index = ProjectIndex.from_documents((file.name, file.read_text()) for file in files)
    text = files[-1].read_text()
    entries = []
    for strategy in STRATEGIES:
        items = rank(index, Query(path="new.py", prefix=text[:2000], suffix=text[2000:4000]), strategy, 8)
        entries.append([[item.path, item.first_line, item.last_line, item.score] for item in items])
    return entries


@pytest.mark.long
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: `make wheels` needs one, nothing else does")
def test_without_numba_the_compiled_loops_find_the_same(tmp_path: Path) -> None:
    for name in ("infill", "tests", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    tool.build(tmp_path / "infill" / "context")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", ASK], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(json.dumps(answers()))
