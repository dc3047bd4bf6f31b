"""Decide which licence covers each file of a repository.

The nearest statement counts. A licence file covers its folder and replaces the licence of the parent folder. A build
file without a licence file adds to the parent's licence, because package managers write a default licence into new
build files. REUSE.toml, DEP-5 and side files (`a.py.license`) add the licences that they state for single files. A
statement that is not recognised makes everything that it covers not permitted.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from infill.corpus.licences import builds, headers, names, recognise, reuse, spdx
from infill.corpus.licences.recognise import Statement, joined

Read = Callable[[str], str | None]
"""Returns the text of a file of the repository; None if it cannot be read."""
NOTHING_STATED: Final = Statement(spdx.UNKNOWN, "no licence file, build file or header states one")
_EITHER_TEXT: Final = "0BSD Apache-2.0 BSD-2-Clause BSD-3-Clause BSL-1.0 ISC MIT MIT-0 Unlicense Zlib"
_EITHER: Final = frozenset(_EITHER_TEXT.split())
"""Licences that, in separate files of one folder (LICENSE-MIT, LICENSE-APACHE), offer a choice."""


@dataclass(frozen=True)
class Coverage:
    """The licences of a repository's files."""

    folders: Mapping[str, Statement] = field(default_factory=dict)
    """Folder ("" is the top) -> its licence; a folder without an entry has the licence of its parent."""
    files: Mapping[str, Statement] = field(default_factory=dict)
    """File -> licence that its side file states."""
    rules: Sequence[reuse.Rule] = ()

    def of(self, path: str) -> Statement | None:
        """Return the licence that is stated for the file at `path`; None if none is."""
        candidates = [self._of_folder(path.rpartition("/")[0]), self.files.get(path)]
        candidates.append(next((rule.statement for rule in self.rules if rule.pattern.fullmatch(path)), None))
        statements = [statement for statement in candidates if statement is not None]
        return statements[0] if len(statements) == 1 else joined(statements)

    def _of_folder(self, folder: str) -> Statement | None:
        while folder not in self.folders and folder:
            folder = folder.rpartition("/")[0]
        return self.folders.get(folder)


def of_files(paths: Iterable[str], read: Read, declared: Sequence[str] = ()) -> Coverage:
    """Return the licences of the files of a repository.

    `declared` lists the licences that the package's metadata state for the whole repository, as they are written.
    """
    all_paths = set(paths)
    folders: dict[str, _Folder] = {"": _Folder(declared=[(words, "its metadata") for words in declared])}
    files: dict[str, Statement] = {}
    rules: list[reuse.Rule] = []
    for path in sorted(all_paths):
        folder, _, name = path.rpartition("/")
        described = names.described_by(name)
        described_path = f"{folder}/{described}" if folder else described
        if described and described_path in all_paths:
            files[described_path] = _side(path, read(path))
        elif name == reuse.REUSE:
            rules += reuse.of_reuse(read(path) or "", path)
        elif path in reuse.DEP5:
            rules += reuse.of_dep5(read(path) or "", path)
        elif names.is_licence(name) or builds.is_build_file(name):
            folders.setdefault(folder, _Folder()).add(path, name, read(path))
    return Coverage(_resolved(folders), files, rules)


def _side(path: str, text: str | None) -> Statement:
    """Return the licence that the side file at `path` states."""
    if text is None:
        return Statement(spdx.UNKNOWN, f"{path} cannot be read")
    statement = headers.of_source(text) or recognise.of_text(text)
    return _at(path, statement or Statement(spdx.UNKNOWN, "no known licence"))


def _at(path: str, statement: Statement) -> Statement:
    """Return `statement` with its file added to the evidence."""
    return Statement(statement.expression, f"{path}: {statement.evidence}" if statement.evidence else path)


class _Folder:
    """The licence statements of one folder's files."""

    def __init__(self, declared: Iterable[tuple[str, str]] = ()) -> None:
        self.texts: list[tuple[str, Statement | None]] = []
        """Path and statement of each licence file; None for a file that states nothing."""
        self.declared = list(declared)
        """Statements of build files as they are written, with the path of the file."""

    def add(self, path: str, name: str, text: str | None) -> None:
        """Add a licence or build file; `text` is None if it cannot be read."""
        if builds.is_build_file(name):
            self.declared += [(words, path) for words in builds.stated(name, text or "")]
        elif text is None:
            self.texts.append((path, Statement(spdx.UNKNOWN, "cannot be read")))
        else:
            self.texts.append((path, recognise.of_text(text)))

    def statement(self, above: Statement | None) -> Statement | None:
        """Return the licence of the folder, given the licence `above` of its parent."""
        files = self._of_texts()
        from_builds = list(self._of_builds(frozenset() if files is None else spdx.keys(files.expression)))
        if files is None:
            return joined([statement for statement in (above, *from_builds) if statement is not None])
        choice = {statement.expression for statement in from_builds}
        if files.is_known and len(choice) == 1 and spdx.keys(files.expression) <= spdx.keys(next(iter(choice))):
            return Statement(next(iter(choice)), f"{files.evidence}; {from_builds[0].evidence}")
        return joined([files, *from_builds])

    def _of_texts(self) -> Statement | None:
        """Return the combined statement of the licence files; None if there is no licence file."""
        silent = [path for path, statement in self.texts if statement is None]
        statements = [_at(path, statement) for path, statement in self.texts if statement is not None]
        if not statements:
            return Statement(spdx.UNKNOWN, f"{silent[0]}: no known licence") if silent else None
        together = joined(statements)
        expressions = [statement.expression for statement in statements]
        if len(set(expressions)) > 1 and _EITHER.issuperset(expressions) and self._is_choice():
            return Statement(spdx.disjunction(expressions) or spdx.UNKNOWN, "; ".join(path for path, _ in self.texts))
        return together

    def _is_choice(self) -> bool:
        """Return whether each licence file that states a licence has its identifier in the file name."""
        return all(
            any(part in path.rpartition("/")[2].lower() for part in statement.expression.lower().split("-")[:1])
            for path, statement in self.texts
            if statement is not None
        )

    def _of_builds(self, known: frozenset[str]) -> Iterable[Statement]:
        files = {path.rpartition("/")[2] for path, statement in self.texts if statement is not None}
        for words, path in self.declared:
            statement = builds.of_statement(words, known, files)
            if statement is not None:
                yield _at(path, statement)


def _resolved(folders: Mapping[str, _Folder]) -> dict[str, Statement]:
    """Return folder -> licence, from the top downwards, since a folder's licence depends on its parent's."""
    resolved: dict[str, Statement] = {}
    for folder in sorted(folders, key=lambda path: path.count("/") if path else -1):
        above = Coverage(resolved)._of_folder(folder.rpartition("/")[0]) if folder else None
        statement = folders[folder].statement(above)
        if statement is not None:
            resolved[folder] = statement
    return resolved
