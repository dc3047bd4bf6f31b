"""From a request to a prompt: update the project's index, rank, pack. Thread-safe."""

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from infill.context import ProjectIndex, ranked
from infill.context.identity import Current
from infill.context.overlay import Overlay
from infill.context.packing import RULES, Packed, PackingRules, pack
from infill.prompt import ContextItem, Encoder, FimRequest, Prompt, PromptFormat, caret_of
from infill.syntax import language_of
from infill.truncation import Truncation
from serving.protocol import ApiError, Sampling, invalid
from serving.transformer.client_tokenizer import Tokenizer
from serving.transformer.request import CompletionRequest
from serving.transformer.workspaces import Documents, Workspace

TOKENIZER_CHANGED: Final = "tokenizer_changed"
PROMPT_TOO_LONG: Final = "prompt_too_long"
SHORT_CHARS: Final = 200_000
SHORT_S: Final = 0.005
"""Seconds for which a thread of Python computes before another one has its turn."""
PACKED_BY_CLIENT: Final = "the prompt came as token ids: the client has chosen its context"


@dataclass(kw_only=True)
class _Project:
    """A project's index and its size; both change only under the lock."""

    index: ProjectIndex
    chars: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def overlay(self) -> Overlay:
        """The index as queries see it."""
        return Overlay(self.index)

    def update(self, documents: Documents) -> None:
        """Make the index hold exactly `documents`; only files whose content differs cost time."""
        texts = dict(documents)
        self.overlay.lift()
        empty = not self.index.files
        for path in self.index.files.keys() - texts.keys():
            self.index.remove(path)
        for path, text in texts.items():
            self.index.update(path, text)
        if empty:
            self.index.table.squeeze()
        self.chars = sum(map(len, texts.values()))


class ProjectCache:
    """Indexes of recently used projects with at most `max_chars` of text; the least recently used is dropped first."""

    def __init__(self, new_index: Callable[[], ProjectIndex], max_chars: int) -> None:
        self._new_index = new_index
        self._max_chars = max_chars
        self._projects: OrderedDict[str, _Project] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._projects)

    @contextmanager
    def project(self, key: str, documents: Documents, current: Current | None = None) -> Iterator[Overlay]:
        """Yield an index of exactly `documents`, locked for the caller, updated from the last index under `key`.

        It lacks the `current` file.
        """
        with self._lock:
            project = self._projects.pop(key, None) or _Project(index=self._new_index())
            self._projects[key] = project
        with project.lock:
            project.update(documents)
            project.overlay.show({}, current)
            yield project.overlay
        with self._lock:
            self._evict()

    def _evict(self) -> None:
        while len(self._projects) > 1 and sum(each.chars for each in self._projects.values()) > self._max_chars:
            self._projects.popitem(last=False)
        if sum(each.chars for each in self._projects.values()) > self._max_chars:
            self._projects.clear()


class Sessions:
    """The last prompts of at most `size` editor sessions."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._packed: OrderedDict[str, tuple[Packed, float]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, session: str) -> Packed | None:
        """Return the last prompt of `session`; None for a new or nameless one."""
        with self._lock:
            return self._packed[session][0] if session in self._packed else None

    def seconds(self, session: str, path: str) -> float:
        """Return the processor time of the last prompt of `session`; infinity unless it was in the file `path`."""
        with self._lock:
            packed, seconds = self._packed.get(session, (None, math.inf))
            return seconds if packed and packed.path == path else math.inf

    def put(self, session: str, packed: Packed, seconds: float) -> None:
        """Remember `packed` and the processor time that it took, unless the session is nameless."""
        if not session:
            return
        with self._lock:
            self._packed[session] = packed, seconds
            self._packed.move_to_end(session)
            while len(self._packed) > self._size:
                self._packed.popitem(last=False)


@dataclass(frozen=True, kw_only=True)
class Packer:
    """A packer of prompts with one model's format and tokenizer, and the state that lasts between requests."""

    fmt: PromptFormat
    encoder: Encoder
    budget: int
    strategy: str
    context_items: int
    projects: ProjectCache
    sessions: Sessions
    tokenizer: Tokenizer

    def pack(
        self,
        request: CompletionRequest,
        budget: int | None = None,
        workspace: Workspace | None = None,
        rules: PackingRules = RULES,
        *,
        wait: bool = True,
    ) -> Packed:
        """Return a prompt for `request` within the budget, with no text that is not in the request or its workspace.

        `budget` replaces the packer's own where the predictor's context is smaller than the model's. Raises ApiError
        for token ids that this model cannot accept, BlockingIOError for a workspace that is in use if it must not
        `wait`.
        """
        budget, started = budget or self.budget, time.thread_time()
        if request.ids:
            return self._packed_by_client(request, budget)
        current = Current(request.fim.path, request.fim.prefix + request.fim.suffix)
        if request.documents or workspace:
            with self._shown(request, workspace, current, wait=wait) as shown:
                items = ranked(
                    *(shown.index, request.fim), strategy=self.strategy, k=self.context_items, recent=request.recent
                )
                packed = self._pack(request, current, items, shown.holds, budget, rules)
        else:
            packed = self._pack(request, current, (), lambda _: False, budget, rules)
        self.sessions.put(request.session, packed, time.thread_time() - started)
        return packed

    def is_short(self, request: CompletionRequest) -> bool:
        """Return whether packing is likely to take less than a thread's turn, as it did for the last keystroke."""
        if request.ids:
            return True
        return request.chars <= SHORT_CHARS and self.sessions.seconds(request.session, request.fim.path) < SHORT_S

    def truncation(self, request: CompletionRequest) -> Truncation | None:
        """Return the filter that ends the answer to `request` where its syntax does; None if there is no caret in it.

        A prompt that the client has packed is decoded: it begins somewhere in the file, so fewer rules apply.
        """
        around = (request.fim.prefix, request.fim.suffix)
        if request.ids:
            caret = caret_of(self.fmt, self.encoder.decode, request.ids)
            if caret is None:
                return None
            around = caret
        return Truncation(*around, request.language or language_of(request.fim.path))

    def _shown(
        self, request: CompletionRequest, workspace: Workspace | None, current: Current, *, wait: bool
    ) -> AbstractContextManager[Overlay]:
        """Return the request's files, or its workspace with them in place of those there, without the current file."""
        others = _others(request.documents, current)
        if workspace:
            return workspace.queried(others, current, wait=wait)
        return self.projects.project(request.project or _fingerprint(request.documents), others, current)

    def _packed_by_client(self, request: CompletionRequest, budget: int) -> Packed:
        """Return the client's own prompt. Raises ApiError for one that this model cannot accept."""
        if request.tokenizer not in ("", self.tokenizer.digest):
            what = f"the server's tokenizer and prompt format have digest {self.tokenizer.digest}, the prompt's differ"
            raise ApiError(409, f"{what}; fetch /v1/tokenizer again", code=TOKENIZER_CHANGED, param="tokenizer")
        if max(request.ids) >= self.tokenizer.size:
            raise invalid(f"token ids must be below {self.tokenizer.size}, got {max(request.ids)}", "prompt")
        if len(request.ids) > budget:
            what = f"'prompt' has {len(request.ids)} tokens, at most {budget} are allowed"
            raise invalid(what, "prompt", PROMPT_TOO_LONG)
        return Packed(prompt=Prompt(ids=[*request.ids], items=()), why_empty=PACKED_BY_CLIENT)

    def _pack(
        self,
        request: CompletionRequest,
        current: Current,
        items: tuple[ContextItem, ...],
        holds: Callable[[ContextItem], bool],
        budget: int,
        rules: PackingRules,
    ) -> Packed:
        fim = FimRequest(path=current.path, prefix=request.fim.prefix, suffix=request.fim.suffix, context=items)
        previous = self.sessions.get(request.session)
        return pack(
            self.fmt,
            self.encoder.encode,
            fim,
            previous=previous,
            budget=budget,
            holds=holds,
            rules=rules,
            current=current,
        )


def warm_up(packer: Packer) -> None:
    """Pack one prompt, so that the first user does not wait for the compilation of the index's inner loops."""
    documents = (("a.py", "def first():\n    return second()\n"), ("b.py", "def second():\n    return 1\n"))
    fim = FimRequest(path="c.py", prefix="x = first(", suffix=")\n")
    packer.pack(CompletionRequest(fim=fim, documents=documents, session="", sampling=Sampling()))


def _others(documents: Documents, current: Current) -> Documents:
    """Return the documents without the current file."""
    same = current.named_in(path for path, _ in documents)
    return tuple((path, text) for path, text in documents if path not in same and not current.has_text(text))


def _fingerprint(documents: Documents) -> str:
    """Return a name for the project of a client that sends none: a digest of its paths."""
    return hashlib.sha256("\n".join(sorted(path for path, _ in documents)).encode()).hexdigest()
