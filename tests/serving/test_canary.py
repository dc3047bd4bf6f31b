"""A candidate next to the stable predictor: who gets it, who answers for it, when it is rolled back, its shadow."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.local import free_port
from serving.predictor.transformers_engine import TransformersEngine
from serving.transformer.canary import CanaryRules, RequestOutcome, SideWindow, place, slower, verdict
from serving.transformer.service import TransformerService
from serving.transformer.transformer_config import TransformerConfig
from tests.serving.conftest import HTTP, Strangers, chunk, predicting, say, strange_predictor, transforming, wait_until

STREAM = "text/event-stream"
RULES = CanaryRules(requests=20, window_s=60, errors=0.02, latency=1.5, acceptance=0.05)


def speaks(text: str) -> Callable[[socket.socket], None]:
    return say("200 OK", chunk(text, "stop") + "data: [DONE]\n\n", STREAM)


def slowly(connection: socket.socket) -> None:
    time.sleep(0.2)
    speaks("slow")(connection)


FAILS = say("500 Internal Server Error", "{}")
BREAKS_OFF = say("200 OK", chunk("half"), STREAM)


class Pair:
    """A transformer with two predictors that say what a test sets."""

    def __init__(self, url: str, service: TransformerService, stable: Strangers, candidate: Strangers) -> None:
        self.url, self.service, self.stable, self.candidate = url, service, stable, candidate

    def ask(self, session: str = "", **fields: Any) -> httpx.Response:
        body = {"prompt": "def f(", "path": "a.py", "max_tokens": 4, "session": session, **fields}
        return HTTP.post(f"{self.url}/v1/completions", json=body)

    def texts(self, sessions: int) -> list[str]:
        return [self.ask(str(number)).json()["choices"][0]["text"] for number in range(sessions)]

    def value(self, metric: str, *labels: str) -> float:
        assert self.service.sides is not None
        metric_of = getattr(self.service.sides.metrics, metric)
        return float((metric_of.labels(*labels) if labels else metric_of)._value.get())

    @property
    def state(self) -> Any:
        assert self.service.sides is not None
        return self.service.sides.state


@contextmanager
def paired(model: Path, **settings: Any) -> Iterator[Pair]:
    with strange_predictor(speaks("stable")) as (first, stable), strange_predictor(speaks("new")) as (second, new):
        stable.pages = new.pages = {"/v1/models": {"data": []}}
        options = {"candidate_predictor": second, "canary_requests": 20, **settings}
        with transforming(model, first, **options) as (url, service):
            assert service.sides is not None
            state = service.sides.state
            wait_until(lambda: state.ready)
            yield Pair(url, service, stable, new)


# -- The policy


@given(st.text(), st.floats(0, 100), st.floats(0, 100))
def test_a_larger_weight_only_adds_users(key: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert (place(key) < small) <= (place(key) < large)
    assert 0 <= place(key) < 100 or place(key) == pytest.approx(100)


@pytest.mark.parametrize("weight", [1, 10, 50, 90])
def test_the_share_of_users_is_the_weight(weight: float) -> None:
    share = sum(place(f"user {number}") < weight for number in range(20_000)) / 200
    assert share == pytest.approx(weight, abs=1.5)


def window(failed: int = 0, total: int = 0, seconds: float = 1.0) -> SideWindow:
    side = SideWindow(seconds=60, clock=lambda: 100.0)
    side.outcomes.extend((90.0, RequestOutcome(number < failed, seconds)) for number in range(total))
    return side


@pytest.mark.parametrize(
    ("stable", "candidate", "reason"),
    [
        (window(0, 100), window(30, 100), "errors"),
        (window(30, 100), window(30, 100), ""),
        (window(0, 100), window(1, 100), ""),
        (window(0, 100), window(19, 19), ""),
        (window(0, 19), window(100, 100), ""),
        (window(0, 100, 1.0), window(0, 100, 1.6), "latency"),
        (window(0, 100, 1.0), window(0, 100, 1.4), ""),
        (window(0, 100, 1.0), window(0, 100, 0.1), ""),
    ],
)
def test_only_what_is_significantly_worse_is_rolled_back(
    stable: SideWindow, candidate: SideWindow, reason: str
) -> None:
    assert verdict(stable, candidate, RULES) == reason


def test_what_is_older_than_the_window_does_not_count() -> None:
    old = window(100, 100)
    old.clock = lambda: 1_000.0
    assert verdict(window(0, 100), old, RULES) == ""


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200))
def test_equal_sides_are_never_slower(seconds: list[float]) -> None:
    outcomes = [RequestOutcome(False, each) for each in seconds]
    assert not slower(outcomes, outcomes, 1.0)


# -- In the transformer


def test_users_stay_on_their_side_and_each_answer_names_its_model(model: Path) -> None:
    with paired(model, canary_weight=50.0) as pair:
        first = pair.texts(20)
        wanted = ["new" if place(f"\0{number}") < 50 else "stable" for number in range(20)]
        assert first == wanted == pair.texts(20)
        assert {"new", "stable"} == set(first)
        models = {pair.ask(str(number)).json()["model"] for number in range(20)}
        assert models == {"tiny", "candidate"}
        assert pair.value("requests", "candidate", "candidate", "answered") == 3 * first.count("new")


def test_a_candidate_that_was_never_there_gets_nothing(model: Path) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    with strange_predictor(speaks("stable")) as (stable, strangers):
        settings = {"candidate_predictor": gone, "canary_weight": 100.0}
        with transforming(model, stable, **settings) as (url, service):
            pair = Pair(url, service, strangers, strangers)
            assert pair.texts(3) == ["stable"] * 3
            assert pair.value("fallbacks") == 0


@pytest.mark.parametrize("behaviour", [FAILS, lambda _: None, say("503 Service Unavailable", "")])
def test_the_stable_model_takes_over_before_the_first_token(model: Path, behaviour: Any) -> None:
    with paired(model, canary_weight=100.0) as pair:
        pair.candidate.behaviour = behaviour
        assert pair.texts(1) == ["stable"]
        assert pair.value("fallbacks") == 1
        assert pair.value("requests", "candidate", "candidate", "failed") == 1


def test_a_candidate_that_dies_in_the_middle_is_an_error_of_this_request_and_counts(model: Path) -> None:
    with paired(model, canary_weight=100.0) as pair:
        pair.candidate.behaviour = BREAKS_OFF
        stream = pair.ask("a", stream=True).text
        assert "half" in stream
        assert "predictor_unavailable" in stream
        assert pair.value("requests", "candidate", "candidate", "failed") == 1


@pytest.mark.parametrize(("behaviour", "reason"), [(FAILS, "errors"), (slowly, "latency")], ids=["fails", "slow"])
def test_a_worse_candidate_is_rolled_back_for_good(
    model: Path, behaviour: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with paired(model, canary_weight=50.0, canary_requests=10) as pair:
        pair.candidate.behaviour = behaviour
        for turn in range(4):
            answers = pair.texts(20)
            assert "new" not in answers
            if turn and pair.state.rolled_back:
                break
        assert (pair.state.rolled_back, pair.state.weight) == (reason, 0)
        pair.candidate.behaviour = speaks("new")
        assert pair.texts(20) == ["stable"] * 20
        assert (pair.value("rollbacks", reason), pair.value("weight")) == (1, 0)
        assert [record.getMessage() for record in caplog.records if "rolled back" in record.getMessage()] == [
            f"the candidate is rolled back: {reason} worse than the stable model's"
        ]


def test_a_candidate_whose_suggestions_are_refused_is_rolled_back(model: Path) -> None:
    with paired(model, canary_weight=50.0, telemetry="metrics") as pair:
        for number in range(80):
            answer = pair.ask(str(number)).json()
            kind = "select" if answer["model"] == "tiny" else "dismiss"
            event = {"type": kind, "completion_id": answer["id"]}
            assert HTTP.post(f"{pair.url}/v1/events", json=event).status_code == 200
        pair.texts(1)
        assert pair.state.rolled_back == "acceptance"
        assert pair.service.telemetry.counts.rejected.labels("python", "candidate", "none")._value.get() > 0


def test_the_shadow_is_compared_and_never_seen(model: Path) -> None:
    with paired(model, shadow_requests=1) as pair:
        for behaviour, ended in ((speaks("stable"), "same"), (speaks("new"), "different"), (FAILS, "failed")):
            pair.candidate.behaviour = behaviour
            assert pair.texts(1) == ["stable"]
            wait_until(lambda ended=ended: pair.value("shadows", ended) == 1)  # type: ignore[misc]
        assert len(pair.candidate.requests) == 3


def test_a_shadow_beyond_the_allowed_number_is_dropped_and_one_without_user_cancelled(model: Path) -> None:
    with paired(model, shadow_requests=1) as pair:
        pair.candidate.behaviour = lambda _: time.sleep(1)
        pair.texts(2)
        assert pair.value("shadows", "dropped") == 1

    def endless(connection: socket.socket) -> None:
        say("200 OK", chunk("a"), STREAM)(connection)
        time.sleep(1)

    with paired(model, shadow_requests=1) as pair:
        pair.candidate.behaviour, pair.stable.behaviour = endless, endless
        body = {"prompt": "def f(", "stream": True}
        with HTTP.stream("POST", f"{pair.url}/v1/completions", json=body) as answer:
            next(answer.iter_bytes())
        wait_until(lambda: pair.value("shadows", "cancelled") == 1)


def test_two_real_predictors_answer_alike_without_sharing_sessions(model: Path, engine: TransformersEngine) -> None:
    with predicting(model, engine) as predictor:
        settings = {"candidate_predictor": predictor, "candidate_model": str(model), "shadow_requests": 4}
        with transforming(model, predictor, **settings) as (url, service):
            assert service.sides is not None
            assert service.candidate is not None
            state, metrics = service.sides.state, service.sides.metrics
            wait_until(lambda: state.ready)
            body = {"prompt": "def f(", "max_tokens": 4, "session": "s", "temperature": 0}
            assert HTTP.post(f"{url}/v1/completions", json=body).status_code == 200
            wait_until(lambda: metrics.shadows.labels("same")._value.get() == 1)
            assert service.packer.sessions is not service.candidate.packer.sessions


@pytest.mark.parametrize(
    "settings",
    [
        {"canary_weight": 5.0},
        {"candidate_predictor": "localhost:1"},
        {"candidate_predictor": "http://a", "canary_weight": 101.0},
        {"candidate_predictor": "http://a", "canary_weight": float("nan")},
        {"candidate_predictor": "http://a", "candidate_name": "infill"},
        {"candidate_predictor": "http://a", "canary_latency": 0.5},
        {"candidate_predictor": "http://a", "shadow_requests": -1},
    ],
    ids=str,
)
def test_settings_of_a_canary_without_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"candidate|canary|shadow"):
        TransformerConfig(model="m", **settings)
