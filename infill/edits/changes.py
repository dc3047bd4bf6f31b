"""Changes in the history of a Git repository: the lines that a commit added in one place of a file.

What people write is kept. Left out, each with a reason that is counted: merges, first commits, reverts, commits of bots
and of unusual size; files that are vendored, generated, binary or in a language without a grammar; places where code
was only moved or reformatted.
"""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from infill import syntax
from infill.config import CorpusConfig
from infill.corpus import licences, quality, signals
from infill.corpus.sources import Read, git
from infill.corpus.sources.listing import VENDORED, SourceFile, date_of
from infill.foreign import UnreadableError
from infill.text import decode

if TYPE_CHECKING:
    import pygit2

MAX_FILES: Final = 30
"""Files of a commit that changes more are rarely written by hand: imports, renamings, formatting."""
MAX_LINES: Final = 2_000
"""Added lines of a commit, likewise."""
LIMITS: Final = CorpusConfig()
"""The corpus's own rules on names, sizes and signals."""

Counts = dict[str, Counter[str]]
"""Numbers by kind (commits, files, places, holes) and reason."""

_BOT: Final = re.compile(
    r"\[bot\]|\bbot\b|dependabot|renovate|github-actions|greenkeeper|snyk|pre-commit-ci|weblate|crowdin|mergify|jenkins[@-]"
    r"|semantic-release|allcontributors|automation",
    re.IGNORECASE,
)
_REVERT: Final = re.compile(r"(revert|reapply|back ?out)\b", re.IGNORECASE)
_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")
_STYLE: Final = re.compile(r"[\s'\"`,;()]+")
"""Characters that a formatter changes."""
_MESSAGE_BYTES: Final = 2_000
_REGULAR, _TYPE = 0o100000, 0o170000
_WORD_CHARS: Final = 4
"""A line with fewer letters and digits, such as a bracket, says nothing about where it came from."""


Span = tuple[int, int | None]
"""The first second that counts, since 1970, and the first that does not count any more, if there is one."""


class FileChange(NamedTuple):
    """A file that a commit changed, as `pygit2` reports it."""

    path: str
    old_path: str
    added: bool
    old: str
    """Object of the text before; meaningless if `added`."""
    new: str
    size: int
    places: tuple[tuple[int, int, int, int], ...]
    """First line and number of lines, before and after, from 1; the first line of no lines is the one above."""


@dataclass(frozen=True, kw_only=True)
class CommitChange:
    """Lines that a commit added in one place; before + added + after is the parent's file with this place changed."""

    commit: str
    parent: str
    date: str
    path: str
    old_path: str
    """The file's path in the parent; equal to `path` unless the commit renamed it."""
    language: str
    before: str
    added: str
    after: str

    @property
    def text(self) -> str:
        return self.before + self.added + self.after


def new_counts() -> Counts:
    """Return an empty table of reasons."""
    return defaultdict(Counter)


def changes(root: str, tip: str, *, span: Span, commits: int, seed: int, counts: Counts) -> Iterator[CommitChange]:
    """Yield one change for each file and commit in the time `span` among the ancestors of the commit `tip`.

    At most `commits` commits are read, chosen by a hash with `seed`, and of each file one place, chosen likewise.
    """
    repository = git.open_repository(Path(root.removeprefix(git.PREFIX)))
    read = git.reader(root)
    wanted = sorted(_in_span(repository, tip, span, counts), key=lambda name: _hash(seed, name))
    counts["commits"]["not drawn"] += max(0, len(wanted) - commits)
    for name in wanted[:commits]:
        try:
            yield from _of_commit(repository, name, read, seed, counts)
        except UnreadableError:  # a shallow or partial clone lacks objects
            counts["commits"]["unreadable"] += 1


def _in_span(repository: "pygit2.Repository", tip: str, span: Span, counts: Counts) -> list[str]:
    """Return the names of the commits in a span of time that a person wrote, and count the others."""
    with _reading():
        history = _history(repository, tip)
    trees = Counter(commit.tree for commit in history)
    wanted = []
    for commit in history:  # the newest first
        trees[commit.tree] -= 1
        reason = _outside(commit.time, span) or _unfit(commit, trees)
        if reason:
            counts["commits"][reason] += 1
        else:
            wanted.append(commit.name)
    return wanted


def _outside(time: int, span: Span) -> str:
    since, until = span
    if time < since:
        return "older"
    return "later" if until is not None and time >= until else ""


class CommitHead(NamedTuple):
    name: str
    tree: str
    time: int
    parents: int
    author: str
    message: str


@contextmanager
def _reading() -> Iterator[None]:
    """Raise UnreadableError in place of the errors of pygit2 in the block."""
    import pygit2

    try:
        yield
    except (KeyError, pygit2.GitError) as error:
        raise UnreadableError(f"an object of the history is missing or damaged: {error}") from error


def _history(repository: "pygit2.Repository", tip: str) -> list[CommitHead]:
    import pygit2

    order = pygit2.enums.SortMode.TOPOLOGICAL | pygit2.enums.SortMode.TIME
    return [
        CommitHead(
            name=str(commit.id),
            tree=str(commit.tree_id),
            time=commit.commit_time,
            parents=len(commit.parent_ids),
            author=decode(commit.author.raw_name + b" " + commit.author.raw_email, "replace"),
            message=decode(commit.raw_message[:_MESSAGE_BYTES], "replace"),
        )
        for commit in repository.walk(pygit2.Oid(hex=tip), order)
    ]


def _unfit(commit: CommitHead, older_trees: Mapping[str, int]) -> str:
    """Return why a commit is not one in which a person wrote code; empty if it may be."""
    if commit.parents > 1:
        return "merge"
    if commit.parents == 0:
        return "first commit"
    if is_bot(commit.author):
        return "bot"
    is_revert = _REVERT.match(commit.message) or "This reverts commit" in commit.message
    return "revert" if is_revert or older_trees[commit.tree] else ""


def is_bot(author: str) -> bool:
    """Return whether an author, name and e-mail address, is a program."""
    return _BOT.search(author) is not None


def _of_commit(
    repository: "pygit2.Repository", name: str, read: Read, seed: int, counts: Counts
) -> Iterator[CommitChange]:
    with _reading():
        parent, time, files, removed = _diff(repository, name)
    if len(files) > MAX_FILES or sum(place[3] for file in files for place in file.places) > MAX_LINES:
        counts["commits"]["huge"] += 1
        return
    counts["commits"]["read"] += 1
    for file in files:
        texts = _texts(file, read)
        if isinstance(texts, str):
            counts["files"][texts] += 1
            continue
        counts["files"]["read"] += 1
        language = syntax.language_of(file.path) or ""
        options = list(_written(file, *texts, removed, counts))
        if options:
            before, added, after = min(options, key=lambda parts: _hash(seed, name, file.path, len(parts[0])))
            yield CommitChange(
                commit=name,
                parent=parent,
                date=date_of(time),
                path=file.path,
                old_path=file.old_path,
                language=language,
                before=before,
                added=added,
                after=after,
            )


def _diff(repository: "pygit2.Repository", name: str) -> tuple[str, int, list[FileChange], frozenset[bytes]]:
    """Return parent, time and changed files of a commit, and the lines that it removed, without their indentation."""
    import pygit2

    commit = repository[pygit2.Oid(hex=name)].peel(pygit2.Commit)
    parent = commit.parents[0]
    diff = repository.diff(parent, commit, context_lines=0)
    diff.find_similar()
    files, removed = list[FileChange](), set[bytes]()
    for patch in filter(None, diff):
        for hunk in patch.hunks:
            removed.update(line.raw_content.strip() for line in hunk.lines if line.origin == "-")
        if patch.delta.status_char() in "AMR" and patch.delta.new_file.mode & _TYPE == _REGULAR:
            files.append(_file_change(patch))
    return str(parent.id), commit.commit_time, files, frozenset(removed)


def _file_change(patch: "pygit2.Patch") -> FileChange:
    delta = patch.delta
    return FileChange(
        path=os.fsdecode(delta.new_file.raw_path),
        old_path=os.fsdecode(delta.old_file.raw_path),
        added=delta.status_char() == "A",
        old=str(delta.old_file.id),
        new=str(delta.new_file.id),
        size=delta.new_file.size,
        places=tuple((hunk.old_start, hunk.old_lines, hunk.new_start, hunk.new_lines) for hunk in patch.hunks),
    )


def _texts(file: FileChange, read: Read) -> tuple[str, str] | str:
    """Return the texts of a file before and after a commit, or why the file is left out."""
    if any(part.lower() in VENDORED for part in file.path.split("/")):
        return "vendored"
    source = SourceFile(path=file.path, size=file.size, place=file.new)
    if unfit := quality.judge_name(source, None, LIMITS):
        return unfit.reason
    language = syntax.language_of(file.path)
    if language is None:
        return "no grammar"
    if not file.places:
        return "only renamed"
    after = quality.read_text(read, source)
    size = LIMITS.max_file_bytes
    before = "" if file.added else quality.read_text(read, SourceFile(path=file.old_path, size=size, place=file.old))
    for text in (before, after):
        if isinstance(text, quality.Removal):
            return text.reason
    document = quality.CorpusDocument(
        repo="", path=file.path, language=language, licence=licences.NOTHING_STATED, content=str(after)
    )
    unfit = quality.judge_signals(document, signals.measure(str(after), language), LIMITS)
    return unfit.reason if unfit else (str(before), str(after))


def _written(
    file: FileChange, before: str, after: str, removed: frozenset[bytes], counts: Counts
) -> Iterator[tuple[str, str, str]]:
    """Yield the text before, in and after each place where somebody wrote code, and count the other places."""
    old, new = _LINE.findall(before), _LINE.findall(after)
    whole_old = _style_free(line for start, n, _, _ in file.places for line in _slice(old, start, n))
    whole_new = _style_free(line for _, _, start, n in file.places for line in _slice(new, start, n))
    for old_start, old_lines, new_start, new_lines in file.places:
        added, taken = _slice(new, new_start, new_lines), _slice(old, old_start, old_lines)
        reason = _not_written(added, taken, removed) or ("reformatted" if whole_old == whole_new else "")
        counts["places"][reason or "written"] += 1
        if not reason:
            first = old_start - 1 if old_lines else old_start
            yield "".join(old[:first]), "".join(added), "".join(old[first + old_lines :])


def _slice(lines: Sequence[str], start: int, count: int) -> Sequence[str]:
    return lines[start - 1 : start - 1 + count] if count else ()


def _style_free(lines: Iterator[str] | Sequence[str]) -> str:
    return _STYLE.sub("", "".join(lines))


def _not_written(added: Sequence[str], taken: Sequence[str], removed: frozenset[bytes]) -> str:
    """Return why nobody wrote the lines `added` in place of `taken`; empty if somebody did."""
    telling = [line.strip() for line in added if sum(map(str.isalnum, line)) >= _WORD_CHARS]
    if not added:
        return "only removed"
    if not telling:
        return "no words"
    if _style_free(added) == _style_free(taken):
        return "reformatted"
    return "moved" if all(line.encode() in removed for line in telling) else ""


def _hash(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()
