"""Workspaces: projects whose files clients keep on the server, each with its index. They live in memory only.

A client lists its files by the SHA-256 of their texts and sends the texts that the server lacks. The index of a
workspace holds only texts whose hash is listed. When all workspaces together take more memory than the server allows,
the least recently used ones are dropped; their clients then learn that they are unknown and list their files again.

Changes run in short slices on one thread, in turns with those of other workspaces, so that neither the event loop nor
another client's saved file waits for a project's first synchronisation. Everything else runs on the event loop.
"""

import asyncio
import hashlib
import re
import sys
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as Total

from infill.context import ProjectIndex
from infill.context.files import IndexLimits, refusal, why_name_left_out
from infill.context.identity import Current
from infill.context.memo import Memo
from infill.context.overlay import Overlay
from infill.context.turns import Turns
from infill.text import clean, to_utf8
from serving.protocol import ApiError, invalid, read_text
from serving.transformer.fields import MAX_PATH_CHARS, NAME, NAME_PATTERN

UNKNOWN: Final = "workspace_unknown"
CHANGED: Final = "workspace_changed"
OFF: Final = "workspaces_off"
SLICE_S: Final = 0.005
"""Seconds of work on a change, after which another change may use the thread."""
AHEAD_S: Final = 0.001
"""Seconds of tokenising ahead, after which it pauses for as long and whatever else there is has its turn."""
AHEAD_CHARS: Final = 2_000_000
"""Texts beyond this many characters are not tokenised ahead: their tokens would not be remembered."""
MAX_AHEAD: Final = 64
"""Changes whose texts wait to be tokenised ahead."""
MAX_CHANGES: Final = 8
"""Changes of one tenant at once."""
SHARE: Final = 0.5
"""Share of the memory that one workspace may take, so that the growth of its arrays stays below the cap."""
TEXT_GROWTH: Final = 6
"""Bytes of memory that a byte of text may take in the index."""
ENTRY_MEMORY: Final = 250
"""Bytes that a listed file takes besides its path."""
EMPTY_MEMORY: Final = 8_192
"""Bytes that a workspace takes besides its index and its files."""
LIMITS: Final = IndexLimits()
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_REVISIONS: Final = 2**256

Documents = tuple[tuple[str, str], ...]
"""Path and text of files."""


@dataclass(kw_only=True)
class ChangeReport:
    """The outcome of a change, file by file."""

    missing: list[str] = field(default_factory=list)
    """Files whose text the server lacks."""
    refused: dict[str, str] = field(default_factory=dict)
    """Reason by file that was not taken; its client must mend it."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Reason by file that is not in the index, and would not be in one that an editor builds either."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of a workspace, as a client asks for it."""

    files: Mapping[str, bytes | None]
    """The digest of each file; None removes it."""
    texts: Mapping[str, str]
    whole: bool
    """Whether `files` lists the whole workspace."""
    revision: str
    """The revision to which the change belongs, unless it is whole."""
    report: ChangeReport


def why_bad_path(path: str) -> str | None:
    """Return why `path` cannot name a file of a workspace; None if it can."""
    if len(path) > MAX_PATH_CHARS:
        return f"the path has {len(path):,} characters, at most {MAX_PATH_CHARS:,} are allowed"
    if _CONTROL.search(path):
        return "the path has control characters or half of a surrogate pair"
    if "\\" in path:
        return "the path has a backslash; separate folders by slashes"
    if path.startswith("/") or _DRIVE.match(path):
        return "the path is absolute; name the file relative to the project's folder"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "the path has an empty part, . or ..; name the file relative to the project's folder"
    return None


def read_name(name: str) -> str:
    """Return the name of a workspace. Raises ApiError 400 for one that is not allowed."""
    if not NAME.fullmatch(name):
        raise invalid(f"the name of a workspace must match {NAME_PATTERN}, got {name[:80]!a}", "workspace")
    return name


def read_change(body: Mapping[str, Any], *, whole: bool) -> Change:
    """Return the change in a JSON object, without the files that it may not name. Raises ApiError 400."""
    report, files = ChangeReport(), {}
    for path, value in _read_map(body, "files", required=whole).items():
        if value is not None and not (isinstance(value, str) and _DIGEST.fullmatch(value)):
            raise invalid(f"'files' must hold SHA-256 digests of 64 hexadecimal digits, got {value!a:.80}", "files")
        if value is None and whole:
            raise invalid("'files' of a whole list must not hold null; leave the file out", "files")
        if why := why_bad_path(path):
            report.refused[shown(path)] = why
        elif value is not None and (why := why_name_left_out(path)):
            report.left_out[path] = why
        else:
            files[path] = None if value is None else bytes.fromhex(value)
    texts = _read_map(body, "texts")
    if not all(isinstance(text, str) for text in texts.values()):
        raise invalid("'texts' must hold strings", "texts", "invalid_type")
    return Change(files=files, texts=texts, whole=whole, revision=read_text(body, "revision"), report=report)


def _read_map(body: Mapping[str, Any], name: str, *, required: bool = False) -> dict[str, Any]:
    value = body.get(name)
    if value is None and not required:
        return {}
    if not isinstance(value, dict):
        raise invalid(f"{name!r} must be an object with the paths of files as names", name, "invalid_type")
    return value


def shown(path: str) -> str:
    """Return a path that can be written as UTF-8, without its end if it is too long."""
    return clean(path[:MAX_PATH_CHARS])


class Workspace:
    """The files that a client has listed, and the index of those whose texts are there.

    `steps` is called by one thread at a time; the index may be queried at any time by others.
    """

    def __init__(self, index: ProjectIndex, limit: int) -> None:
        self.lock = asyncio.Lock()
        """Held by the change that is being applied."""
        self.listed: dict[str, bytes] = {}
        """Digest by path."""
        self.missing: set[str] = set()
        """Listed files whose text is not there."""
        self.counted = 0
        """The memory that the store has counted."""
        self.dropped = False
        self._index = index
        self._overlay = Overlay(index)
        self._indexed = 0
        """Files in the index by itself, whoever asks meanwhile."""
        self._limit = limit
        self._turns = Turns()
        self._sum = 0
        self._path_memory = 0
        self._measured = -1, 0
        """The index's number of changes when its memory was computed, and that memory."""
        self._filled: dict[str, None] = {}
        """Files whose texts came while others were missing."""
        self._filled_chars = 0

    @contextmanager
    def queried(self, texts: Documents, current: Current | None = None, *, wait: bool = True) -> Iterator[Overlay]:
        """Yield the index for one query, with other texts in the place of files, and without the current file.

        A query goes ahead of a change. Nobody else sees its texts. Raises BlockingIOError if the index is in use and
        the query must not `wait`.
        """
        with self._turns.query(wait=wait):
            self._overlay.show(dict(texts), current)
            yield self._overlay

    @contextmanager
    def _changed(self) -> Iterator[None]:
        """Hold the index, as it is by itself, for a change."""
        with self._turns.update():
            self._overlay.lift()
            try:
                yield
            finally:
                self._indexed = len(self._index)

    @property
    def memory(self) -> int:
        """The bytes of memory that the workspace takes."""
        changes, index = self._measured
        if changes != self._index.changes:
            changes, index = self._measured = self._index.changes, self._index.memory
        return EMPTY_MEMORY + index + self._list_memory

    @property
    def _list_memory(self) -> int:
        return ENTRY_MEMORY * len(self.listed) + self._path_memory

    @property
    def _no_room(self) -> str:
        return f"the workspace has no room: the server gives it {self._limit:,} bytes of memory"

    @property
    def revision(self) -> str:
        """The digest of the list: equal for equal lists, in each replica."""
        return f"{self._sum:064x}"

    def revision_without(self, path: str) -> str:
        """Return a name for the files besides `path`, and for how many of all are indexed."""
        digest = self.listed.get(path)
        others = self._sum if digest is None else (self._sum - _entry(path, digest)) % _REVISIONS
        return f"{others:064x} {self._indexed}"

    def state(self) -> dict[str, Any]:
        """Return the answer to a client that asks for the state."""
        return {
            "revision": self.revision,
            "files": len(self.listed),
            "indexed": self._indexed,
            "bytes": self.memory,
            "missing": sorted(self.missing),
        }

    def steps(self, change: Change) -> Iterator[None]:
        """Apply a change and write its report; between two steps others may use the thread.

        Raises ApiError 409 for a change of another revision, unless the change changes nothing.
        """
        self._require_revision(change)
        files = change.files
        if change.whole:
            gone = [path for path in self.listed if path not in files]
        else:
            gone = [path for path, digest in files.items() if digest is None and path in self.listed]
        spare = self._texts(path for path in (*gone, *files) if self.listed.get(path) not in (None, files.get(path)))
        for path in gone:
            self._unlist(path)
            yield
        for path, digest in files.items():
            if digest is not None:
                self._list(path, digest, spare, change.report)
                yield
        for path, text in change.texts.items():
            self._take(path, text, change.report)
            yield
        change.report.missing = [path for path in files if path in self.missing]

    def to_tokenise(self, change: Change) -> list[str]:
        """Return the files of a change whose tokens are worth computing in advance.

        These are saved files, and a project's first files when the last of their texts is there.
        """
        texts = change.texts
        saved = [path for path in texts if path in change.files]
        if saved and sum(len(texts[path]) for path in saved) <= AHEAD_CHARS:
            return saved
        for path, text in texts.items():
            self._filled_chars += len(text)
            if self._filled_chars <= AHEAD_CHARS:
                self._filled[path] = None
        if self.missing:
            return []
        filled = [*self._filled]
        self._filled, self._filled_chars = {}, 0
        return filled

    def tokenising(self, paths: Iterable[str]) -> Iterator[None]:
        """Tokenise files and their blocks, of which context items consist, so that packing finds their tokens."""
        if self._index.encode is None:
            return
        for path in paths:
            with self._changed():
                texts = self._index.block_texts(path)
            memo = Memo(self._index.encode)
            memo(f"{path}\n")  # as items begin
            for text in texts:
                memo(text)
                memo(text.removesuffix("\n"))  # as items end
                yield

    def _require_revision(self, change: Change) -> None:
        if change.whole or change.revision == self.revision:
            return
        if any(self.listed.get(path) != digest for path, digest in change.files.items()):
            what = f"the workspace is at revision {self.revision}, the change belongs to another one"
            raise ApiError(409, f"{what}; list all files again", code=CHANGED, param="revision")

    def _texts(self, paths: Iterator[str]) -> dict[bytes, bytes]:
        """Return the texts of files by their digests, since a file may have been renamed."""
        with self._changed():
            held = self._index.files
            return {self.listed[path]: held[path].data for path in paths if path in held}

    def _list(self, path: str, digest: bytes, spare: Mapping[bytes, bytes], report: ChangeReport) -> None:
        """List a file; take its text from `spare` if it is there."""
        if self.listed.get(path) == digest:
            return
        self._unlist(path)
        if len(self.listed) >= LIMITS.files:
            report.left_out[path] = f"beyond {LIMITS.files:,} files"
            return
        if self._list_memory > self._limit:
            report.left_out[path] = self._no_room
            return
        self.listed[path] = digest
        self._sum = (self._sum + _entry(path, digest)) % _REVISIONS
        self._path_memory += 3 * sys.getsizeof(path)
        if digest in spare:
            with self._changed():
                self._index.update(path, spare[digest])
        else:
            self.missing.add(path)

    def _unlist(self, path: str) -> None:
        """Forget a file, if it is listed."""
        digest = self.listed.pop(path, None)
        if digest is None:
            return
        self._sum = (self._sum - _entry(path, digest)) % _REVISIONS
        self._path_memory -= 3 * sys.getsizeof(path)
        self.missing.discard(path)
        with self._changed():
            self._index.remove(path)

    def _take(self, path: str, text: str, report: ChangeReport) -> None:
        """Index a text whose digest is listed; report another one."""
        digest = self.listed.get(path)
        if digest is None:
            if path not in report.left_out:
                report.refused.setdefault(shown(path), "the file is not listed in the workspace")
            return
        try:
            data = text.encode()
        except UnicodeEncodeError:
            report.refused[path] = "the text has half of a surrogate pair"
            return
        if hashlib.sha256(data).digest() != digest:
            report.refused[path] = f"the text has SHA-256 {hashlib.sha256(data).hexdigest()}, listed is {digest.hex()}"
        elif path in self.missing:
            self.missing.discard(path)
            self._index_text(path, to_utf8(data), report)

    def _index_text(self, path: str, data: bytes, report: ChangeReport) -> None:
        why = f"larger than {LIMITS.file_bytes:,} bytes" if len(data) > LIMITS.file_bytes else refusal(data)
        with self._changed():
            if self.memory + TEXT_GROWTH * len(data) > self._limit:
                why = self._no_room
            if why:
                report.left_out[path] = why
                return
            self._index.update(path, data)


def _entry(path: str, digest: bytes) -> int:
    """Return a file's part of the revision."""
    return int.from_bytes(hashlib.sha256(path.encode() + b"\0" + digest).digest())


class WorkspaceMetrics:
    """The metrics of workspaces."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name = "infill_transformer_workspace"
        self.number = Gauge(f"{name}s", "Workspaces in memory", registry=registry)
        self.bytes = Gauge(f"{name}_bytes", "Memory of all workspaces", registry=registry)
        self.evictions = Total(f"{name}_evictions", "Workspaces dropped to keep below the cap", registry=registry)
        self.sync = Histogram(f"{name}_sync_seconds", "Time of a change", registry=registry, buckets=SECONDS)


class Workspaces:
    """The workspaces of all tenants, which take at most `max_bytes` of memory together; 0 allows none."""

    def __init__(self, new_index: Callable[[], ProjectIndex], max_bytes: int, registry: CollectorRegistry) -> None:
        self._new_index = new_index
        self._max_bytes = max_bytes
        self._metrics = WorkspaceMetrics(registry)
        self._open: OrderedDict[tuple[str, str], Workspace] = OrderedDict()
        """Workspaces by tenant and name, the least recently used first."""
        self._total = 0
        self._changing: Counter[str] = Counter()
        self._thread = ThreadPoolExecutor(1, "workspaces")
        self._ahead: deque[tuple[Workspace, list[str]]] = deque(maxlen=MAX_AHEAD)
        """Files to tokenise in spare time, the latest last."""
        self._tokeniser: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    @property
    def memory(self) -> int:
        """The bytes of memory that all workspaces take."""
        return self._total

    def find(self, tenant: str, name: str) -> Workspace:
        """Return a workspace. Raises ApiError 404 if the tenant has none of this name, whoever else has."""
        workspace = self._open.get((tenant, name))
        if workspace is None:
            raise unknown(name)
        self._open.move_to_end((tenant, name))
        return workspace

    def close(self, tenant: str, name: str) -> None:
        """Drop a workspace. Raises ApiError 404 if there is none."""
        self.find(tenant, name)
        self._drop((tenant, name))

    async def change(self, tenant: str, name: str, change: Change) -> dict[str, Any]:
        """Apply a change and return the answer to it; a whole list creates the workspace.

        Raises ApiError 404 for an unknown workspace or one that was dropped meanwhile, 409 for a change of another
        revision, 429 when the tenant makes too many changes at once.
        """
        if change.whole and (tenant, name) not in self._open:
            self._create(tenant, name)
        workspace = self.find(tenant, name)
        if self._changing[tenant] >= MAX_CHANGES:
            what = f"at most {MAX_CHANGES} changes of workspaces at once are allowed"
            raise ApiError(429, what, code="rate_limit_exceeded", kind="rate_limit_error", retry_after=1)
        self._changing[tenant] += 1
        try:
            async with workspace.lock:
                with self._metrics.sync.time():
                    await self._apply(tenant, name, workspace, change)
                return workspace_answer(workspace, change.report)
        finally:
            self._changing[tenant] -= 1
            if not self._changing[tenant]:
                del self._changing[tenant]

    async def _apply(self, tenant: str, name: str, workspace: Workspace, change: Change) -> None:
        steps, loop = workspace.steps(change), asyncio.get_running_loop()
        more = True
        while more:
            if workspace.dropped:
                raise unknown(name)
            self.find(tenant, name)  # it is in use
            try:
                more = await loop.run_in_executor(self._thread, _advance, steps)
            finally:
                self.settle(workspace)

    def tokenise_ahead(self, tenant: str, name: str, change: Change) -> None:
        """Tokenise the texts of a change in spare time, so that the first prompt that shows them need not wait."""
        workspace = self._open.get((tenant, name))
        if workspace is not None and (paths := workspace.to_tokenise(change)):
            self._ahead.append((workspace, paths))
            if self._tokeniser is None or self._tokeniser.done():
                self._tokeniser = asyncio.create_task(self._tokenise())

    async def _tokenise(self) -> None:
        """Tokenise all that waits, one file after the other, so that a change waits for one slice at most."""
        loop = asyncio.get_running_loop()
        while self._ahead:
            workspace, paths = self._ahead.popleft()
            steps = workspace.tokenising(paths)
            while not workspace.dropped and await loop.run_in_executor(self._thread, _advance, steps, AHEAD_S):
                await asyncio.sleep(AHEAD_S)
                while self._changing:
                    await asyncio.sleep(AHEAD_S)

    def settle(self, workspace: Workspace) -> None:
        """Count the memory of a workspace again after it was used, and drop others until all are below the cap."""
        if not workspace.dropped:
            former, workspace.counted = workspace.counted, workspace.memory
            self._total += workspace.counted - former
            if workspace.counted == former and self._total <= self._max_bytes:
                return
        while self._total > self._max_bytes and self._open:
            self._drop(next(iter(self._open)))
            self._metrics.evictions.inc()
        self._show()

    def _create(self, tenant: str, name: str) -> None:
        if not self._max_bytes:
            raise ApiError(403, "this server keeps no workspaces: its workspace_bytes is 0", code=OFF)
        workspace = Workspace(self._new_index(), int(self._max_bytes * SHARE))
        self._open[(tenant, name)] = workspace
        self.settle(workspace)

    def _drop(self, key: tuple[str, str]) -> None:
        workspace = self._open.pop(key)
        workspace.dropped = True
        self._total -= workspace.counted
        self._show()

    def _show(self) -> None:
        self._metrics.number.set(len(self._open))
        self._metrics.bytes.set(self._total)

    def shut_down(self) -> None:
        """End the thread and what it does in spare time."""
        if self._tokeniser is not None:
            self._tokeniser.cancel()
        self._thread.shutdown(cancel_futures=True)


def workspace_answer(workspace: Workspace, report: ChangeReport) -> dict[str, Any]:
    """Return the answer to a change."""
    return {
        "revision": workspace.revision,
        "files": len(workspace.listed),
        "missing": report.missing,
        "refused": report.refused,
        "left_out": report.left_out,
    }


def unknown(name: str) -> ApiError:
    """Return status 404."""
    what = f"this server does not know the workspace {name!r}: list its files (PUT /v1/workspaces/{name})"
    return ApiError(404, what, code=UNKNOWN, param="workspace")


def _advance(steps: Iterator[None], seconds: float = SLICE_S) -> bool:
    """Take steps for a short while; return whether there may be more."""
    end = time.monotonic() + seconds
    return any(time.monotonic() > end for _ in steps)
