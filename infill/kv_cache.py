"""KV caches that grow in place, and batches of them.

`DynamicLayer` of transformers copies the whole cache for each new token, which was 44 % of the time of a step of eight
sequences of 1,000 positions (docs/log.md). Legend: B = sequences, T = positions.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM: Final = 128
"""Positions for which a layer has room when it has to grow."""


class RoomyLayer(DynamicLayer):
    """A layer of a cache with room for more positions; `keys` and `values` (B, heads, T, width) show what is used."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rooms: list[Tensor | None] = [None, None]

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append to keys and values; return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self._rooms[0] = _appended(self.keys, key_states, self._rooms[0])
        self.values, self._rooms[1] = _appended(self.values, value_states, self._rooms[1])
        return self.keys, self.values

    def reset(self) -> None:
        """Drop keys and values, and the room for more."""
        super().reset()
        self._rooms = [None, None]


def _appended(kept: Tensor | None, new: Tensor, room: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return `kept` with `new` after it, and the room that holds both: `room` if `kept` begins it and both fit."""
    length = 0 if kept is None or not kept.numel() else kept.shape[-2]
    end = length + new.shape[-2]
    if kept is None or room is None or room.data_ptr() != kept.data_ptr() or end > room.shape[-2]:
        room = new.new_empty(*new.shape[:-2], end + ROOM, new.shape[-1])
        if kept is not None and length:
            room[..., :length, :] = kept
    room[..., length:end, :] = new
    return room[..., :end, :], room


def new_cache(config: Any) -> DynamicCache:
    """Return an empty cache for a model of this configuration; its layers of plain attention grow in place."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def new_plain_cache(pairs: Iterable[tuple[Tensor, Tensor]] = ()) -> DynamicCache:
    """Return a cache that begins with copies of these keys and values, and whose layers all grow in place."""
    cache = DynamicCache()
    cache.layer_class_to_replicate = RoomyLayer
    for number, (keys, values) in enumerate(pairs):
        cache.update(keys, values, number)
    return cache


def is_plain(config: Any) -> bool:
    """Return whether all layers of the model attend to all positions, as `stacked` needs."""
    return all(isinstance(layer, RoomyLayer) for layer in new_cache(config).layers)


def stacked(config: Any, parts: Sequence[DynamicCache]) -> DynamicCache:
    """Return one cache of the sequences of all `parts`, in order, filled up with zeros on the left. Empties `parts`."""
    cache = new_cache(config)
    width = max(part.get_seq_length() for part in parts)
    for layers in zip(cache.layers, *(part.layers for part in parts), strict=True):
        whole, *some = layers
        whole.update(*(_padded([getattr(layer, name) for layer in some], width) for name in ("keys", "values")))
        for layer in some:
            layer.reset()
    return cache


def _padded(tensors: Sequence[Tensor], width: int) -> Tensor:
    _, heads, _, size = tensors[0].shape
    whole = tensors[0].new_zeros(sum(map(len, tensors)), heads, width, size)
    row = 0
    for tensor in tensors:
        whole[row : row + len(tensor), :, width - tensor.shape[-2] :] = tensor
        row += len(tensor)
    return whole
