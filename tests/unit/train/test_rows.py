"""Rows are read window by window, each once an epoch, in an order that mixes them."""

import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.errors import InputError
from infill.train.shuffled_rows import Rows
from tests.properties import examples


def write(file: Path, count: int, group: int) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"n": pa.array(range(count), pa.int64())}), file, row_group_size=group)
    return str(file)


@examples(40)
@given(st.integers(0, 90), st.integers(1, 30), st.integers(1, 50))
def test_every_row_has_its_number_and_its_place(
    tmp_path_factory: pytest.TempPathFactory, count: int, group: int, window: int
) -> None:
    rows = Rows(write(tmp_path_factory.mktemp("rows") / "a.parquet", count, group), window)
    assert len(rows) == count
    assert [rows[index]["n"] for index in range(count)] == list(range(count))
    assert sorted(rows.order("seed", 0).tolist()) == list(range(count))


def test_neighbours_in_the_order_are_in_one_window(tmp_path: Path) -> None:
    rows = Rows(write(tmp_path / "a.parquet", 1_000, 10), window=100)
    first, second = rows.order(1, 0).tolist(), rows.order(1, 1).tolist()
    assert first != second
    for order in (first, second):
        windows = [number // 100 for number in order]
        assert sum(one != other for one, other in itertools.pairwise(windows)) == 9
        assert order[:100] != sorted(order[:100])
        for index in order:
            assert rows[index]["n"] == index
    assert rows.window.cache_info().misses == 20


def test_a_file_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing; run the stage"):
        Rows(str(tmp_path / "none.parquet"))
