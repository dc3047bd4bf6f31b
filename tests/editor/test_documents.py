"""Texts, positions and places: whatever an editor counts in, whatever its texts contain."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsprotocol import types

from infill.editor.documents import DocumentLocation, EditorDocuments, caret_at, ending_of, offset_at, place_of
from tests.properties import examples

UNITS = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}
texts = st.text(st.sampled_from("ab \té🌍\r\n\x0c\u2028\x85"), max_size=12)
encodings = st.sampled_from(sorted(UNITS))


def width(text: str, encoding: str) -> int:
    name, size = UNITS[encoding]
    return len(text.encode(name)) // size


def position_of(text: str, offset: int, encoding: str) -> types.Position:
    """The position of a place that is not between CR and LF, counted the slow way."""
    lines = text[:offset].replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return types.Position(line=len(lines) - 1, character=width(lines[-1], encoding))


@given(texts, texts, encodings)
def test_a_position_is_where_the_editor_counts_it(before: str, after: str, encoding: str) -> None:
    if before.endswith("\r") and after.startswith("\n"):
        after = "x" + after
    text = before + after
    assert offset_at(text, position_of(text, len(before), encoding), encoding) == len(before)


@given(texts, st.integers(0, 20), st.integers(0, 20), encodings)
def test_every_position_is_somewhere_in_its_line(text: str, line: int, character: int, encoding: str) -> None:
    offset = offset_at(text, types.Position(line=line, character=character), encoding)
    assert 0 <= offset <= len(text)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert position_of(text, offset, encoding).line == min(line, len(lines) - 1)


def test_a_position_inside_a_pair_is_before_it() -> None:
    assert [offset_at("a🌍b", types.Position(0, units)) for units in range(6)] == [0, 1, 1, 2, 3, 3]


def documents(encoding: str = "utf-16") -> EditorDocuments:
    return EditorDocuments(None, position_encoding=encoding)


def opened(text: str, uri: str = "untitled:a", encoding: str = "utf-16", language: str = "python") -> EditorDocuments:
    shown = documents(encoding)
    shown.put_text_document(types.TextDocumentItem(uri=uri, language_id=language, version=1, text=text))
    return shown


edits = st.tuples(st.integers(0, 12), st.integers(0, 12), texts)


@examples(200)
@given(texts, st.lists(edits, max_size=4), encodings)
def test_changes_give_the_text_that_the_editor_has(
    text: str, changes: list[tuple[int, int, str]], encoding: str
) -> None:
    shown = opened(text, encoding=encoding)
    identifier = types.VersionedTextDocumentIdentifier(uri="untitled:a", version=2)
    for one, two, new in changes:
        start, end = sorted((min(one, len(text)), min(two, len(text))))
        while any(text[place - 1 : place + 1] == "\r\n" for place in (start, end)):
            start, end = max(start - 1, 0), min(end + 1, len(text))
            if start == 0 and end == len(text):
                break
        place = types.Range(position_of(text, start, encoding), position_of(text, end, encoding))
        shown.update_text_document(identifier, types.TextDocumentContentChangePartial(range=place, text=new))
        text = text[:start] + new + text[end:]
        assert shown.text("untitled:a") == text


def test_halves_of_a_pair_that_come_one_after_the_other_are_a_character() -> None:
    shown = opened("x")
    identifier = types.VersionedTextDocumentIdentifier(uri="untitled:a", version=2)
    for column, half in enumerate(("\ud83c", "\udf0d"), start=1):
        place = types.Range(types.Position(0, column), types.Position(0, column))
        shown.update_text_document(identifier, types.TextDocumentContentChangePartial(range=place, text=half))
    assert shown.text("untitled:a") == "x🌍"


PLACES: dict[str, tuple[str, str, list[str], DocumentLocation]] = {
    "in a folder": ("file:///p/a/b.py", "python", ["/p", "/q"], DocumentLocation(Path("/p"), "a/b.py")),
    "in the innermost": ("file:///p/a/b.py", "python", ["/p", "/p/a"], DocumentLocation(Path("/p/a"), "b.py")),
    "with a blank": ("file:///p%20%C3%BC/a.py", "python", ["/p ü"], DocumentLocation(Path("/p ü"), "a.py")),
    "outside": ("file:///home/user/a.py", "python", ["/p"], DocumentLocation(None, "a.py")),
    "beside": ("file:///pq/a.py", "python", ["/p"], DocumentLocation(None, "a.py")),
    "untitled": ("untitled:Untitled-1", "typescriptreact", ["/p"], DocumentLocation(Path("/p"), "untitled.tsx")),
    "untitled of two": ("untitled:Untitled-1", "python", ["/p", "/q"], DocumentLocation(None, "untitled.py")),
    "of no known language": ("untitled:Untitled-1", "klingon", [], DocumentLocation(None, "untitled")),
    "on another machine": ("vscode-remote://host/p/a.go", "go", ["/p", "/q"], DocumentLocation(None, "untitled.go")),
}


@pytest.mark.parametrize("case", PLACES)
def test_where_a_document_is(case: str) -> None:
    uri, language, roots, place = PLACES[case]
    assert place_of(uri, language, [Path(root) for root in roots]) == place


def test_a_document_is_found_through_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for root, file in (("link", "real"), ("real", "link")):
        place = place_of((tmp_path / file / "a.py").as_uri(), "python", [tmp_path / root])
        assert place == DocumentLocation(tmp_path / root, "a.py")


def test_endings_of_languages_as_editors_call_them() -> None:
    names = ("python", "csharp", "rust", "xml", "shellscript", "javascriptreact", "cpp", "kotlin", "")
    assert [ending_of(name) for name in names] == [".py", ".cs", ".rs", ".xml", ".sh", ".jsx", ".cpp", ".kt", ""]


def test_cells_end_in_a_line_end_between_each_other() -> None:
    shown = documents()
    cells = [types.NotebookCell(types.NotebookCellKind.Code, f"cell:{number}") for number in range(3)]
    items = [
        types.TextDocumentItem(cell.document, "python", 1, text)
        for cell, text in zip(cells, ("a", "bc", "d\n"), strict=True)
    ]
    notebook = types.NotebookDocument("file:///p/n.ipynb", "jupyter-notebook", 1, cells)
    shown.put_notebook_document(types.DidOpenNotebookDocumentParams(notebook, items))
    caret = caret_at(shown, "cell:1", types.Position(0, 1), [Path("/p")])
    assert caret == (DocumentLocation(Path("/p"), "n.ipynb.py"), "a\nb", "c\nd\n", "n.ipynb")
