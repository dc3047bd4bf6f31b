"""A predictor that is gone, slow, strange, or vLLM: the transformer answers in time and says which."""

import functools
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from infill.prompt import load_encoder, load_format, stop_ids
from serving.local import free_port
from tests.serving.conftest import HTTP, Strangers, chunk, say, strange_predictor, transforming, wait_until

CARET: dict[str, Any] = {"prompt": "def f(", "max_tokens": 4}
STREAM = "text/event-stream"


def ask(url: str, **fields: Any) -> httpx.Response:
    return HTTP.post(f"{url}/v1/completions", json=CARET | fields)


@pytest.fixture(scope="module")
def pair(model: Path) -> Iterator[tuple[str, Strangers]]:
    """A transformer's address and its strange predictor, whose behaviour each test sets."""
    settings = {"upstream_name": "base"}
    with strange_predictor(_hang) as (predictor, strangers), transforming(model, predictor, **settings) as (url, _):
        yield url, strangers


def test_a_predictor_that_is_gone_is_503(model: Path) -> None:
    with transforming(model, f"http://127.0.0.1:{free_port()}") as (url, _):
        for stream in (False, True):
            response = ask(url, stream=stream)
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "predictor_unavailable"
            assert response.headers["retry-after"] == "1"
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        with client, pytest.raises(openai.InternalServerError, match="not available"):
            client.completions.create(model="tiny", **CARET)


def _hang(connection: socket.socket) -> None:
    time.sleep(3)


def _hang_after_headers(connection: socket.socket) -> None:
    connection.sendall(f"HTTP/1.1 200 OK\r\ncontent-type: {STREAM}\r\n\r\n".encode())
    time.sleep(3)


@pytest.mark.parametrize("behaviour", [_hang, _hang_after_headers], ids=["silent", "headers only"])
def test_a_predictor_that_is_slow_is_504(model: Path, behaviour: Any) -> None:
    with strange_predictor(behaviour) as (predictor, _), transforming(model, predictor, first_token_s=0.2) as (url, _):
        started = time.monotonic()
        response = ask(url)
        assert response.status_code == 504
        assert response.json()["error"]["code"] == "predictor_timeout"
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_server_still_answers_when_it_ends_is_503(model: Path, stream: bool) -> None:
    answers = list[httpx.Response]()
    with strange_predictor(_hang) as (predictor, strangers):
        with transforming(model, predictor) as (url, _):
            one = threading.Thread(target=lambda: answers.append(ask(url, stream=stream)))
            one.start()
            wait_until(lambda: len(strangers.requests) == 1)
        one.join()
    (answer,) = answers
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
    assert answer.headers["retry-after"] == "1"


def test_more_requests_than_allowed_are_429(model: Path) -> None:
    settings = {"max_requests": 1, "first_token_s": 1.0}
    with strange_predictor(_hang) as (predictor, strangers), transforming(model, predictor, **settings) as (url, _):
        first = threading.Thread(target=ask, args=(url,))
        first.start()
        wait_until(lambda: len(strangers.requests) == 1)
        response = ask(url)
        first.join()
        assert (response.status_code, response.json()["error"]["code"]) == (429, "overloaded")
        assert response.headers["retry-after"] == "1"


def _read_until(client: socket.socket, end: bytes) -> None:
    seen = b""
    while end not in seen:
        seen += client.recv(65_536) or pytest.fail(f"the answer ended without {end!r}: {seen!r}")


HEAD_OF_STREAM = f"HTTP/1.1 200 OK\r\ncontent-type: {STREAM}\r\n\r\n"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(
    "sent", ["", HEAD_OF_STREAM, HEAD_OF_STREAM + chunk("a")], ids=["nothing", "head", "first token"]
)
def test_when_the_client_goes_the_predictor_need_not_say_anything_more(model: Path, sent: str, stream: bool) -> None:
    """The predictor waits in silence until its connection is closed, so nothing else can have led to that."""
    closed = threading.Event()

    def behave(connection: socket.socket) -> None:
        connection.sendall(sent.encode())
        if connection.recv(1) == b"":
            closed.set()

    with strange_predictor(behave) as (predictor, strangers), transforming(model, predictor) as (url, _):
        body = json.dumps(CARET | {"stream": stream}).encode()
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
            head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
            wait_until(lambda: len(strangers.requests) == 1)
            if stream and sent.endswith("\n\n"):
                _read_until(client, b'"text":"a"')
        assert closed.wait(20)


def _one_piece_then_hang(connection: socket.socket) -> None:
    _hang_after_headers_with(connection, chunk("a"))


def _hang_after_headers_with(connection: socket.socket, text: str) -> None:
    connection.sendall(f"HTTP/1.1 200 OK\r\ncontent-type: {STREAM}\r\n\r\n{text}".encode())
    time.sleep(3)


def test_a_predictor_that_stops_in_the_middle_is_504_or_an_event(model: Path) -> None:
    behaviour = _one_piece_then_hang
    with strange_predictor(behaviour) as (predictor, _), transforming(model, predictor, total_s=0.3) as (url, _):
        assert ask(url).status_code == 504
        events = ask(url, stream=True).text.split("\n\n")
        assert json.loads(events[0].removeprefix("data: "))["choices"][0]["text"] == "a"
        assert json.loads(events[1].removeprefix("data: "))["error"]["code"] == "predictor_timeout"
        assert events[2] == "data: [DONE]"


STRANGE: dict[str, tuple[str, str, int, str]] = {
    "empty": ("200 OK", "", 503, "predictor_unavailable"),
    "broken off": ("200 OK", chunk("a"), 503, "predictor_unavailable"),
    "no JSON": ("200 OK", "data: {oops\n\n", 502, "bad_predictor_answer"),
    "no object": ("200 OK", "data: 5\n\n", 502, "bad_predictor_answer"),
    "no choices": ("200 OK", "data: {}\n\n", 502, "bad_predictor_answer"),
    "odd choices": ("200 OK", 'data: {"choices": 1}\n\n', 502, "bad_predictor_answer"),
    "an error in the stream": ("200 OK", 'data: {"error": {"message": "oh"}}\n\n', 502, "predictor_error"),
    "not ready": ("503 Service Unavailable", '{"error": {"message": "loading"}}', 503, "predictor_unavailable"),
    "too many": ("429 Too Many Requests", "", 429, "overloaded"),
    "its deadline": ("504 Gateway Timeout", '{"error": {"code": "timeout"}}', 504, "predictor_timeout"),
    "a refusal": ("400 Bad Request", '{"object": "error", "message": "too long"}', 502, "predictor_error"),
    "a page": ("404 Not Found", "<html>", 502, "predictor_error"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_a_strange_answer_becomes_a_clear_error(pair: tuple[str, Strangers], case: str) -> None:
    url, strangers = pair
    status, body, expected, code = STRANGE[case]
    strangers.behaviour = say(status, body, STREAM)
    response = ask(url)
    assert (response.status_code, response.json()["error"]["code"]) == (expected, code)


def test_a_connection_that_closes_at_once_is_tried_twice_then_503(pair: tuple[str, Strangers]) -> None:
    url, strangers = pair
    strangers.behaviour = lambda _: None
    strangers.requests.clear()
    assert ask(url).status_code == 503
    assert len(strangers.requests) == 2


def test_vllm_gets_token_ids_and_its_answer_is_understood(model: Path, pair: tuple[str, Strangers]) -> None:
    url, strangers = pair
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}}
    answer = [chunk("a"), chunk("b", "stop"), f"data: {json.dumps(usage)}\n\n", "data: [DONE]\n\n"]
    strangers.behaviour = say("200 OK", "".join(answer), STREAM)
    strangers.requests.clear()
    headers = {"authorization": "Bearer key", "x-request-id": "r1", "cookie": "secret"}
    body = CARET | {"stop": "\n", "seed": 7, "top_p": 0.5}
    value = HTTP.post(f"{url}/v1/completions", json=body, headers=headers).json()
    assert value["choices"][0]["text"] == "ab"
    assert value["choices"][0]["finish_reason"] == "stop"
    assert value["usage"]["completion_tokens"] == 2
    head, sent = strangers.requests[0]
    assert "authorization: Bearer key" in head
    assert "x-request-id: r1" in head
    assert "secret" not in head
    fmt = load_format(model)
    asked = json.loads(sent)
    assert asked.pop("prompt")[-1] == fmt.fim_middle
    assert asked == {
        "model": "base",
        "max_tokens": 4,
        "temperature": 0.0,
        "top_p": 0.5,
        "seed": 7,
        "stop": ["\n"],
        "stop_token_ids": list(stop_ids(fmt, load_encoder(model))),
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_what_vllm_would_refuse_the_transformer_sees_to(pair: tuple[str, Strangers]) -> None:
    url, strangers = pair
    strangers.behaviour = say("200 OK", chunk("a = 1; E") + chunk("ND b") + chunk("c", "length"), STREAM)
    strangers.requests.clear()
    stops = [f"stop {number}" for number in range(200)]
    body = CARET | {"stop": [*stops, "END"], "stop_token_ids": [3, 2**31 - 1]}
    (choice,) = HTTP.post(f"{url}/v1/completions", json=body).json()["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("a = 1; ", "stop")
    asked = json.loads(strangers.requests[0][1])
    assert asked["stop"] == stops[:4]
    assert 3 in asked["stop_token_ids"]
    assert max(asked["stop_token_ids"]) < 2**31 - 1
    (choice,) = HTTP.post(f"{url}/v1/completions", json=CARET | {"stop": stops}).json()["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("a = 1; END bc", "length")


def test_headers_continue_unchanged_or_not_at_all(pair: tuple[str, Strangers]) -> None:
    url, strangers = pair
    strangers.behaviour = say("200 OK", chunk("a", "stop"), STREAM)
    strangers.requests.clear()
    headers = [(b"authorization", "Bearer größe".encode()), (b"traceparent", b"\xff"), (b"x-request-id", b"\xe9")]
    assert HTTP.post(f"{url}/v1/completions", json=CARET, headers=headers).status_code == 200
    head = strangers.requests[0][0]
    assert "authorization: Bearer größe" in head
    assert "traceparent" not in head
    assert "x-request-id: \ufffd" not in head


def test_a_predictor_elsewhere_is_asked_through_the_proxy(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with strange_predictor(say("200 OK", chunk("a", "stop"), STREAM)) as (proxy, seen):
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", proxy)
        with transforming(model, "http://models.invalid") as (url, _):
            assert ask(url).json()["choices"][0]["text"] == "a"
    assert seen.requests[-1][0].startswith("POST http://models.invalid/v1/completions ")


def test_a_pooled_connection_that_the_predictor_has_closed_is_replaced(pair: tuple[str, Strangers]) -> None:
    url, strangers = pair
    whole = chunk("a", "stop")
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {STREAM}\r\ncontent-length: {len(whole)}\r\n\r\n"
    strangers.behaviour = lambda connection: connection.sendall((head + whole).encode())  # then it closes unasked
    for _ in range(3):
        assert ask(url).json()["choices"][0]["text"] == "a"


COUNTS = f"data: {json.dumps({'choices': [], 'usage': {'prompt_tokens': 9, 'completion_tokens': 1}})}\n\n"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_complete_with_its_counts_not_with_the_end_of_its_stream(model: Path, stream: bool) -> None:
    def never_end(connection: socket.socket) -> None:
        say("200 OK", chunk("a", "stop") + COUNTS, STREAM)(connection)
        connection.recv(1)  # until the transformer closes it

    with strange_predictor(never_end) as (predictor, _), transforming(model, predictor, total_s=30) as (url, _):
        started = time.monotonic()
        assert '"a"' in ask(url, stream=stream).text
        assert time.monotonic() - started < 10


def test_a_connection_whose_stream_ends_later_is_used_again(model: Path) -> None:
    connections = []

    def end_later(connection: socket.socket) -> None:
        connections.append(connection)
        size = len(body := (chunk("a", "stop") + COUNTS).encode())
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {STREAM}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        while True:
            connection.sendall(head + f"{size:x}\r\n".encode() + body + b"\r\n")
            time.sleep(0.05)
            connection.sendall(b"0\r\n\r\n")
            request = b""
            while not request.endswith(b"}"):
                if not (part := connection.recv(65_536)):
                    return
                request += part

    with strange_predictor(end_later) as (predictor, _), transforming(model, predictor) as (url, _):
        for _ in range(3):
            assert ask(url).json()["choices"][0]["text"] == "a"
            time.sleep(0.2)
    assert len(connections) == 1


def test_after_an_answer_that_was_left_a_connection_is_ready_for_the_next(model: Path) -> None:
    opened = []

    class Counted(Strangers):
        def verify_request(self, request: Any, client_address: Any) -> bool:
            opened.append(client_address)
            return super().verify_request(request, client_address)

    def grown(before: int) -> bool:
        return len(opened) == before + 1

    def two_pieces(connection: socket.socket) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {STREAM}\r\ntransfer-encoding: chunked\r\n\r\n"
        data = chunk("a")
        connection.sendall(f"{head}{len(data):x}\r\n{data}\r\n".encode())
        connection.recv(1)  # until the transformer closes it

    with strange_predictor(two_pieces, Counted) as (predictor, strangers), transforming(model, predictor) as (url, _):
        for number in range(3):
            with HTTP.stream("POST", f"{url}/v1/completions", json=CARET | {"stream": True}) as response:
                texts = response.iter_text()  # kept, since its end closes the response
                next(texts)
                before = len(opened)
            wait_until(functools.partial(grown, before))  # by nobody's request
            assert len(strangers.requests) == number + 1
