"""Rating sets, the server without a browser, and agreement."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from infill import storage
from infill.artifacts import evaluation
from infill.artifacts import rating as artifact
from infill.artifacts.rating import EQUAL, EVALUATIONS, FIRST, SECOND, SKIP
from infill.errors import InputError
from infill.rating.rater_agreement import alpha, summary
from infill.rating.rating_items import RatingConfig, left_of, of_evaluations, of_pairs
from infill.rating.rating_server import RatingSession, application
from tests import builders
from tests.unit.rating import rating_sets
from tests.unit.report import pipeline

JSON = {"content-type": "application/json"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return rating_sets.build(tmp_path)


def _client(folder: Path, rater: str = "ada") -> TestClient:
    return TestClient(application(RatingSession(folder, rater)), base_url="http://localhost")


def _rate(client: TestClient, number: int, choice: str) -> Any:
    return client.post(f"/items/{number}", content=json.dumps({"choice": choice, "seconds": 1.26}), headers=JSON).json()


def test_pairs_whose_texts_are_alike_are_no_items(folder: Path) -> None:
    items = artifact.read_items(str(folder))
    assert len(items) == 6
    assert all(item[item["judged"]].startswith("return size *") for item in items)
    assert {item["judged"] for item in items} == {FIRST, SECOND}


def test_a_rater_sees_no_name_and_the_first_completion_on_both_sides(tmp_path: Path) -> None:
    client = _client(rating_sets.build(tmp_path, 40))
    shown = [client.get(f"/items/{number}").json() for number in range(40)]
    lefts = sum(item["left"].startswith("return") for item in shown)
    assert 10 < lefts < 30
    assert set(shown[0]) == {"number", "path", "language", "before", "after", "left", "right", "choice"}
    assert shown[0]["before"].count("\n") == 39
    assert any(left_of(0, "ada", str(n)) != left_of(0, "bob", str(n)) for n in range(20))


def test_a_choice_is_stored_by_completion_and_not_by_side(folder: Path) -> None:
    client = _client(folder)
    for number, side in enumerate(("left", "right", EQUAL, SKIP)):
        state = _rate(client, number, side)
    assert (state["rated"], state["next"]) == (4, 4)
    items, ratings = artifact.read_items(str(folder)), artifact.read_ratings(str(folder))
    by_item = {rating["item"]: rating for rating in ratings}
    left, right = by_item[items[0]["id"]], by_item[items[1]["id"]]
    assert left["choice"] == left["left"]
    assert {right["choice"], right["left"]} == {FIRST, SECOND}
    assert left["seconds"] == 1.3


def test_a_rater_continues_and_may_change_a_choice(folder: Path) -> None:
    _rate(_client(folder), 0, "left")
    again = _client(folder)
    assert again.get("/state").json()["next"] == 1
    assert again.get("/items/0").json()["choice"] == "left"
    _rate(again, 0, "right")
    (rating,) = artifact.read_ratings(str(folder))
    assert rating["choice"] != rating["left"]
    assert _client(folder, "bob").get("/state").json()["next"] == 0


def test_a_line_that_a_kill_cut_off_costs_itself(folder: Path) -> None:
    _rate(_client(folder), 0, "left")
    file = folder / "ratings" / "ada.jsonl"
    file.write_bytes(file.read_bytes() + b'{"version":1,"rater":"ada","it')
    assert len(artifact.read_ratings(str(folder))) == 1
    _rate(_client(folder), 1, EQUAL)
    assert len(artifact.read_ratings(str(folder))) == 2


def test_ratings_of_a_later_version_are_refused(folder: Path) -> None:
    row = {"version": 2, "rater": "ada", "item": "x", "left": FIRST, "choice": FIRST}
    storage.write_bytes(str(folder / "ratings" / "ada.jsonl"), json.dumps(row).encode())
    with pytest.raises(InputError, match="has version 2 of ratings"):
        artifact.read_ratings(str(folder))


@pytest.mark.parametrize(
    ("number", "body", "headers"),
    [
        (0, '{"choice": "left", "seconds": 1}', {"content-type": "text/plain"}),  # as a form of another site
        (0, '{"choice": "first", "seconds": 1}', JSON),
        (0, '{"choice": "left", "seconds": NaN}', JSON),
        (0, '{"choice": "left"}', JSON),
        (0, "[", JSON),
        (0, " " * 5_000, JSON),
        (99, '{"choice": "left", "seconds": 1}', JSON),
    ],
)
def test_what_is_not_a_rating_is_refused(folder: Path, number: int, body: str, headers: dict[str, str]) -> None:
    response = _client(folder).post(f"/items/{number}", content=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]
    assert artifact.read_ratings(str(folder)) == []


def test_another_sites_name_for_this_machine_is_refused(folder: Path) -> None:
    client = _client(folder)
    assert client.get("/state", headers={"host": "evil.example"}).status_code == 400
    assert client.get("/static/..%2frating_server.py").status_code == 404
    assert "default-src 'none'" in client.get("/").headers["content-security-policy"]


def test_a_rater_hears_of_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = RatingSession(folder, "ada")
    client = TestClient(application(session), base_url="http://localhost")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(session, "_file", type("Full", (), {"rater": "ada", "add": full})())
    response = client.post("/items/0", content='{"choice": "left", "seconds": 1}', headers=JSON)
    assert (response.status_code, "No space" in response.json()["error"]) == (507, True)
    assert session.state()["rated"] == 0


def _evaluation(folder: Path, outputs: list[str], benchmark: str = "holes") -> str:
    rows = [{"id": f"{number:04d}", "output": output, "eot_rate": 1.0} for number, output in enumerate(outputs)]

    def body() -> dict[str, float]:
        evaluation.write(str(folder), {"benchmark_digest": benchmark}, pa.Table.from_pylist(rows))
        return {}

    builders.once(stage="evaluate", output=str(folder), body=body)
    return str(folder)


def test_two_models_are_compared_where_they_differ(tmp_path: Path) -> None:
    examples = pipeline.write(tmp_path / "run")["examples"]
    right, config = "return self.size * scale", RatingConfig()
    good = _evaluation(tmp_path / "good", [right, right, right])
    bad = _evaluation(tmp_path / "bad", [right, "pass", "return self.size * scal"])
    other = _evaluation(tmp_path / "other", [right, "pass", ""], benchmark="other holes")
    of_evaluations(config, examples, [good, bad], str(tmp_path / "rating"))
    items = {item["id"]: item for item in artifact.read_items(str(tmp_path / "rating"))}
    assert set(items) == {"0001", "0002"}
    assert {item["origin"] for item in items.values()} == {artifact.EVALUATIONS}
    assert items["0001"]["judged"] == FIRST
    with pytest.raises(InputError, match="in 3 places no completion differs"):
        of_evaluations(config, examples, [good, good], str(tmp_path / "same"))
    with pytest.raises(InputError, match="evaluate both models alike"):
        of_evaluations(config, examples, [good, other], str(tmp_path / "unlike"))
    with pytest.raises(InputError, match="name one of the stage preferences"):
        of_pairs(config, good, str(tmp_path / "wrong"))


KRIPPENDORFF = [
    *("1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3"),
    *(". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."),
]
"""The example of Krippendorff 2011, section C: four observers, twelve units, alpha 0.743."""


def test_alpha_is_that_of_the_published_example() -> None:
    units = [[value for value in unit if value != "."] for unit in zip(*map(str.split, KRIPPENDORFF), strict=True)]
    assert alpha(units) == pytest.approx(0.743, abs=5e-4)
    assert alpha([["a", "a"], ["b", "b"]]) == 1.0
    assert math.isnan(alpha([["a", "a"], ["a"]]))


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=4), max_size=8))
def test_alpha_does_not_depend_on_the_order_of_raters_and_is_at_most_1(units: list[list[str]]) -> None:
    value = alpha(units)
    assert math.isnan(value) or value <= 1 + 1e-12
    assert alpha([list(reversed(unit)) for unit in units]) == pytest.approx(value, nan_ok=True)


def test_raters_are_compared_with_each_other_and_with_the_judge(folder: Path) -> None:
    items = [{**item, "judged": FIRST, "origin": EVALUATIONS} for item in artifact.read_items(str(folder))]
    votes = {"ada": [FIRST, FIRST, SECOND, SKIP], "bob": [FIRST, SECOND, SECOND], "eve": [FIRST, FIRST, SECOND]}
    ratings = [
        {"rater": rater, "item": items[number]["id"], "left": FIRST, "choice": choice}
        for rater, choices in votes.items()
        for number, choice in enumerate(choices)
    ]
    result = summary(items, ratings)
    assert (result["items"], result["rated"], result["skipped"]) == (6, 3, 1)
    assert result["between_raters"]["agree"]["value"] == pytest.approx(7 / 9)
    assert result["with_judge"]["agree"]["value"] == pytest.approx(2 / 3)
    assert result["first_preferred"]["value"] == pytest.approx(2 / 3)
    assert result["left_preferred"]["n"] == 9
    nothing = summary(items, [])
    assert json.loads(json.dumps(nothing, allow_nan=False))["with_judge"]["alpha"]["value"] is None
