"""The budget of a prompt is the smaller of the model's and of what the engine was started with."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.predictor.transformers_engine import TransformersEngine
from serving.transformer import upstream
from serving.transformer.service import TokenLimits
from serving.transformer.service import TransformerService as Transformer
from tests.serving.conftest import CONTEXT, HTTP, Strangers, chunk, predicting, say, strange_predictor, transforming

LONG = {"prompt": "value = compute(circle)\n" * 400, "max_tokens": 64}


def vllm(context: int) -> dict[str, Any]:
    """vLLM's answer about two adapters and of their base; it knows no length of an adapter."""
    base = {"id": "base", "object": "model", "parent": None, "max_model_len": context}
    adapters = [{"id": name, "object": "model", "parent": "base", "max_model_len": None} for name in ("other", "mine")]
    return {"/v1/models": {"object": "list", "data": [base, *adapters]}}


def llama_cpp(context: int) -> dict[str, Any]:
    """What llama.cpp's server tells; `n_ctx_train` is the model's context, not the server's."""
    model = {"id": "model.gguf", "owned_by": "llamacpp", "meta": {"n_ctx_train": CONTEXT, "n_vocab": 512}}
    props = {"default_generation_settings": {"n_ctx": context}, "total_slots": 1}
    return {"/v1/models": {"models": [{"name": "x"}], "object": "list", "data": [model]}, "/props": props}


class Small:
    """A predictor that refuses what does not fit its context, which a test may change."""

    def __init__(self, strangers: Strangers, url: str, service: Transformer) -> None:
        self.strangers, self.url, self.service, self.context = strangers, url, service, CONTEXT
        strangers.behaviour = self._answer

    def start(self, context: int, pages: dict[str, Any] | None = None) -> None:
        self.context, self.strangers.pages = context, vllm(context) if pages is None else pages

    def _answer(self, connection: socket.socket) -> None:
        body = json.loads(self.strangers.requests[-1][1])
        if len(body["prompt"]) + body["max_tokens"] > self.context:
            say("400 Bad Request", '{"error": {"message": "maximum context length"}}')(connection)
        else:
            say("200 OK", chunk("x", "stop"), "text/event-stream")(connection)

    def prompt_tokens(self) -> int:
        response = HTTP.post(f"{self.url}/v1/completions", json=LONG)
        assert response.status_code == 200, response.text
        return int(response.json()["infill"]["prompt_tokens"])

    def limit(self) -> int:
        """The context that our own list of models tells."""
        return int(HTTP.get(f"{self.url}/v1/models").json()["data"][0]["max_model_len"])


@pytest.fixture
def small(model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Small]:
    monkeypatch.setattr(upstream, "KEEP_ALIVE_S", 3600.0)
    with strange_predictor(lambda _: None) as (predictor, strangers), transforming(model, predictor) as (url, service):
        yield Small(strangers, url, service)


@pytest.mark.parametrize("shape", [vllm, llama_cpp])
def test_a_smaller_engine_gets_smaller_prompts(small: Small, shape: Callable[[int], dict[str, Any]]) -> None:
    small.start(512, shape(512))
    assert 200 < small.prompt_tokens() <= 512 - 64
    entry = HTTP.get(f"{small.url}/v1/models").json()["data"][0]
    assert (entry["max_model_len"], entry["infill"]["max_prompt_tokens"]) == (512, 384)


@pytest.mark.parametrize("name", ["", "base", "mine", "unknown"])
def test_an_adapter_has_the_context_of_its_base(model: Path, name: str) -> None:
    with (
        strange_predictor(say("200 OK", chunk("x", "stop"), "text/event-stream")) as (predictor, strangers),
        transforming(model, predictor, upstream_name=name) as (url, service),
    ):
        small = Small(strangers, url, service)
        small.start(512)
        assert small.limit() == 512


UNKNOWN: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no list": {"/v1/models": 5},
    "no model": {"/v1/models": {"data": []}},
    "no length": {"/v1/models": {"data": [{"id": "a"}]}},
    "an odd length": {"/v1/models": {"data": [{"id": "a", "max_model_len": "many"}]}},
    "zero": {"/v1/models": {"data": [{"id": "a", "max_model_len": 0}]}},
    "larger": vllm(10 * CONTEXT),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_engine_that_says_nothing_gets_what_the_model_takes(small: Small, case: str) -> None:
    small.start(CONTEXT, UNKNOWN[case])
    assert small.prompt_tokens() > CONTEXT * 2 // 3


def test_an_engine_that_restarts_smaller_is_asked_again(small: Small) -> None:
    small.start(CONTEXT)
    assert small.prompt_tokens() > 1_000
    small.start(512)  # in between nothing broke: the refusal makes us ask
    assert small.prompt_tokens() <= 448
    small.start(1_024)
    small.strangers.behaviour = lambda _: None
    assert HTTP.post(f"{small.url}/v1/completions", json=LONG).status_code == 503
    small.strangers.behaviour = small._answer  # the connection broke: it is asked before the next prompt
    assert small.prompt_tokens() <= 960
    assert small.limit() == 1_024


def test_an_engine_that_restarts_larger_is_asked_as_soon_as_it_answers(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers nothing for a while, and then completions before it is asked again: its last word holds till then."""
    small.start(512)
    assert small.prompt_tokens() <= 448
    with monkeypatch.context() as patch:
        patch.setattr(upstream.Upstream, "_get", silent)
        small.service.upstream._current = False
        assert small.prompt_tokens() <= 448
    small.start(1_024)
    assert small.prompt_tokens() <= 448
    assert small.limit() == 512
    monkeypatch.setattr(upstream, "PAUSE_S", 0.0)
    assert small.limit() == 1_024


async def silent(self: upstream.Upstream, path: str, headers: upstream.Headers) -> None:
    """Wait in vain, as for a server that loads a model."""
    self._failed = time.monotonic()


def test_a_refusal_for_another_reason_is_reported(small: Small) -> None:
    small.start(512)
    small.strangers.behaviour = say("400 Bad Request", '{"message": "no such model"}')
    response = HTTP.post(f"{small.url}/v1/completions", json=LONG)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "predictor_error")
    assert len(small.strangers.requests) == 1


def test_our_predictor_tells_its_context(
    model: Path, engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "context_length", 300)
    with predicting(model, engine) as predictor, transforming(model, predictor) as (url, _):
        response = HTTP.post(f"{url}/v1/completions", json=LONG)
        assert response.status_code == 200
        assert 100 < response.json()["infill"]["prompt_tokens"] <= 225


@given(prompt=st.integers(1, 9_000), new=st.integers(1, 500), context=st.none() | st.integers(2, 10_000))
def test_limits_fit_the_context_and_never_grow(prompt: int, new: int, context: int | None) -> None:
    limits = TokenLimits(prompt=prompt, new=new).within(context)
    assert 1 <= limits.prompt <= prompt
    assert 1 <= limits.new <= new
    assert context is None or limits.prompt + limits.new <= context or limits == TokenLimits(prompt=prompt, new=new)
