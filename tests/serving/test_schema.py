"""The whole request schema: what passes validation is answered, the rest is refused by name, and nothing hurts."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from serving.predictor.transformers_engine import TransformersEngine
from serving.protocol import ApiError, Sampling, read_sampling, unknown_fields
from serving.transformer.request import FIELDS, read_request
from tests.properties import examples
from tests.serving.conftest import HTTP, figure, predicting, transforming

PROMPT = [40, 41, 42]
slow = examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])

numbers = st.one_of(
    st.sampled_from([0, 1, -1, 2, 16.0, 1e-40, 5e-324, 1e-300, 1e308, -0.0, 2**31, 2**63, 2**64, 10**400, True, False]),
    st.floats(),
    st.integers(),
)
texts = st.text(st.characters() | st.sampled_from("\ud800\udc00\0\n"), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
) | st.integers(1, 900).map(lambda depth: json.loads("[" * depth + "]" * depth))
likely: dict[str, st.SearchStrategy[Any]] = {
    "max_tokens": st.integers(1, 3),
    "max_completion_tokens": st.integers(1, 3),
    "temperature": st.floats(0, 2) | st.sampled_from([5e-324, 1e-40, 1e-300]),
    "top_p": st.floats(0, 1) | st.sampled_from([5e-324, 1e-300]),
    "seed": st.integers() | st.sampled_from([2**64 - 1, 2**64, -(2**63), 10**30]),
    "stop": texts | st.lists(texts, max_size=30),
    "stop_token_ids": st.lists(st.integers(0, 2**31 - 1), max_size=80),
    "ignore_eos": st.booleans(),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
    "n": st.sampled_from([1, 1.0]),
    "best_of": st.just(1),
    "echo": st.just(False),
    "logprobs": st.just(False),
    "logit_bias": st.just({}),
    "frequency_penalty": st.sampled_from([0, 0.0, -0.0]),
    "presence_penalty": st.just(0),
    "suffix": texts,
    "path": st.text(st.characters(exclude_characters="\n\r"), max_size=8),
    "context": st.lists(st.fixed_dictionaries({"path": st.just("a.py"), "text": texts}), max_size=2),
    "recent": st.lists(st.just("a.py"), max_size=3),
    "project": texts,
    "session": texts,
    "user": texts,
    "tokenizer": texts,
    "model": json_values,
}


def requests(values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Requests with some of those fields."""
    return st.fixed_dictionaries({}, optional={name: st.none() | value for name, value in values.items()})


valid, odd = (
    requests(likely),
    requests({**dict.fromkeys(likely, json_values), "prompt": json_values, "other": json_values}),
)


@pytest.fixture(scope="module")
def stack(model: Path, engine: TransformersEngine) -> Iterator[tuple[str, str]]:
    """Addresses of a transformer and of its predictor."""
    limits = {"max_prompt_tokens": 128, "max_new_tokens": 3}
    with predicting(model, engine) as predictor, transforming(model, predictor, **limits) as (url, _):
        yield url, predictor


def post(url: str, body: dict[str, Any]) -> httpx.Response:
    return HTTP.post(f"{url}/v1/completions", content=json.dumps(body))


def check_health(predictor: str) -> None:
    assert HTTP.get(f"{predictor}/v2/health/ready").status_code == 200
    assert figure(predictor, 'infill_predictor_requests_total{outcome="failed"}') == 0


@slow
@given(fields=valid)
def test_a_valid_request_is_answered(stack: tuple[str, str], fields: dict[str, Any]) -> None:
    url, predictor = stack
    for address, prompt in ((url, "x = "), (predictor, PROMPT)):
        response = post(address, {"max_tokens": 2, **fields, "prompt": prompt})
        assert response.status_code == 200, response.text
        assert '"error"' not in response.text
    check_health(predictor)


@slow
@given(fields=odd)
def test_an_odd_request_is_answered_or_refused_by_name(stack: tuple[str, str], fields: dict[str, Any]) -> None:
    url, predictor = stack
    for address, prompt in ((url, "x = "), (predictor, PROMPT)):
        response = post(address, {"prompt": prompt, "max_tokens": 2, **fields})
        assert response.status_code in (200, 400), response.text
        if response.status_code == 400:
            assert set(response.json()["error"]) == {"message", "type", "code", "param"}
            assert len(response.json()["error"]["message"]) < 500
    check_health(predictor)


def test_a_tiny_temperature_is_greedy(stack: tuple[str, str]) -> None:
    _, predictor = stack
    bodies = [{"prompt": PROMPT, "temperature": value, "max_tokens": 8, "ignore_eos": True} for value in (0, 1e-40)]
    greedy, tiny = (post(predictor, body).json()["choices"] for body in bodies)
    assert tiny == greedy


REFUSED: dict[str, Any] = {
    "logprobs": [0, 1, True],
    "echo": [0, True, "false"],
    "n": [True, 2, 0, "1"],
    "best_of": [True, 3],
    "frequency_penalty": [False, 0.5],
    "presence_penalty": [1],
    "logit_bias": [{"5": 1}, []],
    "max_tokens": [0, -1, 1.5, True, "5", math.inf],
    "temperature": [-1, 2.1, 1e308, math.nan, True, "1"],
    "top_p": [-1e-9, 1.1],
    "seed": [1.5, True, "7"],
    "stop": [5, [None], [5], {"a": 1}, "x" * 16_385],
    "stop_token_ids": [[-1], [2**31], [True], "a"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_a_value_that_means_something_else_here_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ApiError, match=f"'{name}'") as caught:
        read_sampling({name: value}, Sampling())
    assert (caught.value.status, caught.value.param) == (400, name)


STOPS: list[tuple[Any, tuple[str, ...]]] = [
    (None, ()),
    ("", ()),
    ([], ()),
    ("\n", ("\n",)),
    (["", "a", "", "a", "b"], ("a", "b")),
    ([f"stop {number}" for number in range(200)], tuple(f"stop {number}" for number in range(200))),
]


@pytest.mark.parametrize(("given_stop", "meant"), STOPS, ids=lambda value: str(value)[:20])
def test_stops_as_openai_compatible_servers_take_them(given_stop: Any, meant: tuple[str, ...]) -> None:
    assert read_sampling({"stop": given_stop}, Sampling()).stop == meant


def test_the_newer_name_of_max_tokens_wins() -> None:
    assert read_sampling({"max_completion_tokens": 7}, Sampling()).max_tokens == 7
    assert read_sampling({"max_completion_tokens": 7, "max_tokens": 9}, Sampling()).max_tokens == 7
    assert read_sampling({"max_completion_tokens": None, "max_tokens": 9.0}, Sampling()).max_tokens == 9


def test_an_ignored_field_is_reported_with_the_nearest_known_one(stack: tuple[str, str]) -> None:
    url, predictor = stack
    fields = {"max_tokens": 1, "temprature": 0, "top_k": 5, "cache_prompt": True}
    for address, prompt in ((url, "x"), (predictor, PROMPT)):
        warnings = post(address, {"prompt": prompt, **fields}).json()["infill"]["warnings"]
        assert warnings[0] == "unknown field 'temprature' is ignored; did you mean 'temperature'?"
        assert len(warnings) == 3
        stream = post(address, {"prompt": prompt, "stream": True, **fields}).text
        assert warnings == json.loads(stream.split("\n")[0].removeprefix("data: "))["infill"]["warnings"]
    assert post(url, {"prompt": "x", "max_tokens": 1}).json()["infill"]["warnings"] == []
    assert len(unknown_fields({f"field {number}": 0 for number in range(1_000)}, FIELDS)) <= 16


def test_a_session_may_be_named_by_any_text() -> None:
    assert read_request({"prompt": "", "session": "\ud800"}, 5).session == "\ufffd"


ODD_HEADERS: dict[str, bytes] = {
    "authorization": "Bearer größe".encode(),
    "traceparent": b"00-\xff\xfe-01",
    "x-b3-traceid": "日本".encode(),
    "x-request-id": "é".encode("latin-1"),
    "x-forwarded-for": b"\xe9",
    "user-agent": b"\xff",
    "accept": b"\xff",
    "content-type": b"\xff",
}


@pytest.mark.parametrize("name", ODD_HEADERS)
def test_header_values_that_are_no_ascii_are_taken(stack: tuple[str, str], name: str) -> None:
    for url, prompt in zip(stack, ("x", PROMPT), strict=True):
        body = json.dumps({"prompt": prompt, "max_tokens": 1})
        headers = [(name.encode(), ODD_HEADERS[name])]
        response = HTTP.post(f"{url}/v1/completions", content=body, headers=headers)
        assert response.status_code == 200, response.text
        assert response.headers["x-request-id"].isascii()
        assert HTTP.get(f"{url}/v1/models", headers=headers).status_code == 200
