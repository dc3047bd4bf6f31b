"""The copy of a folder on the server: listed once, then kept up to date from a thread of its own.

The thread knows the digests of the files on disk and those that the server has listed. Whatever happens (a file is
saved, the server restarts, forgets the workspace, or another client changes it), it compares the two and sends the
difference, so that work that was cut off continues. A failure costs a pause and is tried again; only a server without
workspaces ends it. `stands_for` and `name` may be read from any thread.
"""

import hashlib
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from infill.context.files import IndexLimits
from infill.editor.local_files import LocalFiles
from infill.editor.workspace_client import (
    BusyError,
    LostError,
    NoWorkspacesError,
    TooLargeError,
    WorkspaceAnswer,
    WorkspaceClient,
    WorkspaceTarget,
)
from infill.editor.workspace_name import workspace_name
from infill.errors import InfillError

log = logging.getLogger("infill.lsp")

BATCH_BYTES: Final = 1_000_000
"""Bytes of text in a request."""
LIST_BYTES: Final = 14_000_000
"""Bytes of a list in one request, below the server's usual limit."""
LEAST_BYTES: Final = 10_000
"""Size of a request that is not made smaller for a server that calls it too large."""
ENTRY_BYTES: Final = 75
"""Bytes that a listed file takes in JSON besides its path."""
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
REVISIONS: Final = 64
"""Changes of the list during one completion after which its answer's revision is not checked."""
SUSPECT_S: Final = 2.0
"""Seconds after which an unknown list in answers is not that of another editor which is ahead."""
SHOWN: Final = 100
"""Files after which the progress is shown again."""

Files = dict[str, bytes | None]


@dataclass
class MirrorTodo:
    """The work that the thread has not done yet."""

    scan: bool = False
    """Whether the whole folder must be read."""
    again: bool = False
    """Whether the server must be given the whole list."""
    rest: bool = False
    """Whether something of earlier work is left."""
    doubt: bool = False
    """Whether the server may have lost the list."""
    paths: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return self.scan or self.again or self.rest or self.doubt or bool(self.paths)


class Mirror:
    """The server's copy of one folder."""

    def __init__(
        self,
        root: Path,
        target: WorkspaceTarget,
        *,
        progress: Callable[[int | None], None] = lambda _: None,
        no_workspaces: Callable[[str], None] = lambda _: None,
        limits: IndexLimits | None = None,
    ) -> None:
        self.target, self.name, self.session = target, workspace_name(root), uuid.uuid4().hex
        self.listed = self.ready = False
        """Whether the server knows the workspace, and whether it has had all texts once."""
        self.times = 0
        """The number of times that the whole list was given to the server."""
        self.problem = ""
        """The reason why the server's copy is not up to date; empty if there is none."""
        self.left_out: dict[str, str] = {}
        """Files that the server does not hold, with its reasons."""
        self._files = LocalFiles(root, limits)
        self._listed: dict[str, bytes] = {}
        """The server's list."""
        self._missing: dict[str, None] = {}
        """Listed files whose texts the server lacks, in the order of the list."""
        self._refused: set[str] = set()
        """Files whose names the server does not accept."""
        self._revision = ""
        self._revisions: deque[str] = deque(maxlen=REVISIONS)
        """The last revisions, the latest last."""
        self._working = False
        self._suspected: float | None = None
        """Time of the first of the last answers that were packed from an unknown list; None if the last was not."""
        self._progress, self._no_workspaces = progress, no_workspaces
        self._todo, self._turn = MirrorTodo(), threading.Condition()
        self._ended = self._forgets = False
        self._pause = self._lost_pause = self._until = 0.0
        self._lost_at = float("-inf")
        self._batch, self._list_bytes = BATCH_BYTES, LIST_BYTES
        self._digests: dict[str, tuple[str, bytes]] = {}
        """Digests of the editor's texts, so that each is computed once."""
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)

    # From other threads

    def __len__(self) -> int:
        """Return the number of listed files."""
        return len(self._listed)

    @property
    def waiting(self) -> int:
        """The number of texts that the server lacks."""
        return len(self._missing)

    def start(self) -> None:
        """Start the thread, which lists the whole folder. It ends with the process."""
        self.look()
        self._thread.start()

    def look(self, paths: Iterable[str] | None = None) -> None:
        """Send files that may have changed; the whole folder if `paths` is None."""
        with self._turn:
            if paths is None:
                self._todo.scan = True
            else:
                self._todo.paths.update(paths)
            self._turn.notify_all()

    def lost(self, times: int) -> None:
        """Give the server the whole list, unless that was done since `times`: it does not know the workspace any more.

        If that happens again and again, as when the server has no room for it, the pauses become longer.
        """
        with self._turn:
            if self.listed and self.times == times:
                self._lose()
                self._turn.notify_all()

    def doubt(self) -> None:
        """Ask the server at once whether it still has the list, since it was away."""
        with self._turn:
            self._todo.doubt, self._until = True, 0.0
            self._turn.notify_all()

    @property
    def revision(self) -> str:
        """The latest revision of the server's list that is known here."""
        return self._revision

    def check(self, asked: str, answered: str, times: int) -> None:
        """Give the server the whole list if completions are packed from another one than any that is known here.

        `asked` is the revision when a completion was asked for, `answered` that of the answer. A replica that was
        filled earlier has missed what changed since. Another editor in the same folder may be ahead for a moment, so
        one answer proves nothing.
        """
        with self._turn:
            known = [*self._revisions]
            if self._todo or self._working or asked not in known or self.times != times or not self.listed:
                return
            now = time.monotonic()
            if answered in known[len(known) - 1 - known[::-1].index(asked) :]:
                self._suspected = None
            elif self._suspected is None:
                self._suspected = now
            elif now - self._suspected >= SUSPECT_S:
                log.info("the server answers from another list of files: all files are listed again")
                self._suspected = None
                self._lose()
                self._turn.notify_all()

    def close(self, *, forget: bool = False) -> None:
        """End the thread after its current request; with `forget` the server drops its copy."""
        with self._turn:
            self._ended, self._forgets = True, forget
            self._turn.notify_all()

    def stands_for(self, path: str, text: str) -> bool:
        """Return whether the server has `text` as that of `path`."""
        known = self._digests.get(path)
        if known is None or known[0] is not text:
            known = self._digests[path] = text, hashlib.sha256(text.encode(errors="replace")).digest()
        listed = self._listed.get(path) == known[1]
        return self.listed and listed and path not in self._missing and path not in self.left_out

    def hide(self, path: str) -> None:
        """Forget the digest of a text that the editor has closed."""
        self._digests.pop(path, None)

    def state(self) -> str:
        """Return the state for people."""
        if self.problem:
            return f"the server's copy is not up to date: {self.problem}"
        if not self.listed:
            return "the files are read, to be listed on the server"
        if self._missing:
            return f"{len(self._missing):,} of {len(self._listed):,} files are still being sent"
        left = f", {len(self.left_out):,} of them left out by the server" if self.left_out else ""
        return f"{len(self._listed):,} files on the server{left}"

    # The thread

    def _work(self) -> None:
        try:
            client = WorkspaceClient(self.target, self.name)
        except InfillError as error:
            self._end(error)
            return
        with client:
            while (todo := self._next()) is not None:
                self._attempt(client, todo)
                self._working = False
            if self._forgets:
                self._forget(client)

    def _forget(self, client: WorkspaceClient) -> None:
        try:
            client.delete()
        except InfillError as error:
            log.info("the server's copy of the files is left to its own end: %s", error)

    def _end(self, error: InfillError) -> None:
        """Leave the project to the index on this machine."""
        self._ended, self.problem = True, str(error)
        self._no_workspaces(self.problem)

    def _next(self) -> MirrorTodo | None:
        """Wait for work and return it; None at the end."""
        with self._turn:
            while not self._ended:
                wait = self._until - time.monotonic()
                if self._todo and wait <= 0:
                    todo, self._todo, self._working = self._todo, MirrorTodo(), True
                    return todo
                self._turn.wait(wait if self._todo else None)
        return None

    def _attempt(self, client: WorkspaceClient, todo: MirrorTodo) -> None:
        """Do the work; after an error note what is left and when to try again."""
        try:
            self._do(client, todo)
        except NoWorkspacesError as error:
            self._end(error)
        except LostError as error:
            log.info("%s: all files are listed again", error)
            with self._turn:
                self._return(todo)
                self._lose()
        except Exception as error:
            self._fail(todo, error)
        else:
            self._pause, self.ready, self.problem = 0.0, True, ""
            self._progress(None)

    def _fail(self, todo: MirrorTodo, error: Exception) -> None:
        """Try again later."""
        known = isinstance(error, InfillError | OSError)
        self.problem = str(error) if known else f"unexpected {type(error).__name__}"
        if isinstance(error, BusyError):
            wait = error.seconds
        else:
            wait = self._pause = _longer(self._pause)
        log.warning("%s; it is tried again in %g s", self.problem, wait)
        with self._turn:
            self._return(todo)
            self._until = time.monotonic() + wait
        self._progress(None)

    def _return(self, todo: MirrorTodo) -> None:
        """Put work back that is not done."""
        self._todo.scan |= todo.scan
        self._todo.again |= todo.again
        self._todo.doubt |= todo.doubt
        self._todo.paths |= todo.paths
        self._todo.rest = True

    def _lose(self) -> None:
        """List everything again, after a pause if the last time was a moment ago."""
        now = time.monotonic()
        again = now - self._lost_at < LONGEST_PAUSE_S
        self._lost_at, self.listed, self._todo.again = now, False, True
        self._lost_pause = _longer(self._lost_pause) if again else 0.0
        self._until = now + self._lost_pause

    def _do(self, client: WorkspaceClient, todo: MirrorTodo) -> None:
        """Bring the server's copy up to date. Raises ServiceError, LostError."""
        scan = todo.scan or any(map(self._files.may_hold, todo.paths))
        if scan:
            self._scan()
            todo.scan = False
        texts = {} if scan else self._read(todo.paths)
        if todo.again:
            client.reconnect()
        whole = todo.again or not self.listed
        if todo.doubt and not whole and client.revision() != self._revision:
            raise LostError("the server has another list of files")
        if whole:
            self._list(client)
        else:
            self._send_difference(client, None if scan or todo.rest else todo.paths, texts)
        todo.again, todo.doubt, todo.paths = False, False, set()
        self._fill(client)

    def _read(self, paths: set[str]) -> dict[str, str]:
        texts = {path: self._files.look(path) for path in paths}
        return {path: text for path, text in texts.items() if text is not None}

    def _scan(self) -> None:
        for number, _ in enumerate(self._files.scan(), 1):
            if self._ended:
                return
            if number % SHOWN == 0:
                self._progress(number)

    # Changes

    def _list(self, client: WorkspaceClient) -> None:
        """Give the server the whole list, in parts if it is long."""
        self._missing, self.left_out = {}, {}
        files: Files = {path: each for path, each in self._files.digests.items() if path not in self._refused}
        for number, part in enumerate(_parts(files, self._list_bytes)):
            try:
                if number:
                    answer = client.patch(self._revision, part, {})
                else:
                    self._listed = {}
                    answer = client.put({path: digest for path, digest in part.items() if digest is not None})
            except TooLargeError:
                self._list_bytes = _halved(self._list_bytes)
                self._list(client)
                return
            self._take(answer, part, {})
        self.listed, self.problem, self.times = True, "", self.times + 1
        self._progress(self.waiting)

    def _send_difference(self, client: WorkspaceClient, paths: set[str] | None, texts: dict[str, str]) -> None:
        """Send the difference between the folder and the server's list, of all files or only of `paths`."""
        files = {path: digest for path, digest in self._differences(paths) if path not in self._refused}
        for part in _parts(files, self._list_bytes) if files else ():
            self._patch(client, part, {path: texts[path] for path in part if path in texts})

    def _differences(self, paths: set[str] | None) -> Iterator[tuple[str, bytes | None]]:
        here, there = self._files.digests, self._listed
        for path in paths if paths is not None else (here.keys() | there.keys()):
            if here.get(path) != there.get(path):
                yield path, here.get(path)

    def _patch(self, client: WorkspaceClient, files: Files, texts: dict[str, str]) -> None:
        """Send a change; leave out texts that a request cannot hold, which `_fill` sends."""
        if sum(map(len, texts.values())) > self._batch:
            texts = {}
        try:
            answer = client.patch(self._revision, files, texts)
        except TooLargeError:
            if not texts:
                self._list_bytes = _halved(self._list_bytes)
                raise
            self._batch = _halved(self._batch)
            answer = client.patch(self._revision, files, {})
            texts = {}
        self._take(answer, files, texts)

    def _fill(self, client: WorkspaceClient) -> None:
        """Send the texts that the server lacks; files that change meanwhile go first."""
        while self._missing and not self._ended:
            if paths := self._urgent():
                self._send_difference(client, paths, self._read(paths))
            files, texts = self._next_batch()
            if not files and not texts:
                continue
            try:
                answer = client.patch(self._revision, files, texts)
            except TooLargeError as error:
                if len(texts) == 1 and self._batch <= LEAST_BYTES:
                    self._leave_out(next(iter(texts)), str(error))
                else:
                    self._batch = max(self._batch // 2, LEAST_BYTES)
                continue
            self._take(answer, files, texts)
            self._progress(self.waiting)

    def _urgent(self) -> set[str]:
        """Return files that have changed since the work began, if nothing but files has."""
        with self._turn:
            todo = self._todo
            if not todo.paths or todo.scan or todo.again or any(map(self._files.may_hold, todo.paths)):
                return set()
            paths, todo.paths = todo.paths, set()
            return paths

    def _next_batch(self) -> tuple[Files, dict[str, str]]:
        """Return texts of missing files as they are now, and the digests of those that differ from the list."""
        files: Files = {}
        texts: dict[str, str] = {}
        size = 0
        for path in [*self._missing]:
            text = self._files.again(path)
            digest = self._files.digests.get(path)
            if digest != self._listed.get(path):
                files[path] = digest
            if text is not None:
                texts[path] = text
                size += len(text)
            if size >= self._batch:
                break
        return files, texts

    def _leave_out(self, path: str, why: str) -> None:
        self._missing.pop(path, None)
        self.left_out[path] = why

    def _take(self, answer: WorkspaceAnswer, files: Files, texts: dict[str, str]) -> None:
        """Note what the server has after a change. Raises LostError if another client has changed its list."""
        for path, digest in files.items():
            self._missing.pop(path, None)
            self.left_out.pop(path, None)
            if digest is None or path in answer.refused:
                self._listed.pop(path, None)
            else:
                self._listed[path] = digest
        for path in texts:
            self._missing.pop(path, None)
        self._missing |= dict.fromkeys(path for path in files if path in answer.missing)
        self._refused |= answer.refused.keys() & files.keys()
        self.left_out |= answer.left_out
        self._revision = answer.revision
        self._revisions.append(answer.revision)
        if answer.refused.keys() & (texts.keys() - files.keys()):
            raise LostError("another client has changed the list of files")


def _longer(pause: float) -> float:
    return min(max(FIRST_PAUSE_S, 2 * pause), LONGEST_PAUSE_S)


def _parts(files: Files, limit: int) -> Iterator[Files]:
    """Yield the files in parts of at most `limit` bytes of JSON; one empty part for no files."""
    part: Files = {}
    size = 0
    for path, digest in files.items():
        length = ENTRY_BYTES + len(path.encode(errors="replace"))
        if part and size + length > limit:
            yield part
            part, size = {}, 0
        part[path] = digest
        size += length
    if part or not files:
        yield part


def _halved(size: int) -> int:
    """Return half of a size. Raises TooLargeError if the server reads next to nothing."""
    if size <= LEAST_BYTES:
        raise TooLargeError("the server's limit of a request is too small for workspaces")
    return size // 2
