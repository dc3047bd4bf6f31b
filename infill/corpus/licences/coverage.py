"""Which licence covers which file of a repository.

What stands nearest counts. A licence file speaks for its folder, in the place of what stands above. A build file alone
is added to it, since package managers write a licence into new build files that nobody chose. What REUSE.toml, DEP-5 or
a side file say of one file is added, too. Whatever is stated and not known is not permitted for all that it covers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from infill.corpus.licences import builds, headers, names, recognise, reuse, spdx
from infill.corpus.licences.recognise import Statement, joined

Read = Callable[[str], str | None]
"""Gives the text of a file of the repository; None where it cannot be read."""
NOTHING_STATED: Final = Statement(spdx.UNKNOWN, "no licence file, build file or header states one")
_EITHER_TEXT: Final = "0BSD Apache-2.0 BSD-2-Clause BSD-3-Clause BSL-1.0 ISC MIT MIT-0 Unlicense Zlib"
_EITHER: Final = frozenset(_EITHER_TEXT.split())
"""Licences that stand side by side (LICENSE-MIT, LICENSE-APACHE) for a choice."""


@dataclass(frozen=True)
class Coverage:
    """The licences of a repository's files."""

    folders: Mapping[str, Statement] = field(default_factory=dict)
    """Folder ("" is the top) -> what covers it; a folder that is missing is covered as the one above it."""
    files: Mapping[str, Statement] = field(default_factory=dict)
    """File -> what its side file says."""
    rules: Sequence[reuse.Rule] = ()

    def of(self, path: str) -> Statement | None:
        """Return what is stated of the file at `path`; None where nothing is."""
        listed = [self._of_folder(path.rpartition("/")[0]), self.files.get(path)]
        listed.append(next((rule.statement for rule in self.rules if rule.pattern.fullmatch(path)), None))
        stated = [statement for statement in listed if statement is not None]
        return stated[0] if len(stated) == 1 else joined(stated)

    def _of_folder(self, folder: str) -> Statement | None:
        while folder not in self.folders and folder:
            folder = folder.rpartition("/")[0]
        return self.folders.get(folder)


def of_files(paths: Iterable[str], read: Read, declared: Sequence[str] = ()) -> Coverage:
    """Return what covers the files of a repository.

    `declared` is what its package's metadata states of the whole, in its own words.
    """
    everything = set(paths)
    folders: dict[str, _Folder] = {"": _Folder(declared=[(words, "its metadata") for words in declared])}
    files: dict[str, Statement] = {}
    rules: list[reuse.Rule] = []
    for path in sorted(everything):
        folder, _, name = path.rpartition("/")
        side = names.spoken_for(name)
        spoken_for = f"{folder}/{side}" if folder else side
        if side and spoken_for in everything:
            files[spoken_for] = _side(path, read(path))
        elif name == reuse.REUSE:
            rules += reuse.of_reuse(read(path) or "", path)
        elif path in reuse.DEP5:
            rules += reuse.of_dep5(read(path) or "", path)
        elif names.is_licence(name) or builds.is_build_file(name):
            folders.setdefault(folder, _Folder()).add(path, name, read(path))
    return Coverage(_resolved(folders), files, rules)


def _side(path: str, text: str | None) -> Statement:
    if text is None:
        return Statement(spdx.UNKNOWN, f"{path} cannot be read")
    statement = headers.of_source(text) or recognise.of_text(text)
    return _at(path, statement or Statement(spdx.UNKNOWN, "no licence that we know"))


def _at(path: str, statement: Statement) -> Statement:
    """Return `statement` with the file in which it stands as evidence."""
    return Statement(statement.expression, f"{path}: {statement.evidence}" if statement.evidence else path)


class _Folder:
    """What the files of one folder state."""

    def __init__(self, declared: Iterable[tuple[str, str]] = ()) -> None:
        self.texts: list[tuple[str, Statement | None]] = []
        """Path of each licence file, and what it says."""
        self.declared = list(declared)
        """What build files state in their own words, and their paths."""

    def add(self, path: str, name: str, text: str | None) -> None:
        if builds.is_build_file(name):
            self.declared += [(words, path) for words in builds.stated(name, text or "")]
        elif text is None:
            self.texts.append((path, Statement(spdx.UNKNOWN, "cannot be read")))
        else:
            self.texts.append((path, recognise.of_text(text)))

    def statement(self, above: Statement | None) -> Statement | None:
        """Return what covers the folder where `above` covers the one above it."""
        files = self._of_texts()
        stated = list(self._of_builds(frozenset() if files is None else spdx.keys(files.expression)))
        if files is None:
            return joined([statement for statement in (above, *stated) if statement is not None])
        choice = {statement.expression for statement in stated}
        if files.is_known and len(choice) == 1 and spdx.keys(files.expression) <= spdx.keys(next(iter(choice))):
            return Statement(next(iter(choice)), f"{files.evidence}; {stated[0].evidence}")
        return joined([files, *stated])

    def _of_texts(self) -> Statement | None:
        """Return what the licence files say together; None without one."""
        silent = [path for path, statement in self.texts if statement is None]
        said = [_at(path, statement) for path, statement in self.texts if statement is not None]
        if not said:
            return Statement(spdx.UNKNOWN, f"{silent[0]}: no licence that we know") if silent else None
        together = joined(said)
        expressions = [statement.expression for statement in said]
        if len(set(expressions)) > 1 and _EITHER.issuperset(expressions) and self._is_choice():
            return Statement(spdx.disjunction(expressions) or spdx.UNKNOWN, "; ".join(path for path, _ in self.texts))
        return together

    def _is_choice(self) -> bool:
        """Return whether each licence file that says something has the licence in its name."""
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
    resolved: dict[str, Statement] = {}
    for folder in sorted(folders, key=lambda path: path.count("/") if path else -1):
        above = Coverage(resolved)._of_folder(folder.rpartition("/")[0]) if folder else None
        statement = folders[folder].statement(above)
        if statement is not None:
            resolved[folder] = statement
    return resolved
