"""A project's index in the background, and carets in between."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infill.editor.project import MANY, Indexer, Project
from infill.editor.remote import Model
from infill.prompt import FimRequest, load_encoder, load_format
from tests.editor.conftest import write
from tests.serving.conftest import wait_until

NAMES = ("one", "two", "three", "four", "five")
REQUEST = FimRequest(path="main.py", prefix="".join(f"{name}_area()\n" for name in NAMES), suffix="\n")
ONE, TWO, THREE, FOUR, FIVE = (f"def {name}_area():\n    return {name}_width\n" for name in NAMES)


@pytest.fixture(scope="module")
def served_model(model: Path) -> Model:
    """What a server says of the tiny model."""
    limits: dict[str, Any] = {"max_prompt_tokens": 512, "max_new_tokens": 16, "context_items": 8}
    encoder, fmt = load_encoder(model), load_format(model)
    return Model(name="tiny", tokenizer="x", fmt=fmt, encoder=encoder, strategy="infill", **limits)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    write(tmp_path, {"shapes/a.py": ONE, "shapes/b.py": TWO, "c.py": THREE, ".gitignore": "out/\n*.ipynb\n"})
    project = Project(tmp_path)
    project.refresh()
    return project


def paths(project: Project, served_model: Model) -> set[str]:
    """The files in the prompt of a caret."""
    packed = project.pack(REQUEST, served_model)
    assert packed is not None
    return {item.path for item in packed.prompt.items}


def test_a_folder_that_goes_or_comes_is_looked_into(project: Project, served_model: Model) -> None:
    (project.root / "shapes").rename(project.root / "forms")
    project.refresh_files(["shapes", "forms"])
    assert paths(project, served_model) == {"forms/a.py", "forms/b.py", "c.py"}
    write(project.root, {"out/d.py": FOUR})
    project.refresh_files(["out", "out/d.py"])
    assert len(project) == 4


def test_what_is_shown_stays_through_a_look_at_the_folder(project: Project, served_model: Model) -> None:
    project.show("c.py", THREE.replace("width", "shown"))
    project.show("out/d.py", FOUR)
    project.show("new.py", FIVE)
    project.refresh()
    assert paths(project, served_model) == {"shapes/a.py", "shapes/b.py", "c.py", "new.py"}
    packed = project.pack(REQUEST, served_model)
    assert packed is not None
    assert any("three_shown" in item.text for item in packed.prompt.items)
    for path in ("c.py", "new.py"):
        project.hide(path)
    project.refresh_files(["c.py", "new.py"])
    assert paths(project, served_model) == {"shapes/a.py", "shapes/b.py", "c.py"}


def test_an_ignored_notebook_has_no_completions(project: Project, served_model: Model) -> None:
    request = FimRequest(path="n.ipynb.py", prefix="x = ", suffix="")
    assert project.pack(request, served_model, file="n.ipynb") is None
    assert project.pack(request, served_model, file="n.md") is not None


def test_a_caret_waits_for_one_file_at_most(project: Project, served_model: Model) -> None:
    """The background thread stands still between two files until the caret has its prompt."""
    write(project.root, {f"many/{number}.py": f"x = {number}\n" for number in range(300)})
    between, asked = threading.Event(), threading.Event()

    def stop(count: int) -> None:
        if count == 100:
            between.set()
            assert asked.wait(30)

    thread = threading.Thread(target=project.refresh, args=(stop,))
    thread.start()
    assert between.wait(30)
    result = paths(project, served_model)
    asked.set()
    thread.join(30)
    assert result
    assert len(project) == 304


Change = Callable[[Path], list[str] | None]
CHANGES: dict[str, Change] = {
    "a file": lambda _: ["d.py"],
    "many files": lambda _: [f"none/{number}.py" for number in range(MANY + 1)],
    "the rules": lambda _: [".gitignore"],
    "all": lambda _: None,
}


@pytest.mark.parametrize("case", CHANGES)
def test_the_background_thread_looks_at_what_changed(tmp_path: Path, case: str) -> None:
    write(tmp_path, {"a.py": ONE})
    over: list[int | None] = []
    indexer, project = Indexer(lambda _, count: over.append(count)), Project(tmp_path)
    indexer.start()
    indexer.look(project)
    wait_until(lambda: None in over)
    write(tmp_path, {"d.py": ONE})
    indexer.look(project, CHANGES[case](tmp_path))
    wait_until(lambda: len(project) == 2)


def test_a_folder_that_cannot_be_indexed_says_why(tmp_path: Path) -> None:
    over: list[int | None] = []
    indexer, project = Indexer(lambda _, count: over.append(count)), Project(tmp_path / "none")
    indexer.start()
    indexer.look(project)
    wait_until(lambda: None in over)
    assert "is not a folder" in project.problem
