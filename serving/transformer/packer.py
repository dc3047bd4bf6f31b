"""From a request to a prompt: keep the project's index up to date, rank, pack. Safe in several threads at once."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from infill.context import ProjectIndex, retrieve
from infill.context.identity import Current
from infill.context.packing import Packed, pack
from infill.prompt import ContextItem, Encode, FimRequest, Prompt, PromptFormat
from serving.protocol import ApiError, Sampling, invalid
from serving.transformer.request import CompletionRequest
from serving.transformer.tokenizer import Tokenizer

Documents = tuple[tuple[str, str], ...]

TOKENIZER_CHANGED: Final = "tokenizer_changed"
PROMPT_TOO_LONG: Final = "prompt_too_long"
PACKED_BY_CLIENT: Final = "the prompt came as token ids: the client has chosen its context"


@dataclass(kw_only=True)
class _Project:
    """An index with what it holds; changed only under its lock."""

    index: ProjectIndex
    chars: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def update(self, documents: Documents) -> None:
        """Make the index hold exactly `documents`; only files whose content differs cost anything."""
        texts = dict(documents)
        empty = not self.index.files
        for path in self.index.files.keys() - texts.keys():
            self.index.remove(path)
        for path, text in texts.items():
            self.index.update(path, text)
        if empty:
            self.index.table.squeeze()
        self.chars = sum(map(len, texts.values()))


class ProjectCache:
    """Indexes of the recently used projects, within `max_chars` of text; the least recently used is forgotten first."""

    def __init__(self, new_index: Callable[[], ProjectIndex], max_chars: int) -> None:
        self._new_index = new_index
        self._max_chars = max_chars
        self._projects: OrderedDict[str, _Project] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._projects)

    @contextmanager
    def project(self, key: str, documents: Documents) -> Iterator[ProjectIndex]:
        """The index of exactly `documents`, for the caller alone; `key` says which earlier index is near to it."""
        with self._lock:
            project = self._projects.pop(key, None) or _Project(index=self._new_index())
            self._projects[key] = project
        with project.lock:
            project.update(documents)
            yield project.index
        with self._lock:
            self._evict()

    def _evict(self) -> None:
        while len(self._projects) > 1 and sum(each.chars for each in self._projects.values()) > self._max_chars:
            self._projects.popitem(last=False)
        if sum(each.chars for each in self._projects.values()) > self._max_chars:
            self._projects.clear()


class Sessions:
    """The last prompt of each editor session, at most `size` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._packed: OrderedDict[str, Packed] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, session: str) -> Packed | None:
        """What was packed last for `session`; None for a new or nameless one."""
        with self._lock:
            return self._packed.get(session)

    def put(self, session: str, packed: Packed) -> None:
        """Remember `packed`, unless the session is nameless."""
        if not session:
            return
        with self._lock:
            self._packed[session] = packed
            self._packed.move_to_end(session)
            while len(self._packed) > self._size:
                self._packed.popitem(last=False)


@dataclass(frozen=True, kw_only=True)
class Packer:
    fmt: PromptFormat
    encode: Encode
    budget: int
    strategy: str
    context_items: int
    projects: ProjectCache
    sessions: Sessions
    tokenizer: Tokenizer

    def pack(self, request: CompletionRequest, budget: int | None = None) -> Packed:
        """Return the prompt of `request` within the budget, holding no text that the request does not hold.

        `budget` takes the place of the packer's own where the predictor's context is smaller than the model's.
        """
        budget = budget or self.budget
        if request.ids:
            return self._packed_by_client(request, budget)
        if request.documents:
            key = request.project or _fingerprint(request.documents)
            others = _others(request)
            with self.projects.project(key, others) as index:
                items = retrieve(
                    *(index, request.fim), strategy=self.strategy, k=self.context_items, recent=request.recent
                )
                packed = self._pack(request, items, index.holds, budget)
        else:
            packed = self._pack(request, (), lambda _: False, budget)
        self.sessions.put(request.session, packed)
        return packed

    def _packed_by_client(self, request: CompletionRequest, budget: int) -> Packed:
        """Return the client's own prompt. Raises ApiError for one that this model cannot take."""
        if request.tokenizer not in ("", self.tokenizer.digest):
            what = f"the prompt was made with another tokenizer or prompt format than {self.tokenizer.digest}"
            raise ApiError(409, f"{what}: fetch /v1/tokenizer again", code=TOKENIZER_CHANGED, param="tokenizer")
        if max(request.ids) >= self.tokenizer.size:
            raise invalid(f"token ids must be below {self.tokenizer.size}, got {max(request.ids)}", "prompt")
        if len(request.ids) > budget:
            what = f"'prompt' has {len(request.ids)} tokens, at most {budget} are allowed"
            raise invalid(what, "prompt", PROMPT_TOO_LONG)
        return Packed(prompt=Prompt(ids=[*request.ids], items=()), why_empty=PACKED_BY_CLIENT)

    def _pack(
        self,
        request: CompletionRequest,
        items: tuple[ContextItem, ...],
        holds: Callable[[ContextItem], bool],
        budget: int,
    ) -> Packed:
        fim = replace(request.fim, context=items)
        previous = self.sessions.get(request.session)
        return pack(self.fmt, self.encode, fim, previous=previous, budget=budget, holds=holds)


def warm_up(packer: Packer) -> None:
    """Pack once, so that the first user does not wait for the index's inner loops to be compiled."""
    documents = (("a.py", "def first():\n    return second()\n"), ("b.py", "def second():\n    return 1\n"))
    fim = FimRequest(path="c.py", prefix="x = first(", suffix=")\n")
    packer.pack(CompletionRequest(fim=fim, documents=documents, session="", sampling=Sampling()))


def _others(request: CompletionRequest) -> Documents:
    """Return the documents without the current file."""
    current = Current(request.fim.path, request.fim.prefix + request.fim.suffix)
    same = current.named_in(path for path, _ in request.documents)
    return tuple((path, text) for path, text in request.documents if path not in same and not current.has_text(text))


def _fingerprint(documents: Documents) -> str:
    """A name for the project of a client that gives none: its paths."""
    return hashlib.sha256("\n".join(sorted(path for path, _ in documents)).encode()).hexdigest()
