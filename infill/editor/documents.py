"""The editor's documents: texts and their changes, positions in them, and cells of notebooks.

pygls keeps the documents. Its `TextDocument` splits lines like `str.splitlines`, also at form feeds and U+2028, where
the protocol does not, and so misplaces changes in a file that holds one; ours splits them like `infill.text`.
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
"""The longest text that is kept and completed; typing in a longer one costs nothing."""
_ENDINGS: Final = {
    "csharp": ".cs",
    "javascriptreact": ".jsx",
    "objective-c": ".m",
    "objective-cpp": ".mm",
    "shellscript": ".sh",
    "typescriptreact": ".tsx",
}
"""File extensions of languages for which editors and `infill.file_kinds` have different names."""


def offset_at(text: str, position: types.Position, encoding: str = "utf-16") -> int:
    """Return the number of characters before a position; a position beyond the line or the text means its end.

    A position inside a character, such as between the halves of a UTF-16 pair, means the place before it.
    """
    starts = line_starts(text)
    if position.line >= len(starts):
        return len(text)
    start = starts[position.line]
    line = first_line(text[start : [*starts, None][position.line + 1]])
    return start + _characters(line, position.character, encoding)


def _characters(line: str, units: int, encoding: str) -> int:
    """Return the number of whole characters in the first `units` code units of `line`."""
    if line.isascii() or encoding == types.PositionEncodingKind.Utf32:
        return min(units, len(line))
    for number, char in enumerate(line):
        units -= _width(ord(char), encoding)
        if units < 0:
            return number
    return len(line)


def _width(code: int, encoding: str) -> int:
    """Return the number of code units of a character."""
    if encoding == types.PositionEncodingKind.Utf8:
        return 1 + (code > 0x7F) + (code > 0x7FF) + (code > 0xFFFF)
    return 1 + (code > 0xFFFF)


def units(text: str, encoding: str = "utf-16") -> int:
    """Return the number of code units of `text`."""
    if encoding == types.PositionEncodingKind.Utf32 or text.isascii():
        return len(text)
    return sum(_width(ord(char), encoding) for char in text)


class EditorDocument(TextDocument):
    """A text in the editor, or only `too_large` for a text above MAX_CHARS."""

    too_large = False

    def apply_change(self, change: types.TextDocumentContentChangeEvent) -> None:
        """Apply a change; a change of a part of a text that is too large has no effect."""
        if isinstance(change, types.TextDocumentContentChangePartial):
            if self.too_large:
                return
            text, encoding = self.source, str(self.position_codec.encoding)
            start, end = (offset_at(text, place, encoding) for place in (change.range.start, change.range.end))
            self.keep(text[:start] + change.text + text[max(start, end) :])
        else:
            self.keep(change.text)

    def keep(self, text: str) -> None:
        """Replace the document's text by `text`."""
        self.too_large = len(text) > MAX_CHARS
        self._source = "" if self.too_large else text

    @property
    def source(self) -> str:
        """The text in the editor, never that on disk, which may differ."""
        return self._source or ""


class EditorDocuments(Workspace):
    """pygls's workspace with our documents, in which a change of an unopened document is not an error."""

    def _create_text_document(
        self, doc_uri: str, source: str | None = None, version: int | None = None, language_id: str | None = None
    ) -> EditorDocument:
        document = EditorDocument(
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
        """Apply a change of an open document; ignore other documents."""
        if self.is_open(text_doc.uri):
            super().update_text_document(text_doc, change)

    def update_notebook_document(self, params: types.DidChangeNotebookDocumentParams) -> None:
        """Apply a change of an open notebook; ignore other notebooks."""
        if unquote(params.notebook_document.uri) in self.notebook_documents:
            super().update_notebook_document(params)

    def is_open(self, uri: str) -> bool:
        """Return whether the document `uri` is open in the editor."""
        return unquote(uri) in self.text_documents

    def text(self, uri: str) -> str:
        """Return the text of `uri` without lone surrogates; empty if it is not open or too large."""
        return clean(self.get_text_document(uri).source) if self.is_open(uri) else ""

    def cells(self, uri: str) -> tuple[str, list[EditorDocument]] | None:
        """Return the URI of the notebook with the cell `uri`, and its cells of the same kind in order; None if none."""
        notebook = self.get_notebook_document(cell_uri=uri)
        if notebook is None:
            return None
        kind = next((cell.kind for cell in notebook.cells if cell.document == uri), None)
        same = [self.get_text_document(cell.document) for cell in notebook.cells if cell.kind == kind]
        return notebook.uri, [cell for cell in same if isinstance(cell, EditorDocument)]


class DocumentLocation(NamedTuple):
    """The location of a document."""

    root: Path | None
    """The innermost of the editor's folders that contains it; None for a file outside all, or without a path."""
    path: str
    """Path relative to the root; for a file outside all folders only its name, which reveals nothing of the machine."""


def place_of(uri: str, language: str, roots: list[Path]) -> DocumentLocation:
    """Return the place of the document `uri`; one without a path gets a name with its language's extension.

    An untitled document belongs to the editor's folder if there is only one.
    """
    file = to_fs_path(uri)
    if file is None:
        return DocumentLocation(roots[0] if len(roots) == 1 else None, f"untitled{ending_of(language)}")
    inside = [(root, path) for root in roots if (path := _relative(Path(file), root)) is not None]
    if not inside:
        return DocumentLocation(None, Path(file).name)
    return DocumentLocation(*min(inside, key=lambda place: len(place[1])))


def _relative(file: Path, root: Path) -> str | None:
    """Return the path of `file` relative to `root`, also if symbolic links lead to either; None if it is outside."""
    for inner, outer in ((file, root), (file.parent.resolve() / file.name, root.resolve())):
        if inner.is_relative_to(outer) and inner != outer:
            return inner.relative_to(outer).as_posix()
    return None


def ending_of(language: str) -> str:
    """Return the usual file extension of a language by the editors' name for it; empty for an unknown language."""
    return _ENDINGS.get(language) or extension_of(language)


class Caret(NamedTuple):
    """The place where the user types, with the text around it in the document's own line ends."""

    place: DocumentLocation
    prefix: str
    suffix: str
    file: str = ""
    """Path on disk if the prompt has another one, as for a notebook."""


def caret_at(documents: EditorDocuments, uri: str, position: types.Position, roots: list[Path]) -> Caret | None:
    """Return the caret at a position of the document `uri`; None if it is not open or too large.

    The prefix of a notebook's cell includes the cells of the same kind (code or text) before it, the suffix those after
    it; the path is the notebook's with the language's extension.
    """
    document = documents.get_text_document(uri)
    if not documents.is_open(uri) or not isinstance(document, EditorDocument) or document.too_large:
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
    """Return a cell's text with a final line end."""
    return text if text.endswith(("\n", "\r")) else f"{text}\n"
