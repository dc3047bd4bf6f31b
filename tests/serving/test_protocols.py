"""The protocols besides OpenAI's: bodies as real clients send them, what is made of them, and what comes back."""

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.context.packing import Packed
from serving.protocol import ApiError
from serving.transformer.cut import cut
from serving.transformer.protocols import PROTOCOLS, by_path
from serving.transformer.protocols.base import Protocol
from serving.transformer.protocols.mistral import with_files
from serving.transformer.request import CompletionRequest, additions
from serving.transformer.service import TransformerService
from serving.transformer.upstream import Delta
from tests.serving.conftest import HTTP, Strangers, chunk, say, strange_predictor, transforming

LIMIT = 32
TEXT = "return best\n"
NAMED: dict[str, Protocol] = {protocol.name: protocol for protocol in PROTOCOLS}
RECORDED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "requests" / "recorded.json").read_text(encoding="utf-8")
)
"""Name -> path, body and the protocol, as the clients sent them."""


@dataclass
class Stack:
    url: str
    service: TransformerService
    strangers: Strangers

    def post(self, address: str, /, **body: Any) -> httpx.Response:
        return HTTP.post(self.url + address, json=body)

    @property
    def asked(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.strangers.requests]


@pytest.fixture(scope="module")
def shared(model: Path) -> Iterator[Stack]:
    usage = {"choices": [], "usage": {"completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}}
    events = [chunk("return "), chunk("best\n", "stop"), f"data: {json.dumps(usage)}\n\n", "data: [DONE]\n\n"]
    with (
        strange_predictor(say("200 OK", "".join(events), "text/event-stream")) as (predictor, strangers),
        transforming(model, predictor, max_prompt_tokens=512, max_new_tokens=LIMIT) as (url, service),
    ):
        yield Stack(url, service, strangers)


@pytest.fixture
def stack(shared: Stack) -> Stack:
    shared.strangers.requests.clear()
    return shared


def read(name: str, **body: Any) -> CompletionRequest:
    return NAMED[name].read(body, LIMIT)


CARETS: dict[str, dict[str, Any]] = {
    "openai": {"prompt": "a = ", "suffix": "\nb"},
    "mistral": {"prompt": "a = ", "suffix": "\nb"},
    "llama.cpp": {"input_prefix": "a ", "prompt": "= ", "input_suffix": "\nb"},
    "tabby": {"segments": {"prefix": "a = ", "suffix": "\nb"}},
    "ollama": {"prompt": "a = ", "suffix": "\nb"},
}


@pytest.mark.parametrize("name", CARETS)
def test_the_same_caret_gives_the_same_prompt_in_every_protocol(stack: Stack, name: str) -> None:
    stack.post("/v1/completions", **CARETS["openai"]).raise_for_status()
    stack.post(NAMED[name].paths[0], **CARETS[name], stream=False).raise_for_status()
    first, second = stack.asked
    assert first["prompt"] == second["prompt"]
    assert second["max_tokens"] == LIMIT
    assert second["temperature"] == 0


CONTEXT = {"path": "shapes/circle.py", "text": "def best_circle(circles):\n    return max(circles)\n"}
SNIPPETS: dict[str, dict[str, Any]] = {
    "openai": {"prompt": "best_circle(", "path": "a.py", "context": [CONTEXT]},
    "mistral": {"prompt": f"+++++ {CONTEXT['path']} \n{CONTEXT['text']}\n\n+++++ a.py\nbest_circle("},
    "llama.cpp": {
        "input_prefix": "best_circle(",
        "path": "a.py",
        "input_extra": [{"filename": CONTEXT["path"], "text": CONTEXT["text"], "time": [1, 2]}],
    },
    "tabby": {
        "segments": {
            "prefix": "best_circle(",
            "filepath": "a.py",
            "declarations": [{"filepath": CONTEXT["path"], "body": CONTEXT["text"]}],
        }
    },
}


@pytest.mark.parametrize("name", SNIPPETS)
def test_what_the_editor_sends_of_other_files_becomes_context(stack: Stack, name: str) -> None:
    stack.post("/v1/completions", **SNIPPETS["openai"]).raise_for_status()
    answer = stack.post(NAMED[name].paths[0], **SNIPPETS[name]).json()["infill"]
    assert [item["path"] for item in answer["context"]] == [CONTEXT["path"]]
    assert stack.asked[0]["prompt"] == stack.asked[1]["prompt"]


TEXT_OF: dict[str, Callable[[dict[str, Any]], str]] = {
    "openai": lambda answer: answer["choices"][0]["text"],
    "mistral": lambda answer: answer["choices"][0]["message"]["content"],
    "llama.cpp": lambda answer: answer["content"],
    "tabby": lambda answer: answer["choices"][0]["text"],
    "ollama": lambda answer: answer["response"],
}
PIECE_OF: dict[str, Callable[[dict[str, Any]], str]] = {
    "openai": TEXT_OF["openai"],
    "mistral": lambda part: part["choices"][0]["delta"]["content"],
    "llama.cpp": TEXT_OF["llama.cpp"],
    "ollama": TEXT_OF["ollama"],
}


@pytest.mark.parametrize("name", CARETS)
def test_a_whole_answer_holds_the_text_and_says_what_was_packed(stack: Stack, name: str) -> None:
    response = stack.post(NAMED[name].paths[0], **CARETS[name], stream=False)
    assert response.headers["content-type"] == "application/json"
    assert TEXT_OF[name](response.json()) == TEXT
    assert response.json()["infill"]["warnings"] == ([] if name != "tabby" else ["unknown field 'stream' is ignored"])


def parts_of(response: httpx.Response) -> list[dict[str, Any]]:
    """The objects of a stream of either kind."""
    lines = [line.removeprefix("data: ") for line in response.text.split("\n") if line.strip()]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize("name", PIECE_OF)
def test_a_stream_gives_the_text_piece_by_piece(stack: Stack, name: str) -> None:
    response = stack.post(NAMED[name].paths[0], **CARETS[name], stream=True)
    kind = "application/x-ndjson" if name == "ollama" else "text/event-stream"
    assert response.headers["content-type"].startswith(kind)
    assert response.text.endswith("data: [DONE]\n\n") is (name in ("openai", "mistral"))
    pieces = [PIECE_OF[name](part) for part in parts_of(response)]
    assert "".join(pieces) == TEXT
    assert len([piece for piece in pieces if piece]) == 2


def test_the_last_part_of_a_stream_counts(stack: Stack) -> None:
    mistral = parts_of(stack.post("/v1/fim/completions", **CARETS["mistral"], stream=True))[-1]
    assert mistral["choices"][0]["finish_reason"] == "stop"
    assert mistral["usage"]["completion_tokens"] == 2
    llama = parts_of(stack.post("/infill", **CARETS["llama.cpp"], stream=True))[-1]
    assert (llama["stop"], llama["stop_type"], llama["tokens_predicted"]) == (True, "eos", 2)
    assert (llama["timings"]["predicted_n"], llama["timings"]["cache_n"]) == (2, 3)
    ollama = parts_of(stack.post("/api/generate", **CARETS["ollama"]))[-1]
    assert (ollama["done"], ollama["done_reason"], ollama["eval_count"]) == (True, "stop", 2)


ERRORS: dict[str, tuple[dict[str, Any], Any]] = {
    "openai": ({"prompt": 5}, lambda body: body["error"]["message"]),
    "mistral": ({"prompt": 5}, lambda body: body["message"]),
    "llama.cpp": ({"input_prefix": 5}, lambda body: body["error"]["message"]),
    "tabby": ({"segments": {"prefix": 5}}, lambda body: body["error"]["message"]),
    "ollama": ({"prompt": 5}, lambda body: body["error"]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_has_the_shape_of_the_protocol_and_names_the_field(stack: Stack, name: str) -> None:
    body, message = ERRORS[name]
    response = stack.post(NAMED[name].paths[0], **body)
    assert response.status_code == 400
    assert re.search("'(prompt|input_prefix|segments)'", message(response.json()))
    broken = HTTP.post(stack.url + NAMED[name].paths[0], content=b"{")
    assert "not valid JSON" in message(broken.json())


@pytest.mark.parametrize("name", [name for name in CARETS if name != "tabby"])
def test_an_error_in_the_middle_of_a_stream_is_reported(model: Path, name: str) -> None:
    body = chunk("return ") + 'data: {"error": {"message": "it broke"}}\n\n'
    with (
        strange_predictor(say("200 OK", body, "text/event-stream")) as (predictor, _),
        transforming(model, predictor) as (url, _),
    ):
        response = HTTP.post(url + NAMED[name].paths[0], json=CARETS[name] | {"stream": True})
    assert any("it broke" in str(part.get("error")) for part in parts_of(response))


@pytest.mark.parametrize("name", RECORDED)
def test_what_clients_really_send_is_answered_without_a_warning(stack: Stack, name: str) -> None:
    recorded = RECORDED[name]
    response = stack.post(recorded["path"], **recorded["body"])
    assert response.status_code == 200, response.text
    assert '"error"' not in response.text
    resource = [part["infill"]["warnings"] for part in parts_of(response) if "infill" in part]
    assert all(warnings == [] for warnings in resource)
    claimed = next(each for each in by_path()[recorded["path"]] if each.claims(recorded["body"]))
    assert claimed.name == recorded["protocol"]


def test_llama_vim_gets_the_fields_that_it_asks_for(stack: Stack) -> None:
    wanted = ["content", "timings/prompt_n", "timings/predicted_ms", "truncated", "tokens_cached", "unknown/field"]
    response = stack.post("/infill", **CARETS["llama.cpp"], response_fields=wanted)
    assert list(response.json()) == wanted[:-1]
    assert '"content":"return best\\n"' in response.text, "llama.vim looks for the field without a blank"
    assert stack.post("/infill", **CARETS["llama.cpp"], response_fields=[""]).json() == {}


def test_a_key_that_is_empty_is_not_an_error(stack: Stack) -> None:
    """llama.vim without a key sends the header so; the way to the predictor takes no blank at a value's end."""
    request = b"POST /infill HTTP/1.1\r\nhost: x\r\nauthorization: Bearer \r\ncontent-length: 2\r\n\r\n{}"
    host, port = stack.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")


EXTRA = [{"filename": CONTEXT["path"], "text": CONTEXT["text"]}]


def test_a_request_for_no_tokens_computes_the_prompt_and_writes_nothing(stack: Stack) -> None:
    empty = stack.post("/infill", input_prefix="", prompt="", input_suffix="", input_extra=EXTRA, n_predict=0)
    assert (empty.json()["content"], empty.json()["tokens_predicted"]) == ("", 0)
    assert stack.asked == [], "without a caret nothing is ranked, so there is nothing to compute"
    warm = stack.post("/infill", input_prefix="best_circle(", input_extra=EXTRA, n_predict=0).json()
    assert (warm["content"], warm["tokens_predicted"]) == ("", 0)
    assert stack.asked[0]["max_tokens"] == 1


def test_a_request_that_warms_does_not_end_a_session(stack: Stack) -> None:
    body = {"input_prefix": "x = best_circle(", "input_extra": EXTRA, "session": "vim"}
    stack.post("/infill", **body)
    before = packed_of(stack)[-1]
    assert before.prompt.items
    stack.post("/infill", input_extra=EXTRA, n_predict=0, session="vim")
    assert before in packed_of(stack)


def packed_of(stack: Stack) -> list[Packed]:
    return [packed for packed, _ in stack.service.packer.sessions._packed.values()]


LIMITS: list[tuple[str, dict[str, Any], int]] = [
    ("llama.cpp", {"n_predict": -1}, LIMIT),
    ("llama.cpp", {"n_predict": 7.0}, 7),
    ("llama.cpp", {"n_predict": 0}, 0),
    ("llama.cpp", {"n_predict": 9_999}, LIMIT),
    ("ollama", {"prompt": "a", "options": {"num_predict": -2}}, LIMIT),
    ("ollama", {"prompt": "a", "options": {"num_predict": 0}}, LIMIT),
    ("ollama", {"prompt": "a", "options": {"num_predict": 5}}, 5),
    ("ollama", {"prompt": ""}, 0),
    ("mistral", {"prompt": "a", "max_tokens": 5}, 5),
    ("tabby", {"segments": {"prefix": "a"}}, LIMIT),
]


@pytest.mark.parametrize(("name", "body", "limit"), LIMITS)
def test_the_number_of_tokens_is_read_as_the_server_of_that_name_reads_it(
    name: str, body: dict[str, Any], limit: int
) -> None:
    assert read(name, **body).sampling.max_tokens == limit


def test_a_seed_below_zero_is_none() -> None:
    assert read("llama.cpp", seed=-1).sampling.seed is None
    assert read("ollama", prompt="a", options={"seed": 7}).sampling.seed == 7
    assert read("mistral", prompt="a", random_seed=7).sampling.seed == 7


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("llama.cpp", {"input_extra": [{"filename": "a"}]}, "input_extra"),
    ("llama.cpp", {"input_extra": [{"filename": "a\nb", "text": ""}]}, "input_extra"),
    ("llama.cpp", {"n_indent": -1}, "n_indent"),
    ("llama.cpp", {"t_max_predict_ms": "1"}, "t_max_predict_ms"),
    ("llama.cpp", {"response_fields": "content"}, "response_fields"),
    ("ollama", {"prompt": "a", "format": "json"}, "format"),
    ("ollama", {"prompt": "a", "images": ["aGk="]}, "images"),
    ("ollama", {"prompt": "a", "options": []}, "options"),
    ("ollama", {"prompt": "a", "options": {"temperature": 3}}, "temperature"),
    ("tabby", {"segments": None}, "segments"),
    ("tabby", {"segments": {}}, "segments"),
    ("tabby", {"segments": {"prefix": "a", "filepath": "file:///a%0Ab"}}, "filepath"),
    ("tabby", {"segments": {"prefix": "a"}, "debug_options": {"raw_prompt": "<PRE>"}}, "debug_options"),
    ("tabby", {"segments": {"prefix": "a", "declarations": [{"body": "x"}]}}, "declarations"),
    ("mistral", {"prompt": "a", "random_seed": "7"}, "random_seed"),
]


@pytest.mark.parametrize(("name", "body", "field"), REFUSED)
def test_a_value_that_cannot_be_served_is_refused_by_name(name: str, body: dict[str, Any], field: str) -> None:
    with pytest.raises(ApiError, match=field) as caught:
        read(name, **body)
    assert caught.value.status == 400


def test_snippets_of_one_file_are_joined() -> None:
    extra = [{"filename": "a.py", "text": "x"}, {"text": "no name"}, {"filename": "a.py", "text": "y"}]
    assert read("llama.cpp", input_extra=extra).documents == (("a.py", "x\ny"), ("snippet", "no name"))


def test_tabby_may_leave_the_snippets_out_and_see_what_was_packed(stack: Stack) -> None:
    body = SNIPPETS["tabby"] | {"debug_options": {"return_snippets": True}}
    (snippet,) = stack.post("/v1/completions", **body).json()["debug_data"]["snippets"]
    assert (snippet["filepath"], snippet["body"]) == (CONTEXT["path"], CONTEXT["text"])
    body["debug_options"]["disable_retrieval_augmented_code_completion"] = True
    assert stack.post("/v1/completions", **body).json()["debug_data"]["snippets"] == []


def test_the_path_in_a_file_uri_is_decoded() -> None:
    assert read("tabby", segments={"prefix": "a", "filepath": "file:///w/my%20code/a.py"}).fim.path == "/w/my code/a.py"


PLAIN = ["def f():\n    ", "x\n+++++ not the first line\ny", "++++ a.py\nx", "", "+++++ a.py without an end of line"]


@pytest.mark.parametrize("prompt", PLAIN)
def test_a_prompt_that_does_not_begin_with_a_heading_is_left_alone(prompt: str) -> None:
    request = additions({}, prefix=prompt, suffix="")
    assert with_files(request) == request


def test_the_last_file_of_a_prompt_is_the_current_one() -> None:
    request = with_files(additions({}, prefix="+++++ a.py \nx = 1\n\n\n+++++ b.py\ny", suffix=""))
    assert request.documents == (("a.py", "x = 1\n"),)
    assert (request.fim.path, request.fim.prefix) == ("b.py", "y")


def test_an_empty_ollama_prompt_loads_the_model(stack: Stack) -> None:
    (answer,) = parts_of(stack.post("/api/generate", model="tiny"))
    assert (answer["done"], answer["done_reason"], answer["response"]) == (True, "load", "")
    assert stack.asked == []


CONTROL = ["<fim_middle>", "<fim_prefix>", "<fim_suffix>", "<|endoftext|>", "<filename>", "\n", "a = b"]


@given(text=st.lists(st.sampled_from(CONTROL), max_size=8).map("".join), name=st.sampled_from(list(CARETS)))
def test_control_tokens_in_text_stay_text(shared: Stack, text: str, name: str) -> None:
    path = text.replace("\n", "") or "a"
    bodies: dict[str, dict[str, Any]] = {
        "openai": {"prompt": text, "suffix": text, "context": [{"path": path, "text": text}]},
        "mistral": {"prompt": f"+++++ {path}\n{text}\n\n+++++ {path}b\n{text}", "suffix": text},
        "llama.cpp": {"input_prefix": text, "input_suffix": text, "input_extra": [{"filename": path, "text": text}]},
        "tabby": {
            "segments": {
                "prefix": text,
                "suffix": text,
                "filepath": path,
                "declarations": [{"filepath": path, "body": text}],
            }
        },
        "ollama": {"prompt": text, "suffix": text, "path": path},
    }
    packed = shared.service.packer.pack(read(name, **bodies[name]))
    fmt = shared.service.packer.fmt
    control = [token for token in packed.prompt.ids if token < 32]
    assert control == [fmt.filename] * (len(packed.prompt.items) + 1) + [fmt.fim_suffix, fmt.fim_prefix, fmt.fim_middle]


async def deltas_of(pieces: list[str], closed: list[bool]) -> AsyncGenerator[Delta, None]:
    try:
        for piece in pieces:
            yield Delta(text=piece)
        yield Delta(finish_reason="stop")
        yield Delta(usage={"completion_tokens": 9})
    finally:
        closed.append(True)


async def cut_text(pieces: list[str], max_ms: float = 0, indent: int = 0) -> tuple[str, str | None, bool]:
    """What is left of the text, why it ended, and whether the predictor's stream was closed."""
    closed: list[bool] = []
    deltas = [delta async for delta in cut(deltas_of(pieces, closed), max_ms, indent)]
    reason = next((delta.finish_reason for delta in deltas if delta.finish_reason), None)
    return "".join(delta.text for delta in deltas), reason, bool(closed)


INDENTED: list[tuple[str, int, str]] = [
    ("x\n    y\n    z", 4, "x\n    y\n    z"),
    ("x\n    y\nz", 4, "x\n    y"),
    ("x\n\n    y\n\nz\n    w", 4, "x\n\n    y"),
    ("x\n\ty\n z", 1, "x\n\ty\n z"),
    ("x\n  ", 4, "x\n  "),
    ("x\ny", 1, "x"),
    ("x\ny", 0, "x\ny"),
]


@pytest.mark.parametrize(("text", "indent", "left"), INDENTED)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_an_answer_ends_where_the_indentation_falls(text: str, indent: int, left: str, size: int) -> None:
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    line, reason, closed = asyncio.run(cut_text(pieces, indent=indent))
    assert line.rstrip("\n") == left
    assert reason == ("stop" if left == text else "length")
    assert closed


def test_an_answer_ends_with_the_first_line_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(seconds)))
    line, reason, closed = asyncio.run(cut_text(["a", "b", "c", "\nd", "e"], max_ms=1_500))
    assert (line, reason, closed) == ("abc", "length", True)


def test_tabbys_events_are_counted_and_nothing_else(stack: Stack) -> None:
    for kind in ("view", "select", "select", "rewritten"):
        response = stack.post("/v1/events", type=kind, completion_id="cmpl-1", choice_index=0)
        assert (response.status_code, response.content) == (200, b"")
    counts = {kind: stack.service.metrics.events.labels(kind)._value.get() for kind in ("view", "select", "other")}
    assert counts == {"view": 1, "select": 2, "other": 1}
    assert stack.post("/v1/events", type=5).status_code == 400


PAGES = ["/v1/models", "/health", "/props", "/v1/health", "/v1beta/server_setting", "/api/tags", "/api/version"]


@pytest.mark.parametrize("path", PAGES)
def test_clients_learn_what_is_served(stack: Stack, path: str) -> None:
    response = HTTP.get(stack.url + path)
    assert response.status_code == 200
    assert response.json()


def test_ollamas_clients_see_that_the_model_can_infill(stack: Stack) -> None:
    answer = stack.post("/api/show", model="whatever").json()
    assert "insert" in answer["capabilities"]
    assert ".Suffix" in answer["template"]
    assert answer["parameters"] == f"num_ctx {512 + LIMIT}"
