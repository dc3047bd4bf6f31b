"""Carets: lines and columns of a text, as editors count them."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.context.caret import UNITS, Unit, position, read_source, split_at
from infill.errors import InputError

TEXTS = st.text(st.sampled_from("ab\r\n\f\u2028\x85é😀")) | st.text(st.characters(codec="utf-8"))


def test_split_at_is_between_characters() -> None:
    assert split_at("ab\r\ncd", 1, 3) == ("ab", "\r\ncd")
    assert split_at("ab\r\ncd", 2, 1) == ("ab\r\n", "cd")
    assert split_at("ab\rcd\n", 2, 2) == ("ab\rc", "d\n")
    assert split_at("ab\n", 2, 1) == ("ab\n", "")
    assert split_at("a\u2028b\fc", 1, 6) == ("a\u2028b\fc", "")
    for line, column in ((0, 1), (3, 1), (1, 4), (1, 0)):
        with pytest.raises(InputError, match="there is no"):
            split_at("ab\r\ncd", line, column)


@pytest.mark.parametrize(("unit", "column"), [("characters", 4), ("utf-16", 5), ("bytes", 8)])
def test_units_count_different_things(unit: Unit, column: int) -> None:
    assert split_at("x\né😀=1", 2, column, unit) == ("x\né😀=", "1")


@pytest.mark.parametrize(("unit", "column"), [("utf-16", 3), ("bytes", 2), ("bytes", 6)])
def test_column_inside_a_character_is_refused(unit: Unit, column: int) -> None:
    with pytest.raises(InputError, match="inside a character"):
        split_at("é😀", 1, column, unit)


@given(text=TEXTS, data=st.data())
def test_position_and_split_at_are_inverse(text: str, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, len(text)))
    if text[offset - 1 : offset + 1] == "\r\n":
        offset += 1  # nothing stands inside a line end
    line, column = position(text, offset)
    assert split_at(text, line, column) == (text[:offset], text[offset:])


@given(text=TEXTS, unit=st.sampled_from(sorted(UNITS)))
def test_end_of_each_line_is_a_column_in_every_unit(text: str, unit: Unit) -> None:
    encoding, size = UNITS[unit]
    line, column = position(text, len(text))
    before = text[len(text) - column + 1 :]
    assert split_at(text, line, len(before.encode(encoding)) // size + 1, unit) == (text, "")


def test_what_is_not_a_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(InputError, match=r"pipe.py cannot be read: not a regular file"):
        read_source(tmp_path / "pipe.py")
