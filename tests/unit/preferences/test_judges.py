from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill import metrics
from infill.preferences import judges
from infill.preferences.candidates import Candidate

HOLE: dict[str, Any] = {
    "language": "python",
    "prefix": "def area(width, height):\n    ",
    "middle": "return width * height",
    "suffix": "\n\n\nprint(area(2, 3))\n",
}


def _judge(text: str, *, finished: bool = True, hole: dict[str, Any] = HOLE) -> judges.Verdict:
    return judges.rules(hole, [Candidate(text=text, finished=finished, temperature=0.5)])[0]


def test_the_true_middle_is_perfect() -> None:
    assert _judge(HOLE["middle"]) == judges.Verdict(score=1.0)


@pytest.mark.parametrize(
    ("text", "defect"),
    [
        ("", "empty"),
        ("pass", "stub"),
        ("# TODO: compute\n    return None", "stub"),
        ('raise NotImplementedError("later")', "stub"),
        ("return width *", "does not parse"),
        ("x = 1\n    x = 1\n    x = 1\n    return x", "repeats itself"),
        ("return width * height\n\n\nprint(area(2, 3))", "repeats the suffix"),
        ("total = 0\n" + "    for x in range(width):\n        total += height\n" * 2 + "    return total", "verbose"),
    ],
)
def test_each_defect_is_found_and_costs(text: str, defect: str) -> None:
    verdict = _judge(text)
    assert defect in verdict.defects
    assert verdict.score < 0.7


def test_an_unfinished_completion_does_not_stop() -> None:
    assert _judge(HOLE["middle"], finished=False) == judges.Verdict(score=0.6, defects=("does not stop",))


@pytest.mark.parametrize(
    ("text", "stub"),
    [
        ("pass", True),
        ("...", True),
        ("return None;", True),
        ('throw new UnsupportedOperationException("x");', True),
        ("todo!()", True),
        ("// nothing yet\n{\n}", True),
        ("/*\n * later\n */", True),
        ("# later", True),
        ("*pointer = 1;", False),
        ("#include <stdio.h>", False),
        ("return value", False),
        ("return 0 if x else 1", False),
        ("passed = True", False),
        ("x = 1  # TODO tidy", True),
        ("f();//TODO", True),
        ("/* FIXME */", True),
        ('state = "TODO"', False),
        ("TODO.append(item)", False),
        ("", False),
    ],
)
def test_stubs(text: str, stub: bool) -> None:
    assert metrics.is_stub(text) == stub


def test_a_stub_that_the_author_wrote_is_not_a_defect() -> None:
    hole = HOLE | {"middle": "pass"}
    assert _judge("pass", hole=hole).score == 1


def test_a_file_that_never_parsed_does_not_blame_the_completion() -> None:
    for hole in (HOLE | {"prefix": "def def (\n" + HOLE["prefix"]}, HOLE | {"language": "text"}):
        assert "does not parse" not in _judge("return (", hole=hole).defects
    assert "does not parse" in _judge("return (").defects


@given(st.text(alphabet="ab=\n ()", max_size=60), st.text(alphabet="ab=\n ()", max_size=60), st.booleans())
def test_scores_are_between_zero_and_one(text: str, middle: str, finished: bool) -> None:
    assert 0 <= _judge(text, finished=finished, hole=HOLE | {"middle": middle}).score <= 1
