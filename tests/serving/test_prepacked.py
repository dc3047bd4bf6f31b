"""Prompts that the client packs itself: the tokenizer that it fetches, and the token ids that it sends back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infill.context import ProjectIndex, retrieve
from infill.context.packing import pack
from infill.prompt import Encoder, FimRequest, PromptFormat, load_encoder
from serving.predictor.transformers_engine import TransformersEngine
from serving.transformer.service import TransformerService
from tests.serving.conftest import HTTP, chunk, predicting, say, strange_predictor, transforming

BUDGET = 512
FILES = [
    {
        "path": "package/circle.py",
        "text": "class Circle:\n    size: int\n\n    def area(self):\n        return self.size\n",
    },
    {"path": "package/read.py", "text": "def read_circles(folder):\n    return [Circle() for name in folder]\n"},
]
CARET: dict[str, Any] = {
    "path": "package/largest.py",
    "prefix": "def largest_circle(circles):\n    best = ",
    "suffix": "\n    return best\n",
}


@pytest.fixture(scope="module")
def stack(model: Path, engine: TransformersEngine) -> Iterator[tuple[str, TransformerService]]:
    limits = {"max_prompt_tokens": BUDGET, "max_new_tokens": 16}
    with predicting(model, engine) as predictor, transforming(model, predictor, **limits) as (url, service):
        yield url, service


@pytest.fixture(scope="module")
def url(stack: tuple[str, TransformerService]) -> str:
    return stack[0]


def answer_of(url: str) -> dict[str, Any]:
    value: dict[str, Any] = HTTP.get(f"{url}/v1/models").json()["data"][0]["infill"]
    return value


def packed_here(url: str) -> list[int]:
    """The ids of the caret's prompt, packed with nothing but what the server tells."""
    limits, tokenizer = answer_of(url), HTTP.get(f"{url}/v1/tokenizer").json()
    fmt, encode = PromptFormat.from_json(tokenizer["prompt_format"]), Encoder(tokenizer["tokenizer"]).encode
    index = ProjectIndex.from_documents(((file["path"], file["text"]) for file in FILES), encode)
    request = FimRequest(**CARET)
    items = retrieve(index, request, strategy=limits["strategy"], k=limits["context_items"])
    return pack(fmt, encode, FimRequest(**CARET, context=items), budget=limits["max_prompt_tokens"]).prompt.ids


def post(url: str, **fields: Any) -> httpx.Response:
    return HTTP.post(f"{url}/v1/completions", json={"max_tokens": 4, "ignore_eos": True, **fields})


def test_a_client_that_packs_itself_sends_the_prompt_that_the_server_would_make(model: Path) -> None:
    answer = say("200 OK", chunk("x", "length") + "data: [DONE]\n\n", "text/event-stream")
    with (
        strange_predictor(answer) as (predictor, server),
        transforming(model, predictor, max_prompt_tokens=BUDGET, max_new_tokens=16) as (url, _),
    ):
        ids = packed_here(url)
        text = {"path": CARET["path"], "prompt": CARET["prefix"], "suffix": CARET["suffix"], "context": FILES}
        assert post(url, **text).json()["infill"]["context"] != []
        post(url, prompt=ids, tokenizer=answer_of(url)["tokenizer"]).raise_for_status()
        asked = [json.loads(body) for _, body in server.requests]
    assert asked[0] == asked[1]
    assert asked[0]["prompt"] == ids


def test_ids_are_completed_and_counted(url: str) -> None:
    ids = packed_here(url)
    answer = post(url, prompt=ids).json()
    assert answer["usage"]["prompt_tokens"] == len(ids) == answer["infill"]["prompt_tokens"]
    assert answer["usage"]["completion_tokens"] == 4
    assert "token ids" in answer["infill"]["why_empty"]


def test_the_tokenizer_is_the_models(url: str, model: Path) -> None:
    response = HTTP.get(f"{url}/v1/tokenizer")
    assert response.headers["content-encoding"] == "gzip"
    assert response.headers["etag"] == f'"{answer_of(url)["tokenizer"]}"'
    plain = HTTP.get(f"{url}/v1/tokenizer", headers={"accept-encoding": "identity"})
    assert plain.content == response.content
    text = "def größe(x): return '<fim_middle>' \r\n\t🌍"
    assert Encoder(response.json()["tokenizer"]).encode(text) == load_encoder(model).encode(text)


def test_a_client_that_has_the_tokenizer_gets_none(url: str) -> None:
    tag = HTTP.get(f"{url}/v1/tokenizer").headers["etag"]
    again = HTTP.get(f"{url}/v1/tokenizer", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")


REFUSED: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "another model's": ({"prompt": [1], "tokenizer": "0" * 64}, 409, "tokenizer_changed", "fetch /v1/tokenizer again"),
    "too long": ({"prompt": [1] * (BUDGET + 1)}, 400, "prompt_too_long", "has 513 tokens, at most 512"),
    "beyond the vocabulary": ({"prompt": [10**6]}, 400, "invalid_value", "must be below"),
    "beside a suffix": ({"prompt": [1], "suffix": "x"}, 400, "invalid_value", "'suffix' cannot be combined"),
    "beside files": ({"prompt": [1], "context": FILES}, 400, "invalid_value", "'context' cannot be combined"),
    "none": ({"prompt": []}, 400, "invalid_type", "list of token ids"),
    "a negative one": ({"prompt": [1, -1]}, 400, "invalid_type", "list of token ids"),
    "a boolean": ({"prompt": [True]}, 400, "invalid_type", "list of token ids"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_ids_that_the_model_cannot_take_are_refused(url: str, case: str) -> None:
    fields, status, code, message = REFUSED[case]
    response = post(url, **fields)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert message in error["message"]
