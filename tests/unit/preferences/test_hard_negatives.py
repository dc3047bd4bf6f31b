"""Completions that are made up have the one fault that they are made for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill import metrics
from infill.fim import is_sound
from infill.preferences.hard_negatives import hard_negatives

BEFORE = """class Shape:
    def __init__(self, width, height):
        self.width = width
        self.height = height
        self.depth = 1

    def area(self):
        """
AFTER = """

    def scaled_area(self, factor):
        return self.area() * factor

    def scaled_width(self, factor):
        return self.width * factor


def total_area(shapes):
    total = 0
    for shape in shapes:
        total += shape.scaled_area(2)
    return total
"""
PYTHON: dict[str, Any] = {
    "id": "a",
    "language": "python",
    "prefix": BEFORE,
    "suffix": AFTER,
    "middle": "return self.width * self.height",
    "context": [{"text": "def widths(shapes): ...\n"}],
}
GO: dict[str, Any] = {
    "id": "b",
    "language": "go",
    "prefix": "package a\n\nfunc Sum(values []int) int {\n\t",
    "middle": "return Total(values)",
    "suffix": "\n}\n\nfunc Total(values []int) int { return 1 }\n\nfunc Totals(values []int) int { return 2 }\n",
    "context": [],
}


@pytest.mark.parametrize("hole", [PYTHON, GO], ids=["python", "go"])
def test_each_kind_has_its_fault_and_no_other(hole: dict[str, Any]) -> None:
    pairs = {pair.kind: pair for pair in hard_negatives(hole, 4)}
    assert set(pairs) == {"stub", "over", "echo", "wrong_name"}
    middle, around = hole["middle"], (hole["prefix"], hole["suffix"])
    assert all(pair.chosen == middle and pair.score_rejected < 1 for pair in pairs.values())
    assert metrics.stub(pairs["stub"].rejected, middle)
    assert is_sound(around[0] + pairs["stub"].rejected + around[1], hole["language"])
    assert metrics.over_generation(pairs["over"].rejected, middle)
    assert not metrics.suffix_echo(pairs["over"].rejected, middle, around[1])
    assert metrics.suffix_echo(pairs["echo"].rejected, middle, around[1])
    wrong = pairs["wrong_name"]
    assert is_sound(around[0] + wrong.rejected + around[1], hole["language"])
    assert not metrics.stub(wrong.rejected, middle)
    names = metrics._identifiers(wrong.rejected) - metrics._identifiers(middle)
    assert len(names) == 1
    assert names <= metrics._identifiers("".join([*around, *(item["text"] for item in hole["context"])]))


def test_a_wrong_name_has_the_role_and_is_the_nearest() -> None:
    (pair,) = [pair for pair in hard_negatives(GO, 4) if pair.kind == "wrong_name"]
    assert pair.rejected == "return Totals(values)"
    assert "Totals in place of Total" in pair.reason


def test_kinds_take_turns_over_holes() -> None:
    kinds = {hard_negatives({**PYTHON, "id": str(number)}, 1)[0].kind for number in range(40)}
    assert kinds == {"stub", "over", "echo", "wrong_name"}
    assert hard_negatives(PYTHON, 0) == []


def test_a_stub_of_the_author_has_no_stub_as_its_worse() -> None:
    kinds = {pair.kind for pair in hard_negatives({**PYTHON, "middle": "pass"}, 4)}
    assert "stub" not in kinds


TEXT = st.text(st.sampled_from("ab(.)\n =:x"), max_size=40)


@given(prefix=TEXT, middle=TEXT, suffix=TEXT, language=st.sampled_from(["python", "rust", "text"]))
def test_any_hole_has_sound_pairs(prefix: str, middle: str, suffix: str, language: str) -> None:
    hole = {"id": "x", "language": language, "prefix": prefix, "middle": middle, "suffix": suffix, "context": []}
    for pair in hard_negatives(hole, 4):
        assert pair.rejected.strip() != middle.strip()
        assert 0 <= pair.score_rejected <= 1
