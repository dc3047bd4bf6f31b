"""KV caches of past requests, which let the next request start from the longest prompt prefix seen before.

T = tokens; an entry's cache holds the keys and values of exactly its T tokens, shape [1, heads, T, width] per layer.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from infill import kv_cache

Ids = npt.NDArray[np.int64]

SUPERSEDED_SHARE: Final = 0.9
"""A new request that shares at least this part of an entry's prompt takes the entry over instead of copying it."""


@dataclass(frozen=True, kw_only=True)
class CachedPrompt:
    """The KV cache that one request has left."""

    ids: Ids
    """The tokens whose keys and values the cache holds."""
    prompt_tokens: int
    """Number of these tokens that were the prompt; the rest was generated."""
    cache: DynamicCache
    salt: str = ""
    """Requests of another salt do not see the entry."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory of the keys and values; a cropped tensor still holds its whole storage."""
        return sum(tensor.untyped_storage().nbytes() for layer in _layers(self.cache) for tensor in layer)


def _layers(cache: DynamicCache) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the keys and values of each layer that has any."""
    return [
        (layer.keys, layer.values)
        for layer in cache.layers
        if isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
    ]


def common_prefix(left: Ids, right: Ids) -> int:
    """Return the length of the longest common prefix of the two token lists."""
    size = min(len(left), len(right))
    different = np.flatnonzero(left[:size] != right[:size])
    return int(different[0]) if len(different) else size


class PrefixCache:
    """KV caches of at most `max_bytes`; the least recently used is dropped first. Used by one thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[int, CachedPrompt] = OrderedDict()
        self._number = 0
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, prompt: Ids, salt: str = "") -> tuple[DynamicCache, int]:
        """Return a cache that the caller may change, and the number of `prompt`'s first tokens that it holds.

        At least the last token remains to be computed, since its logits are needed.
        """
        shared = {
            number: common_prefix(entry.ids, prompt) for number, entry in self._entries.items() if entry.salt == salt
        }
        best = max(shared, key=lambda number: shared[number], default=-1)
        length = min(shared.get(best, 0), len(prompt) - 1)
        if length == 0:
            return kv_cache.new_plain_cache(), 0
        entry = self._entries[best]
        if shared[best] >= SUPERSEDED_SHARE * entry.prompt_tokens:
            self._drop(best)
            entry.cache.crop(length - len(entry.ids))
            return entry.cache, length
        self._entries.move_to_end(best)
        layers = [(keys[..., :length, :], values[..., :length, :]) for keys, values in _layers(entry.cache)]
        return kv_cache.new_plain_cache(layers), length

    def put(self, entry: CachedPrompt) -> None:
        """Keep `entry` unless it is empty or alone exceeds `max_bytes`."""
        size = entry.nbytes
        if len(entry.ids) == 0 or size > self._max_bytes:
            return
        while self.nbytes + size > self._max_bytes:
            self._drop(next(iter(self._entries)))
        self._number += 1
        self._entries[self._number] = entry
        self.nbytes += size

    def clear(self) -> None:
        """Drop all entries."""
        self._entries.clear()
        self.nbytes = 0

    def _drop(self, number: int) -> None:
        self.nbytes -= self._entries.pop(number).nbytes
