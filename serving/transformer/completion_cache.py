"""Finished answers, from which the next keystrokes of the same user in the same place are answered without the model.

An answer to the text T before the caret that wrote A answers each text T + the first characters of A: the user types
through the suggestion, or deletes back to T. An answer serves only requests that agree in all else: tenant, user and
session, model, path, text after the caret, the project's other files, sampling (`lane`). So nothing that has changed
since can be missing from the prompt. A predictor that was away, or reports another context, may be another one: its
answers do not serve any more. One that is replaced unseen, by a balancer, is what MAX_AGE_S limits. docs/adr/0017 has
the reasons. All methods run on the event loop.
"""

import hashlib
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from infill.context.packing import NOTHING, Packed
from serving.transformer.prefix_trie import PrefixTrie, TrieNode
from serving.transformer.request import CompletionRequest
from serving.transformer.workspaces import Workspace

MAX_AGE_S: Final = 300.0
"""Seconds for which an answer serves."""
LEAST_LEFT: Final = 0.5
"""Share that must be left of an answer that ended at a limit: the model would write more from here on."""
ANSWER_BYTES: Final = 2_000
"""Bytes of memory of an answer besides its text and its context items."""
ITEM_BYTES: Final = 300
"""Bytes of a context item besides its text."""


@dataclass(frozen=True, kw_only=True)
class KeptAnswer:
    """A finished answer."""

    text: str
    finish_reason: str
    packed: Packed
    """The prompt that led to it, without its token ids."""
    prompt_tokens: int
    answered: float
    """Time of the monotonic clock."""

    @property
    def memory(self) -> int:
        """Bytes of memory."""
        items = self.packed.prompt.items
        return ANSWER_BYTES + sys.getsizeof(self.text) + sum(ITEM_BYTES + sys.getsizeof(item.text) for item in items)

    def after(self, typed: str, now: float) -> "KeptAnswer | None":
        """Return the rest after its first characters have been typed; None if others have, or too little is left."""
        if not self.text.startswith(typed) or now - self.answered > MAX_AGE_S:
            return None
        rest = self.text[len(typed) :]
        if typed and not rest.strip():
            return None
        if self.finish_reason != "stop" and len(rest) < LEAST_LEFT * len(self.text):
            return None
        return replace(self, text=rest)


class CompletionCacheMetrics:
    """The metrics of the cache."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name = "infill_transformer_completion_cache"
        self.lookups = Counter(
            f"{name}_lookups", "Look-ups: same, typed (through a suggestion), miss", ["result"], registry=registry
        )
        self.bytes = Gauge(f"{name}_bytes", "Memory of the answers", registry=registry)
        self.evictions = Counter(f"{name}_evictions", "Answers dropped to keep below the cap", registry=registry)


class CompletionCache:
    """The answers of all users in at most `max_bytes` of memory; the least recently used is dropped first."""

    def __init__(self, max_bytes: int, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic):
        self._max_bytes = max_bytes
        self._clock = clock
        self._trie = PrefixTrie[KeptAnswer]()
        self._used: OrderedDict[TrieNode[KeptAnswer], int] = OrderedDict()
        """Memory of each answer, the least recently used first."""
        self._answers_memory = 0
        self.metrics = CompletionCacheMetrics(registry)

    def __len__(self) -> int:
        return len(self._used)

    @property
    def memory(self) -> int:
        """The bytes of memory that the answers take."""
        return self._answers_memory + self._trie.memory

    def find(self, lane: str, prefix: str) -> KeptAnswer | None:
        """Return what is left of the latest answer that serves the text `prefix` before the caret; None if none is."""
        if not lane or not self._max_bytes:
            return None
        now, key = self._clock(), lane + prefix
        for place, node in reversed([*self._trie.along(key)]):
            answer = node.value and node.value.after(key[place:], now)
            if answer:
                self._used.move_to_end(node)
                self.metrics.lookups.labels("same" if place == len(key) else "typed").inc()
                return answer
        self.metrics.lookups.labels("miss").inc()
        return None

    def keep(self, lane: str, prefix: str, text: str, finish_reason: str, packed: Packed) -> None:
        """Keep a finished answer to the text `prefix` before the caret."""
        if not lane or not self._max_bytes:
            return
        answer = KeptAnswer(
            text=text,
            finish_reason=finish_reason,
            packed=replace(packed, prompt=replace(packed.prompt, ids=[]), layout=NOTHING, encode=None),
            prompt_tokens=len(packed.prompt.ids),
            answered=self._clock(),
        )
        node = self._trie.put(lane + prefix, answer)
        self._answers_memory += answer.memory - self._used.pop(node, 0)
        self._used[node] = answer.memory
        while self.memory > self._max_bytes:
            self._drop()
            self.metrics.evictions.inc()
        self.metrics.bytes.set(self.memory)

    def _drop(self) -> None:
        node, memory = self._used.popitem(last=False)
        self._answers_memory -= memory
        self._trie.remove(node)


def lane(completion: CompletionRequest, tenant: str, model: str, workspace: Workspace | None) -> str:
    """Return a digest of everything about a request, in its session, but the text before the caret.

    It is empty for requests that the cache does not serve: prompts of token ids, samples, and those that warm.
    """
    sampling = completion.sampling
    if completion.ids or sampling.temperature or not sampling.max_tokens or not completion.session:
        return ""
    digest = hashlib.blake2b(digest_size=20)
    for part in _parts(completion, tenant, model, workspace):
        data = part.encode()
        digest.update(len(data).to_bytes(8) + data)
    return digest.hexdigest()


def _parts(completion: CompletionRequest, tenant: str, model: str, workspace: Workspace | None) -> Iterator[str]:
    """Yield the parts of a lane; the current file's own text in the project is not one, since the request has it."""
    fim, sampling = completion.fim, completion.sampling
    limits = (sampling.max_tokens, sampling.stop, sampling.stop_token_ids, sampling.ignore_eos)
    yield from (tenant, model, completion.session, fim.path, fim.suffix)
    ending = (completion.max_ms, completion.min_indent, completion.stop_at_unit, completion.language)
    yield repr((limits, ending, completion.recent))
    yield f"{completion.workspace} {workspace.revision_without(fim.path)}" if workspace else ""
    for path, text in completion.documents:
        if path != fim.path:
            yield from (path, text)
