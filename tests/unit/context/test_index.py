"""The index after any history is the index built from scratch."""

import subprocess
import sys
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from infill.context import ProjectIndex, Query, exact, rank
from infill.context.identity import Current
from infill.context.index import MAX_FILE_BYTES
from infill.context.index_arrays import LONGEST, SHORTEST
from infill.context.overlay import Overlay
from tests.properties import examples
from tests.unit.context import brute

edits = st.lists(st.tuples(brute.paths, st.one_of(st.none(), brute.texts)), max_size=25)


@given(edits, brute.texts, st.integers(0, 25))
@examples(100)
def test_any_edits_give_the_index_built_from_scratch(
    history: list[tuple[str, str | None]], text: str, first_query: int
) -> None:
    index, files = ProjectIndex(), dict[str, str]()
    for number, (path, content) in enumerate(history):
        if number == first_query:  # from now on files are linked one by one
            rank(index, Query(path="b.py", prefix=text, suffix=""), "infill")
        if content is None:
            index.remove(path)
            files.pop(path, None)
        else:
            index.update(path, content)
            files[path] = content
    fresh = ProjectIndex.from_documents(files.items())
    assert brute.contents(index) == brute.contents(fresh)
    query = Query(path="b.py", prefix=text, suffix=text[:20])
    for strategy in ("infill", "iou_exact", "iou_lines", "bm25", "rag", "iou", "path_distance"):
        assert rank(index, query, strategy) == rank(fresh, query, strategy)
    places = [(brute.place(index, hit.window), hit.score) for hit in exact.top_iou(index, text, 5)]
    assert places == [(brute.place(fresh, hit.window), hit.score) for hit in exact.top_iou(fresh, text, 5)]


def test_many_edits_leave_no_garbage() -> None:
    versions = ["\n".join(f"name_{number} = {word}_{number}" for number in range(300)) for word in ("alpha", "beta")]
    index = ProjectIndex()
    for number in range(200):
        index.update("a.py", versions[number % 2])
        if number == 100:
            rank(index, Query(path="b.py", prefix=versions[0], suffix=""), "infill")
    assert len(index.table.pool) < 50_000
    assert len(index.table.terms) < 50_000
    assert index.table.block_end < 200
    assert brute.contents(index) == brute.contents(ProjectIndex.from_documents([("a.py", versions[1])]))


@given(brute.texts)
@examples(60)
def test_blocks_are_the_file(text: str) -> None:
    index = ProjectIndex.from_documents([("a.py", text)])
    file = index.files["a.py"]
    blocks = [index.item(file.span.first + number, 1) for number in range(file.span.blocks)]
    assert "".join(block.text for block in blocks) == text
    line = 1
    for block in blocks:
        assert block.first_line == line
        line = block.last_line + 1
        assert block.text.count("\n") <= LONGEST
    assert all(block.text.count("\n") >= SHORTEST for block in blocks[:-1])


def test_windows_overlap_and_none_is_within_another() -> None:
    index = ProjectIndex.from_documents([("a.py", "alpha\n" * 100), ("b.py", "beta\n"), ("c.py", "")])
    spans = [index.item(window, index.width(window)) for window in index.windows("a.py")]
    assert all(one.last_line >= other.first_line for one, other in pairwise(spans))
    assert all(one.last_line < other.last_line for one, other in pairwise(spans))
    assert [index.width(window) for window in index.windows("b.py")] == [1]
    assert list(index.windows("c.py")) == []


def test_a_text_that_is_too_large_is_left_out_and_reported() -> None:
    index = ProjectIndex.from_documents([("a.py", "alpha\n")])
    index.update("a.py", "x" * (MAX_FILE_BYTES + 1))
    assert len(index) == 0
    assert index.left_out.counts.total() == 1


def test_lone_surrogates_and_bytes_that_are_no_utf8_do_no_harm() -> None:
    index = ProjectIndex.from_documents([("a.py", "alpha = '\ud800'\n")])
    index.update("b.py", b"alpha = '\xff\xfe'\n")
    items = rank(index, Query(path="c.py", prefix="alpha = '\udfff", suffix=""), "iou_exact")
    assert [item.path for item in items] == ["a.py", "b.py"]
    assert all(item.text.encode() for item in items)


def test_importing_the_package_does_not_import_numba() -> None:
    code = "import sys, infill.context, infill.context.packing; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(brute.projects, brute.paths, brute.paths, brute.texts)
@examples(60)
def test_what_was_without_a_file_has_it_again(files: dict[str, str], path: str, other: str, text: str) -> None:
    """Whatever is queried, added and changed meanwhile, in the file's place too."""
    index = ProjectIndex.from_documents(files.items())
    whole = brute.contents(index)
    with index.without(path):
        lacking = ProjectIndex.from_documents((each, data) for each, data in files.items() if each in index.files)
        assert brute.contents(index) == brute.contents(lacking)
        query = Query(path=path, prefix=text, suffix=text[:20])
        for strategy in ("infill", "iou_exact", "iou_lines", "bm25", "rag"):
            assert rank(index, query, strategy) == rank(lacking, query, strategy)
        index.update(other, text)
        index.update("new.py", text)
        assert index.text(other) == text
        index.remove("new.py")
        if other in lacking.files:
            index.update(other, files[other])
        elif other not in files:
            index.remove(other)
    assert brute.contents(index) == whole
    assert {each: index.text(each) for each in index.files} == files


def test_the_paths_are_computed_again_only_for_another_file() -> None:
    index = ProjectIndex.from_documents([("a.py", "a = 1\n"), ("b.py", "a = 1\n"), ("c.py", "c = 1\n")])
    with index.without("a.py", "a = 1\n"):  # b.py is a copy
        paths = index.project_paths
        assert set(index.files) == {"c.py"}
    assert index.project_paths is paths
    overlay = Overlay(index)
    for texts in ({"c.py": "c = 2\n"}, {}):
        overlay.show(texts, Current("a.py", "a = 1\n"))
        assert index.project_paths is paths
    overlay.lift()
    assert index.project_paths is paths
    index.update("d.py", "d = 1\n")
    assert index.project_paths is not paths
