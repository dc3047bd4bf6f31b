from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.cache_utils import DynamicLayer

from infill import kv_cache
from infill.kv_cache import ROOM, RoomyLayer

CONFIG = LlamaConfig(num_hidden_layers=2, hidden_size=8, num_attention_heads=2)

steps = st.one_of(
    st.tuples(st.just("append"), st.sampled_from([1, 2, ROOM - 1, ROOM, ROOM + 1])),
    st.tuples(st.just("crop"), st.integers(0, 3)),
    st.tuples(st.just("select"), st.lists(st.integers(0, 1), min_size=2, max_size=2)),
)


@given(st.lists(steps, max_size=12))
def test_a_layer_that_grows_in_place_holds_what_one_that_copies_holds(sequence: list[tuple[str, Any]]) -> None:
    roomy, plain = RoomyLayer(), DynamicLayer()  # type: ignore[no-untyped-call]
    number = 0
    for name, value in sequence:
        if name == "append":
            new = torch.arange(number, number + 2 * 3 * value * 4, dtype=torch.float32).reshape(2, 3, value, 4)
            number += new.numel()
            both = [layer.update(new, -new) for layer in (roomy, plain)]
            assert all(torch.equal(one, other) for one, other in zip(*both, strict=True))
        elif name == "crop" and plain.get_seq_length() > value:
            for layer in (roomy, plain):
                layer.crop(-value)
        elif name == "select":
            for layer in (roomy, plain):
                layer.batch_select_indices(torch.tensor(value))
        assert roomy.get_seq_length() == plain.get_seq_length()


def test_two_layers_that_share_their_beginning_do_not_write_into_each_other() -> None:
    one: Any
    one, other = RoomyLayer(), RoomyLayer()
    one.update(torch.zeros(1, 1, 5, 2), torch.zeros(1, 1, 5, 2))
    other.update(one.keys[..., :3, :], one.values[..., :3, :])
    keys, _ = other.update(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    one.update(torch.full((1, 1, 1, 2), 2.0), torch.full((1, 1, 1, 2), 2.0))
    assert one.keys[0, 0, :, 0].tolist() == [0, 0, 0, 0, 0, 2]
    assert keys[0, 0, :, 0].tolist() == [0, 0, 0, 1]


def test_stacked_caches_are_one_with_zeros_on_the_left() -> None:
    parts = [_filled(rows, length) for rows, length in ((1, 4), (2, 3))]
    whole: Any = kv_cache.stacked(CONFIG, parts)
    assert whole.get_seq_length() == 4
    for layer in whole.layers:
        assert layer.values[:, 0, :, 0].tolist() == [[1, 1, 1, 1], [0, 2, 2, 2], [0, 2, 2, 2]]
    assert [part.get_seq_length() for part in parts] == [0, 0]
    assert not any(room is not None for part in parts for layer in part.layers for room in layer._rooms)


def _filled(rows: int, length: int) -> Any:
    cache: Any = kv_cache.new_cache(CONFIG)
    for layer in cache.layers:
        layer.update(*[torch.full((rows, 2, length, 4), float(rows))] * 2)
    return cache
