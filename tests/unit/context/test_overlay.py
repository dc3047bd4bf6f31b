"""Whatever queries came before, a query sees the index that its own texts and caret make."""

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from infill.context import ContextItem, ProjectIndex, ranked, retrieve
from infill.context.identity import Current
from infill.context.overlay import Overlay
from infill.prompt import FimRequest
from tests.properties import examples
from tests.unit.context import brute


class Asked(NamedTuple):
    """A caret with the unsaved texts of other files."""

    texts: dict[str, str]
    path: str
    text: str


OPTIONS = {"strategy": "infill", "k": 5, "recent": ()}
"""Few texts, so that files often are copies of each other and of the current one."""
TEXTS = st.one_of(st.sampled_from(["", "def alpha():\n    return beta\n", "gamma = delta\n"]), brute.texts)
PROJECTS = st.dictionaries(brute.paths, TEXTS, max_size=6)
ASKED = st.builds(Asked, st.dictionaries(brute.paths, TEXTS, max_size=3), brute.paths, TEXTS)
SAVED = st.tuples(brute.paths, st.one_of(st.none(), TEXTS))


def texts(index: ProjectIndex) -> dict[str, str]:
    return {path: index.text(path) for path in index.files}


def ask(index: ProjectIndex, asked: Asked) -> tuple[ContextItem, ...]:
    request = FimRequest(path=asked.path, prefix=asked.text, suffix="")
    return ranked(index, request, **OPTIONS)  # type: ignore[arg-type]


@given(PROJECTS, st.lists(st.one_of(ASKED, SAVED), max_size=8))
@examples(150)
def test_a_query_sees_its_own_texts_and_not_its_own_file(
    project: dict[str, str], history: list[Asked | tuple[str, str | None]]
) -> None:
    index = ProjectIndex.from_documents(project.items())
    overlay, saved = Overlay(index), dict(project)
    for step in history:
        if not isinstance(step, Asked):
            overlay.lift()
            path, text = step
            index.remove(path) if text is None else index.update(path, text)
            saved = {key: value for key, value in {**saved, path: text}.items() if value is not None}
            assert texts(index) == saved
            continue
        fresh = ProjectIndex.from_documents({**saved, **step.texts}.items())
        items = [fresh.item(window, fresh.width(window)) for path in fresh.files for window in fresh.windows(path)]
        overlay.show(step.texts, Current(step.path, step.text))
        assert all(map(overlay.holds, items))
        expected = retrieve(fresh, FimRequest(path=step.path, prefix=step.text, suffix=""), **OPTIONS)  # type: ignore[arg-type]
        with fresh.without(step.path, step.text):
            assert texts(index) == texts(fresh)
        assert ask(index, step) == expected
    overlay.lift()
    assert texts(index) == saved
    assert index.text_bytes == sum(len(path) + len(text.encode()) for path, text in saved.items())
    assert index.table.live_blocks == ProjectIndex.from_documents(saved.items()).table.live_blocks


def test_the_next_keystroke_changes_nothing_in_the_index() -> None:
    index = ProjectIndex.from_documents([("a.py", "def alpha():\n"), ("b.py", "def beta():\n"), ("c.py", "gamma\n")])
    overlay = Overlay(index)
    overlay.show({"b.py": "def unsaved():\n"}, Current("a.py", "def alpha():\nx"))
    files = dict(index.files)
    assert files.keys() == {"b.py", "c.py"}
    overlay.show({"b.py": "def unsaved():\n"}, Current("a.py", "def alpha():\nxy"))
    assert all(index.files[path] is file for path, file in files.items())
