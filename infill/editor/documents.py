"""What the editor shows: texts and their changes, where a position lies in them, and cells of notebooks.

pygls keeps the documents. Its `TextDocument` cuts lines as `str.splitlines` does, at form feeds and U+2028 too, where
the protocol does not, so that a file which holds one would come apart; ours cuts them as `infill.text` does.
"""

from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote

from lsprotocol import types
from pygls.uris import to_fs_path
from pygls.workspace import TextDocument, Workspace

from infill.context.index import MAX_FILE_BYTES
from infill.file_kinds import extension_of
from infill.text import clean, first_line, line_starts

MAX_CHARS: Final = MAX_FILE_BYTES
"""A longer text is not kept, so that typing in it costs nothing, and is not completed."""
_ENDINGS: Final = {
    "csharp": ".cs",
    "javascriptreact": ".jsx",
    "objective-c": ".m",
    "objective-cpp": ".mm",
    "shellscript": ".sh",
    "typescriptreact": ".tsx",
}
"""Ending of files in languages that editors name otherwise than `infill.file_kinds`."""


def offset_at(text: str, position: types.Position, encoding: str = "utf-16") -> int:
    """Return how many characters stand before a position; one beyond the line or the text is its end.

    A position inside a character, as between the halves of a UTF-16 pair, is the place before it.
    """
    starts = line_starts(text)
    if position.line >= len(starts):
        return len(text)
    start = starts[position.line]
    line = first_line(text[start : [*starts, None][position.line + 1]])
    return start + _characters(line, position.character, encoding)


def _characters(line: str, units: int, encoding: str) -> int:
    """Return how many characters of `line` lie within its first `units` code units."""
    if line.isascii() or encoding == types.PositionEncodingKind.Utf32:
        return min(units, len(line))
    for number, char in enumerate(line):
        units -= _width(ord(char), encoding)
        if units < 0:
            return number
    return len(line)


def _width(code: int, encoding: str) -> int:
    """Return the code units of a character."""
    if encoding == types.PositionEncodingKind.Utf8:
        return 1 + (code > 0x7F) + (code > 0x7FF) + (code > 0xFFFF)
    return 1 + (code > 0xFFFF)


def units(text: str, encoding: str = "utf-16") -> int:
    """Return the code units of `text`."""
    if encoding == types.PositionEncodingKind.Utf32 or text.isascii():
        return len(text)
    return sum(_width(ord(char), encoding) for char in text)


class Document(TextDocument):
    """A text in the editor; `too_large` instead of a text above MAX_CHARS."""

    too_large = False

    def apply_change(self, change: types.TextDocumentContentChangeEvent) -> None:
        """Take over a change. One of part of a text that was never kept changes nothing."""
        if isinstance(change, types.TextDocumentContentChangePartial):
            if self.too_large:
                return
            text, encoding = self.source, str(self.position_codec.encoding)
            start, end = (offset_at(text, place, encoding) for place in (change.range.start, change.range.end))
            self.keep(text[:start] + change.text + text[max(start, end) :])
        else:
            self.keep(change.text)

    def keep(self, text: str) -> None:
        """Make `text` the document's."""
        self.too_large = len(text) > MAX_CHARS
        self._source = "" if self.too_large else text

    @property
    def source(self) -> str:
        """The text; never read from the disk, which the editor's text may differ from."""
        return self._source or ""


class Documents(Workspace):
    """pygls's workspace with our documents. A change of a document that was never opened is not an error."""

    def _create_text_document(
        self, doc_uri: str, source: str | None = None, version: int | None = None, language_id: str | None = None
    ) -> Document:
        document = Document(
            doc_uri,
            version=version,
            language_id=language_id,
            sync_kind=self._sync_kind,
            position_codec=self._position_codec,
        )
        document.keep(source or "")
        return document

    def update_text_document(
        self, text_doc: types.VersionedTextDocumentIdentifier, change: types.TextDocumentContentChangeEvent
    ) -> None:
        """Take over a change of a document that is open."""
        if self.is_open(text_doc.uri):
            super().update_text_document(text_doc, change)

    def update_notebook_document(self, params: types.DidChangeNotebookDocumentParams) -> None:
        """Take over a change of a notebook that is open."""
        if unquote(params.notebook_document.uri) in self.notebook_documents:
            super().update_notebook_document(params)

    def is_open(self, uri: str) -> bool:
        """Return whether the editor shows `uri`."""
        return unquote(uri) in self.text_documents

    def text(self, uri: str) -> str:
        """Return the text of `uri` with whole characters; empty when it is not open or too large."""
        return clean(self.get_text_document(uri).source) if self.is_open(uri) else ""

    def cells(self, uri: str) -> tuple[str, list[Document]] | None:
        """Return the URI of the notebook that holds the cell `uri`, and its cells of the same kind in order."""
        notebook = self.get_notebook_document(cell_uri=uri)
        if notebook is None:
            return None
        kind = next((cell.kind for cell in notebook.cells if cell.document == uri), None)
        same = [self.get_text_document(cell.document) for cell in notebook.cells if cell.kind == kind]
        return notebook.uri, [cell for cell in same if isinstance(cell, Document)]


class Place(NamedTuple):
    """Where a document lies."""

    root: Path | None
    """The innermost folder of the editor's that holds it; None for a file outside of all, or without a path."""
    path: str
    """Relative to the root; of a file outside only its name, which says nothing about the machine."""


def place_of(uri: str, language: str, roots: list[Path]) -> Place:
    """Return where the document `uri` lies, and for one without a path a name with its language's ending.

    An untitled document belongs to the editor's folder where there is only one.
    """
    file = to_fs_path(uri)
    if file is None:
        return Place(roots[0] if len(roots) == 1 else None, f"untitled{ending_of(language)}")
    inside = [(root, path) for root in roots if (path := _relative(Path(file), root)) is not None]
    if not inside:
        return Place(None, Path(file).name)
    return Place(*min(inside, key=lambda place: len(place[1])))


def _relative(file: Path, root: Path) -> str | None:
    """Return the path of `file` in `root`, however links lead to the two."""
    for inner, outer in ((file, root), (file.parent.resolve() / file.name, root.resolve())):
        if inner.is_relative_to(outer) and inner != outer:
            return inner.relative_to(outer).as_posix()
    return None


def ending_of(language: str) -> str:
    """Return the usual ending of file names in a language as editors call it; empty for one that we do not know."""
    return _ENDINGS.get(language) or extension_of(language)


class Caret(NamedTuple):
    """Where the user types: the text round it, in the document's own line ends."""

    place: Place
    prefix: str
    suffix: str
    file: str = ""
    """Path on the disk where the prompt has another one: of a notebook."""


def caret_at(documents: Documents, uri: str, position: types.Position, roots: list[Path]) -> Caret | None:
    """Return the caret at a position of the document `uri`; None for one that is not open or too large.

    A notebook's cell has the cells before it (of code, or of text, as it is one) in its prefix, the others in its
    suffix, and the notebook's name with its language's ending.
    """
    document = documents.get_text_document(uri)
    if not documents.is_open(uri) or not isinstance(document, Document) or document.too_large:
        return None
    offset = offset_at(document.source, position, str(documents.position_encoding))
    prefix, suffix = clean(document.source[:offset]), clean(document.source[offset:])
    language = document.language_id or ""
    notebook = documents.cells(uri)
    if notebook is None:
        return Caret(place_of(uri, language, roots), prefix, suffix)
    place = place_of(notebook[0], language, roots)
    texts = [clean(cell.source) for cell in notebook[1]]
    number = next((number for number, cell in enumerate(notebook[1]) if cell.uri == uri), 0)
    return Caret(
        place._replace(path=f"{place.path}{ending_of(language)}"),
        "".join(map(_ended, texts[:number])) + prefix,
        suffix if number + 1 == len(texts) else _ended(suffix) + "".join(map(_ended, texts[number + 1 :])),
        place.path,
    )


def _ended(text: str) -> str:
    """Return a cell's text with a line end at its end."""
    return text if text.endswith(("\n", "\r")) else f"{text}\n"
