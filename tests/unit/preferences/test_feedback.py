"""Pairs and holes of what users made of suggestions."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from infill.artifacts.preferences import SCHEMA
from infill.feedback import feedback_row
from infill.preferences import preferences_stage
from infill.preferences.feedback import digests, learn, read

ROW: dict[str, Any] = {
    "version": 1,
    "id": "1",
    "date": "2026-11-26",
    "model": "infill",
    "prompt_format": "x",
    "strategy": "infill",
    "language": "python",
    "path": "a.py",
    "prefix": "x = ",
    "suffix": "\n",
    "context": [{"path": "b.py", "text": "b", "first_line": 1, "last_line": 1, "score": 1, "strategy": "infill"}],
    "shown": "area(width)",
    "outcome": "accepted",
    "accepted_chars": 11,
    "finished": True,
    "final": "area(width)",
}

CASES: dict[str, tuple[list[dict[str, Any]], list[tuple[str, str, str]], list[str]]] = {
    "stayed": ([{}], [], ["area(width)"]),
    "stayed, with other white space": ([{"final": "area(width) "}], [], ["area(width)"]),
    "stayed, as far as is known": ([{"final": None}], [], ["area(width)"]),
    "edited": ([{"final": "area(2)"}], [("edited", "area(2)", "area(width)")], []),
    "accepted in part": ([{"final": None, "accepted_chars": 4}], [("edited", "area", "area(width)")], []),
    "deleted": ([{"final": " "}], [], []),
    "replaced": ([{"outcome": "rejected", "final": "1"}], [("typed", "1", "area(width)")], []),
    "rejected, and nothing known": ([{"outcome": "rejected", "final": None}], [], []),
    "rejected, and typed by hand": ([{"outcome": "rejected"}], [], []),
    "another one accepted at the same place": (
        [
            {"outcome": "rejected", "shown": "1", "final": None},
            {},
            {"outcome": "rejected", "shown": "1", "final": None},
        ],
        [("accepted", "area(width)", "1")],
        ["area(width)"],
    ),
    "another one accepted elsewhere": (
        [{"outcome": "rejected", "shown": "1", "final": None, "path": "c.py"}, {}],
        [],
        ["area(width)"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_users_kept_is_better_than_what_they_were_shown(case: str) -> None:
    rows, pairs, middles = CASES[case]
    learnt = learn([{**ROW, **row} for row in rows])
    assert [(pair.kind, pair.chosen, pair.rejected) for _, pair in learnt.pairs] == pairs
    assert [hole["middle"] for hole in learnt.holes] == middles
    assert learnt.counts["rows"] == len(rows)


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "an empty file", "an object store", "only escapes"])
def test_a_run_before_the_first_feedback_says_so_in_one_sentence(
    there: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = "memory://feedback-of-tomorrow" if there == "an object store" else str(tmp_path / "feedback")
    if there in ("an empty folder", "an empty file", "only escapes"):
        (tmp_path / "feedback/team-a").mkdir(parents=True)
    if there == "an empty file":
        (tmp_path / "feedback/team-a/1.jsonl").touch()
    if there == "only escapes":
        row = feedback_row.line({**ROW, "outcome": "rejected", "accepted_chars": 0, "final": None})
        (tmp_path / "feedback/team-a/1.jsonl").write_bytes(row)
    before = digests(folder)
    learnt = read(folder)
    assert (learnt.pairs, learnt.holes, learnt.counts["rows"]) == ([], [], there == "only escapes")
    assert "rows" in learnt.counts
    (sentence,) = [record.message for record in caplog.records]
    assert sentence.startswith("the feedback in" if there == "only escapes" else "there is no feedback in")
    assert digests(folder) == before


def test_pairs_have_the_columns_of_the_stage(tmp_path: Path) -> None:
    folder = tmp_path / "feed back" / "team-a"
    folder.mkdir(parents=True)
    before = digests(str(tmp_path))
    (folder / "1.jsonl").write_bytes(feedback_row.line({**ROW, "final": "area(2)"}) + b"{broken\n")
    assert digests(str(tmp_path)) != before
    learnt = read(str(tmp_path))
    rows = [preferences_stage._row(hole, pair, "user") for hole, pair in learnt.pairs]
    assert pa.Table.from_pylist(rows, SCHEMA).num_rows == 1
    assert rows[0]["context"][0]["score"] == 1.0
    assert read("").pairs == []
    assert digests("") == {}
