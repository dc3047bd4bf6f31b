"""Answers that end by their syntax: over HTTP, for text and for prompts that the client has packed, and when not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infill.prompt import FimRequest, load_encoder, load_format, render
from serving.transformer.service import TransformerService
from tests.serving.conftest import HTTP, chunk, say, strange_predictor, transforming

CARET: dict[str, Any] = {
    "path": "a.py",
    "prompt": "def f(rows):\n    for row in ",
    "suffix": "\n        print(row)\n        more()\n",
}
PIECES = ("rows", "[1", ":]:\n        ", "print(row)\n", "        more()")
WHOLE, LEFT = "".join(PIECES), "rows[1:]:"


@pytest.fixture(scope="module")
def stack(model: Path) -> Iterator[tuple[str, TransformerService]]:
    """The address of a transformer whose predictor always answers with PIECES, and what it shares."""
    body = "".join((*map(chunk, PIECES), chunk("", "length"), "data: [DONE]\n\n"))
    behaviour = say("200 OK", body, "text/event-stream")
    with strange_predictor(behaviour) as (predictor, _), transforming(model, predictor) as (url, service):
        yield url, service


def ask(stack: tuple[str, TransformerService], **fields: Any) -> dict[str, Any]:
    answer: httpx.Response = HTTP.post(f"{stack[0]}/v1/completions", json=CARET | fields)
    body: dict[str, Any] = answer.raise_for_status().json()
    return body


def test_an_answer_is_truncated_and_counted(stack: tuple[str, TransformerService]) -> None:
    answer = ask(stack)
    choice = answer["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (LEFT, "stop")
    assert answer["usage"]["completion_tokens"] == len(PIECES)
    [metric] = stack[1].metrics.truncated.collect()
    assert {sample.labels["rule"]: sample.value for sample in metric.samples if sample.name.endswith("_total")} == {
        "echo": 1
    }


@pytest.mark.parametrize("fields", [{"stop_at_unit": False}, {"ignore_eos": True}])
def test_a_client_may_have_the_whole_answer(stack: tuple[str, TransformerService], fields: dict[str, Any]) -> None:
    choice = ask(stack, **fields)["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (WHOLE, "length")


def test_a_prompt_that_the_client_has_packed_is_truncated_too(
    stack: tuple[str, TransformerService], model: Path
) -> None:
    request = FimRequest(path="a.py", prefix=CARET["prompt"], suffix=CARET["suffix"])
    ids = render(load_format(model), load_encoder(model).encode, request).ids
    answer = HTTP.post(f"{stack[0]}/v1/completions", json={"prompt": ids, "language": "python"}).json()
    assert answer["choices"][0]["text"] == LEFT


def test_stop_at_unit_must_be_a_flag(stack: tuple[str, TransformerService]) -> None:
    answer = HTTP.post(f"{stack[0]}/v1/completions", json=CARET | {"stop_at_unit": "no"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "stop_at_unit")
