"""Half-typed words over HTTP: an answer is the rest of the word that the model would write."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.prompt import FimRequest, heal, load_encoder, load_format, render
from serving.predictor.transformers_engine import TransformersEngine
from serving.transformer.upstream import BEGINNINGS
from tests.serving.conftest import HTTP, Strangers, chunk, predicting, say, strange_predictor, transforming

CARET: dict[str, Any] = {
    "path": "a.py",
    "prompt": "def f(value):\n    retu",
    "suffix": "\n",
    "max_tokens": 6,
    "stop_at_unit": False,
}
END = "data: [DONE]\n\n"
MODELS = {"data": [{"id": "m", "max_model_len": 512, "begins_with": True}]}


def ask(url: str, **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = HTTP.post(f"{url}/v1/completions", json=CARET | fields).raise_for_status().json()
    return body


def test_a_prompt_without_its_last_token_and_the_text_of_that(model: Path) -> None:
    fmt, encoder = load_format(model), load_encoder(model)
    ids = render(fmt, encoder.encode, FimRequest(path="a.py", prefix="x = retu", suffix="")).ids
    shorter, text = heal(fmt, encoder, ids)
    assert text in {"retu", " retu"}
    assert encoder.decode(shorter).endswith("x = retu".removesuffix(text))
    assert [token for token in shorter if token in encoder.control] == [
        token for token in ids if token in encoder.control
    ]
    for prefix in ("", "x = ", "x(", "x\n"):
        ids = render(fmt, encoder.encode, FimRequest(path="a.py", prefix=prefix, suffix="y")).ids
        assert heal(fmt, encoder, ids) == (ids, "")


def test_the_answer_is_the_rest_of_what_the_predictor_writes(model: Path, engine: TransformersEngine) -> None:
    with predicting(model, engine) as predictor, transforming(model, predictor) as (url, service):
        request = FimRequest(path=CARET["path"], prefix=CARET["prompt"], suffix=CARET["suffix"])
        encoder = service.packer.encoder
        ids, text = heal(service.packer.fmt, encoder, render(service.packer.fmt, encoder.encode, request).ids)
        body = {"prompt": ids, "begins_with": text, "max_tokens": 7, "temperature": 0}
        direct = HTTP.post(f"{predictor}/v1/completions", json=body).raise_for_status().json()
        answer = ask(url)["choices"][0]["text"]
        assert answer
        assert (text + answer).startswith(direct["choices"][0]["text"])


@pytest.fixture(scope="module")
def strange(model: Path) -> Iterator[tuple[str, Strangers]]:
    with strange_predictor(say("200 OK", END, "text/event-stream")) as (predictor, strangers):
        strangers.pages["/v1/models"] = MODELS
        with transforming(model, predictor) as (url, _):
            yield url, strangers


def test_the_beginning_is_asked_for_and_removed(strange: tuple[str, Strangers]) -> None:
    url, strangers = strange

    def answer(connection: socket.socket) -> None:
        text = json.loads(strangers.requests[-1][1])["begins_with"] + "rn value"
        body = "".join(map(chunk, text)) + chunk("", "stop") + END
        say("200 OK", body, "text/event-stream")(connection)

    strangers.behaviour = answer
    assert ask(url)["choices"][0]["text"] == "rn value"
    assert ask(url, stop=["retu", "u", "al"])["choices"][0]["text"] == "rn v"
    sent = json.loads(strangers.requests[-1][1])
    assert sent["max_tokens"] > CARET["max_tokens"]
    assert CARET["prompt"].endswith(sent["begins_with"])
    for fields in ({"ignore_eos": True}, {"prompt": "x = "}):
        strangers.behaviour = say("200 OK", chunk("y", "stop") + END, "text/event-stream")
        ask(url, **fields)
        assert "begins_with" not in json.loads(strangers.requests[-1][1])


@given(st.text())
def test_the_expression_for_vllm_matches_its_text_and_escapes_nothing_but_signs(text: str) -> None:
    expression = BEGINNINGS["vllm"](text)["structured_outputs"]["regex"]
    assert re.fullmatch(expression, text + "more\n") is not None
    assert re.fullmatch(expression, "x" + text) is None or text in ("", "x" * len(text))
    assert set(re.findall(r"\\(.)", expression.removesuffix(r"[\s\S]*"), re.DOTALL)) <= set(r"\.^$*+?{}()|[]")


def test_a_predictor_that_ignores_the_beginning_is_not_asked_again(model: Path) -> None:
    behaviour = say("200 OK", chunk("other", "stop") + END, "text/event-stream")
    with strange_predictor(behaviour) as (predictor, strangers), transforming(model, predictor) as (url, _):
        strangers.pages["/v1/models"] = {"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 512}]}
        refused = HTTP.post(f"{url}/v1/completions", json=CARET)
        assert (refused.status_code, refused.json()["error"]["code"]) == (502, "bad_predictor_answer")
        sent = json.loads(strangers.requests[-1][1])
        assert sent["structured_outputs"]["regex"].endswith(r"[\s\S]*")
        assert ask(url)["choices"][0]["text"] == "other"
        assert "structured_outputs" not in json.loads(strangers.requests[-1][1])
