"""The people that the experiment on sources of preferences simulates: they do what their rules say."""

from pathlib import Path

import pytest

from benchmarks.simulated_people import RATERS, decide, rate
from infill.artifacts import rating
from tests.unit.rating import rating_sets


@pytest.mark.parametrize(
    ("shown", "done"),
    [
        ("return width * height\n", "accepted"),
        ("return width + height", "corrected"),
        ("return width * height\nmore()", "corrected"),
        ("self.close()", "rejected"),
    ],
)
def test_a_typist_accepts_corrects_or_passes_over_by_the_first_line(shown: str, done: str) -> None:
    assert decide(shown, "return width * height") == done


def test_raters_choose_through_the_page_by_their_rules(tmp_path: Path) -> None:
    folder = rating_sets.build(tmp_path)
    items = {item["id"]: item for item in rating.read_items(str(folder))}
    rate(folder, {f"{number:04d}": f"return size * {number}" for number in range(6)})
    by_rater: dict[str, dict[str, str]] = {name: {} for name in RATERS}
    for row in rating.read_ratings(str(folder)):
        by_rater[row["rater"]][row["item"]] = row["choice"]
    right = {
        name: next(side for side in ("first", "second") if items[name][side].startswith("return")) for name in items
    }
    assert by_rater["author"] == right
    assert set(by_rater["hasty"]) == set(right)
    assert by_rater["reader"] == {
        name: "first" if item["second"].startswith("return") else "second" for name, item in items.items()
    }, "the stub has more names of the excerpt, whose next function has the same comment"
