"""The current file is never its own context, however its path is written and wherever its text stands."""

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infill.context import ProjectIndex, retrieve
from infill.context.identity import Current, normalised, within
from infill.context.packing import pack
from infill.context.strategies import STRATEGIES
from infill.prompt import ContextItem, FimRequest, infill_format
from serving.transformer.packer import _others
from serving.transformer.request import read_request
from tests import golden

HERE = "src/größe.py"
PROJECT = {
    HERE: "def area(width):\n    return width * height\n",
    "größe.py": "def area(depth):\n    return depth * height\n",
    "lib/src/größe.py": "def area(size):\n    return size * height\n",
    "src/other.py": "def area(height):\n    return height * width\n",
}
PREFIX, SUFFIX = "def area(width):\n    return ", "width\n"
"""Not what is saved: only the path tells which file it is."""

SPELLINGS = [
    HERE,
    "./src/größe.py",
    "src//größe.py",
    "src/./größe.py",
    "lib/../src/größe.py",
    "src\\größe.py",
    ".\\lib\\..\\src\\größe.py",
    unicodedata.normalize("NFD", HERE),
    "/home/me/project/src/größe.py",
    "//home/me/project/src/../src/größe.py",
    "../project/src/größe.py",
    "C:\\Users\\me\\project\\src\\größe.py",
    "c:/project/src/größe.py",
    "file:///home/me/project/src/gr%C3%B6%C3%9Fe.py",
]


@pytest.mark.parametrize("path", SPELLINGS)
def test_a_file_is_known_by_its_path_however_it_is_written(path: str) -> None:
    assert Current(path, "").named_in(PROJECT) == {HERE}
    assert Current(HERE, "").named_in([path, "src/other.py"]) == {path}
    index = ProjectIndex.from_documents(PROJECT.items())
    request = FimRequest(path=path, prefix=PREFIX, suffix=SUFFIX)
    for strategy in STRATEGIES:
        assert HERE not in {item.path for item in retrieve(index, request, strategy=strategy)}
    assert set(index.files) == set(PROJECT)
    items = tuple(ContextItem(path=each, text=text) for each, text in PROJECT.items())
    asked = FimRequest(path=path, prefix=PREFIX, suffix=SUFFIX, context=items)
    packed = pack(infill_format(), golden.ENCODER.encode, asked, budget=2_000)
    assert {item.path for item in packed.prompt.items} == set(PROJECT) - {HERE}
    body: dict[str, Any] = {"path": path, "prompt": PREFIX, "suffix": SUFFIX}
    body["context"] = [{"path": each, "text": text} for each, text in PROJECT.items()]
    documents = read_request(body, 16).documents
    assert {each for each, _ in _others(documents, Current(path, PREFIX + SUFFIX))} == set(PROJECT) - {HERE}


OTHERS = ["size.py", "src/size.py.bak", "x/src/sizes.py", "../lib/größe.py", "/home/me/xsrc/other2.py", "SRC/größe.py"]


@pytest.mark.parametrize("path", OTHERS)
def test_another_file_is_not_taken_for_it(path: str) -> None:
    assert Current(path, "").named_in([HERE, "src/other.py"]) == set()


TEXT = PROJECT[HERE]
COPIES = [TEXT, TEXT.replace("\n", "\r\n"), TEXT.rstrip(), f"{TEXT}\n\n", f"\ufeff{TEXT}"]


@pytest.mark.parametrize("text", COPIES)
def test_a_file_is_known_by_its_text(text: str) -> None:
    current = Current("elsewhere.py", TEXT)
    assert current.has_text(text)
    assert current.has_text(text.encode())
    assert Current("elsewhere.py", text).has_text(TEXT)
    index = ProjectIndex.from_documents([("link/größe.py", text), ("src/other.py", PROJECT["src/other.py"])])
    request = FimRequest(path="elsewhere.py", prefix=TEXT[:20], suffix=TEXT[20:])
    assert {item.path for item in retrieve(index, request)} == {"src/other.py"}


@pytest.mark.parametrize("text", ["", "def area(width):\n", f"{TEXT}x", f" {TEXT}", TEXT.replace("width", "depth")])
def test_other_text_is_not_taken_for_it(text: str) -> None:
    assert not Current("elsewhere.py", TEXT).has_text(text)
    assert not Current("elsewhere.py", TEXT).has_text(text.encode())


@given(text=st.text())
def test_a_blank_file_has_no_text_to_be_known_by(text: str) -> None:
    assert not Current("new.py", " \n").has_text(text)


def test_while_an_index_lacks_a_file_it_lacks_its_copies_too() -> None:
    index = ProjectIndex.from_documents([("a.py", TEXT), ("copy of a.py", TEXT), ("b.py", "x = 1\n")])
    with index.without("a.py"):
        assert set(index.files) == {"b.py"}
    assert len(index) == 3


PATHS = st.text(st.sampled_from("ab%é/\\."), min_size=1, max_size=6)
TEXTS = st.sampled_from(["", "\n", "x", "x\n", "x\r\n", "\ufeffx", "xy", "y x", "x" * 300, "é"])


@given(files=st.dictionaries(PATHS, TEXTS, max_size=6), gone=st.sets(PATHS, max_size=3), path=PATHS, text=TEXTS)
def test_an_index_misses_no_spelling_and_no_copy(files: dict[str, str], gone: set[str], path: str, text: str) -> None:
    index = ProjectIndex.from_documents(files.items())
    for each in gone:
        index.remove(each)
    current, before = Current(path, text), {*index.files}
    named = current.named_in(before)
    texts = [current, *(Current(each, index.text(each)) for each in named)]
    copies = {each for each, file in index.files.items() if any(other.has_text(file.data) for other in texts)}
    with index.without(path, text):
        assert {*index.files} == before - named - copies


@given(path=st.text(st.sampled_from("aé\u0301./\\C:")))
@example(path="\\\\C:\\:")
@example(path="./C:/x")
def test_one_spelling_is_left(path: str) -> None:
    assert normalised(normalised(path)) == normalised(path)
    assert "\\" not in normalised(path)


def test_links_are_followed_where_the_folder_is(tmp_path: Path) -> None:
    (tmp_path / "real" / "src").mkdir(parents=True)
    (tmp_path / "real" / "src" / "a.py").touch()
    (tmp_path / "real" / "link.py").symlink_to("src/a.py")
    (tmp_path / "project").symlink_to("real")
    root = tmp_path / "project"
    for path in ("src/a.py", "link.py", "src/../src/a.py", str(root / "src/a.py"), str(tmp_path / "real/link.py")):
        assert within(root, path) == "src/a.py"
    assert within(root, "../other.py") == "../other.py"
