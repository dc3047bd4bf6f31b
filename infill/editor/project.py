"""The index of one of the editor's folders: updated in the background, queried in between.

One thread at a time uses the index. The background thread releases it after each file, so that a caret waits for at
most one file, however long the first scan of the folder takes. The editor's text of a file replaces that on disk.
"""

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from infill.context import ProjectIndex, retrieve
from infill.context.files import IGNORED, SECRET, IndexLimits, why_left_out
from infill.context.packing import Packed, pack
from infill.context.turns import Turns
from infill.editor.mirror import Mirror
from infill.editor.remote import Model
from infill.errors import InfillError
from infill.prompt import ContextItem, FimRequest

log = logging.getLogger("infill.lsp")

MAX_RECENT: Final = 100
MANY: Final = 200
"""Number of changed files, as after a checkout, above which the whole folder is scanned."""
PRIVATE: Final = (IGNORED, SECRET)
"""Reasons for which a file is left out that also keep the text around a caret in it on this machine."""
MAX_UNSAVED_CHARS: Final = 2_000_000
"""Characters of unsaved texts in a request; the most recent ones are sent."""
RULES: Final = (".gitignore", ".git")
"""Names whose change may add other files to the index or remove them."""

Progress = Callable[["Project", int | None], None]
"""A callback with the number of files indexed so far in a scan; None at the end."""


class Project:
    """A folder, its open files, and its last prompt."""

    def __init__(self, root: Path, limits: IndexLimits | None = None) -> None:
        self.root = root
        self.ready = False
        """Whether the whole folder has been scanned once."""
        self.problem = ""
        """The reason why there is no index; empty if there is one."""
        self._limits = limits or IndexLimits()
        self._index: ProjectIndex | None = None
        self._turns = Turns()
        self._previous: Packed | None = None
        self._buffers: dict[str, str] = {}
        self._edited: set[str] = set()
        """Paths of buffers that are not yet in the index."""
        self._reasons: dict[str, str | None] = {}
        """Cached reasons why files are left out."""
        self._recent: OrderedDict[str, None] = OrderedDict()
        self.mirror: Mirror | None = None
        """The server's copy of the folder, which takes the place of the index here; None if there is none."""

    def __len__(self) -> int:
        """Return the number of files in the index, here or on the server."""
        if self.mirror is not None:
            return len(self.mirror)
        return len(self._index) if self._index else 0

    def state(self) -> dict[str, Any]:
        """Return the state for people and for extensions of editors."""
        mirror = self.mirror
        return {
            "path": str(self.root),
            "files": len(self),
            "ready": mirror.ready if mirror else self.ready,
            "problem": (mirror.problem if mirror else self.problem) or None,
            "workspace": "server" if mirror else "client",
            "workspace_state": mirror.state() if mirror else None,
        }

    def show(self, path: str, text: str) -> None:
        """Record the editor's text of a file, saved or not."""
        self._buffers[path] = text
        self._edited.add(path)
        self._recent.pop(path, None)
        self._recent[path] = None
        while len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)

    def hide(self, path: str) -> None:
        """Forget the editor's text of a file that was closed; the file on disk counts again."""
        self._buffers.pop(path, None)
        self._edited.discard(path)
        if self.mirror is not None:
            self.mirror.hide(path)

    def is_shown(self, path: str) -> bool:
        """Return whether a file is open in the editor."""
        return path in self._buffers

    def refresh(self, report: Callable[[int], None] = lambda _: None) -> None:
        """Update the index from the folder; call `report` with the number of changed files from time to time."""
        report(0)
        index = self._index or ProjectIndex()
        self._index = index
        self.reconsider()
        steps = index.refreshing(self.root, self._limits, near=tuple(self._recent)[::-1])
        count = 0
        while self._step(steps):
            count += 1
            if count % 100 == 0:
                report(count)
        with self._turns.update():
            if not self.ready:
                index.table.squeeze()
            self._edited |= self._buffers.keys()
            self.ready = True

    def _step(self, steps: Iterator[str]) -> bool:
        """Take one step, after all carets that wait for the index; return whether there was one."""
        with self._turns.update():
            return next(steps, None) is not None

    def refresh_files(self, paths: Iterable[str]) -> None:
        """Update the index for files that were perhaps added, changed or removed, except for open ones.

        If one of them is or was a folder, the whole project is scanned.
        """
        for path in paths:
            if self._is_folder(path):
                self.refresh()
                return
            with self._turns.update():
                if self._index is not None and path not in self._buffers:
                    self._index.refresh_file(self.root, path, self._limits)

    def _is_folder(self, path: str) -> bool:
        """Return whether `path` is a folder that may add files to the index, or was one whose files must leave it."""
        if self._index is None or path in self._index.files:
            return False
        if (self.root / path).is_dir():
            return why_left_out(self.root, f"{path}/any") is None
        return any(other.startswith(f"{path}/") for other in self._index.files)

    def pack(self, request: FimRequest, model: Model, *, file: str = "") -> Packed | None:
        """Return the prompt for a caret with context from the index as it is; None in a private file.

        The server would make the same prompt from the same files. `file` is the path on disk if the request has another
        one. Raises InputError when the budget is too small.
        """
        if self.is_private(file or request.path):
            return None
        with self._turns.query():
            items: tuple[ContextItem, ...] = ()
            index = self._index
            if index is not None:
                self._take_buffers(index, request.path)
                index.tokenize_with(model.encoder.encode)
                items = retrieve(
                    index,
                    request,
                    strategy=model.strategy,
                    k=model.context_items,
                    recent=self.recent(request.path),
                )
            self._previous = pack(
                *(model.fmt, model.encoder.encode, replace(request, context=items)),
                previous=self._previous,
                budget=model.max_prompt_tokens,
                holds=index.holds if index is not None else lambda _: False,
            )
            return self._previous

    def _take_buffers(self, index: ProjectIndex, current: str) -> None:
        """Update the index with the editor's text of all files that belong in it, except `current`."""
        for path in self._edited - {current}:
            self._edited.discard(path)
            if self.left_out(path) is None:
                index.update(path, self._buffers.get(path, ""))

    def is_private(self, path: str) -> bool:
        """Return whether no text of a file may leave this machine: Git ignores it, or its name is that of a secret."""
        return self.left_out(path) in PRIVATE

    def unsaved(self, current: str, mirror: Mirror, *, known: bool) -> list[dict[str, str]]:
        """Return path and text of open files other than `current`; if the server is `known` to have the saved ones,
        only of those that differ from them."""
        texts, left = [], MAX_UNSAVED_CHARS
        for path in self.recent(current):
            text = self._buffers.get(path, "")
            if not text or self.left_out(path) is not None or (known and mirror.stands_for(path, text)):
                continue
            left -= len(text)
            if left < 0:
                break
            texts.append({"path": path, "text": text})
        return texts

    def reconsider(self) -> None:
        """Forget why files are left out: the ignore rules may have changed."""
        self._reasons = {}

    def left_out(self, path: str) -> str | None:
        """Return why a file is left out of the index; None if it is not."""
        if path not in self._reasons:
            self._reasons[path] = why_left_out(self.root, path)
        return self._reasons[path]

    def recent(self, current: str) -> tuple[str, ...]:
        """Return the recently opened or edited files, latest first, without the current one."""
        return tuple(path for path in reversed([*self._recent]) if path != current)


class Indexer:
    """The background thread that updates projects, one at a time."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._jobs: queue.SimpleQueue[tuple[Project, frozenset[str] | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="indexer", daemon=True)

    def start(self) -> None:
        """Start the thread. It ends with the process, so that an editor that closes does not wait for it."""
        self._thread.start()

    def look(self, project: Project, paths: Iterable[str] | None = None) -> None:
        """Queue an update of files of a project that may have changed; of the whole folder if `paths` is None."""
        names = None if paths is None else frozenset(paths)
        if names is not None and (len(names) > MANY or any(path.rpartition("/")[2] in RULES for path in names)):
            names = None
        if project.mirror is None:
            self._jobs.put((project, names))
            return
        if names is None:
            project.reconsider()
        project.mirror.look(names)

    def _work(self) -> None:
        while True:
            jobs = [self._jobs.get()]
            while not self._jobs.empty():
                jobs.append(self._jobs.get())
            for project in dict.fromkeys(project for project, _ in jobs):
                self._look(project, [paths for each, paths in jobs if each is project])

    def _look(self, project: Project, jobs: list[frozenset[str] | None]) -> None:
        try:
            if None in jobs or not project.ready:
                project.refresh(lambda count: self._progress(project, count))
                self._progress(project, None)
            else:
                project.refresh_files(frozenset[str]().union(*(paths for paths in jobs if paths is not None)))
            project.problem = ""
        except Exception as error:
            project.problem = str(error) if isinstance(error, InfillError | OSError | ImportError) else repr(error)
            log.warning("cannot index %s: %s", project.root, project.problem)
            self._progress(project, None)
