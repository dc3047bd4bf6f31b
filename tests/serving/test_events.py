"""Text arrives as it was generated, whatever characters are in it and however its bytes are cut on the way."""

import copy
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from infill.prompt import load_encoder
from infill.release.smoke import ask
from serving.events import EventReader, event, read_events
from serving.predictor.transformers_engine import TransformersEngine
from tests.properties import examples
from tests.serving.conftest import HTTP, Strangers, predicting, strange_predictor, transforming

BREAKS = "\n\r\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029"
"""What some reader takes for the end of a line; only the first two end a line of an event stream."""
texts = st.text(st.sampled_from(BREAKS) | st.characters(exclude_categories=["Cs"]), max_size=20)
many = examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def chunked(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    """The stream in pieces."""
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@given(values=st.lists(texts, max_size=5), end=st.sampled_from([b"\n", b"\r", b"\r\n"]), data=st.data())
def test_events_are_read_however_their_bytes_are_cut(values: list[str], end: bytes, data: st.DataObject) -> None:
    lines = [b"data: " + json.dumps(value, ensure_ascii=False).encode() + end + end for value in values]
    pieces = data.draw(chunked(b": a comment" + end + b"".join(lines) + b"data: never ended"))
    answer = [json.loads(each) for each in read_events(pieces)]
    assert answer == values or (end == b"\r" and answer == values[:-1])  # the last CR may be half of a CRLF


def test_the_fields_of_an_event() -> None:
    reader = EventReader()
    assert reader.feed(b"\xef\xbb\xbfdata: a\ndata:b\r\nid: 7\r\rdata\n\n\n: c\n\ndata: d\n") == [b"a\nb", b""]
    assert reader.feed(b"\n") == [b"d"]


@given(text=texts | st.text())
def test_an_event_is_one_line_for_every_reader(text: str) -> None:
    written = event({"text": text}).decode("ascii")
    assert len(written.splitlines()) == 2
    assert json.loads(next(read_events([written.encode()]))) == {"text": text}


@pytest.fixture(scope="module")
def pair(model: Path) -> Iterator[tuple[str, Strangers]]:
    """A transformer and its predictor, which writes what a test has it write."""
    with strange_predictor(lambda _: None) as (predictor, strangers), transforming(model, predictor) as (url, _):
        yield url, strangers


def streamed(url: str, **fields: Any) -> str:
    body = {"prompt": "=", "stream": True, **fields}
    with HTTP.stream("POST", f"{url}/v1/completions", json=body) as response:
        events = [json.loads(data) for data in read_events(response.iter_bytes()) if data != b"[DONE]"]
    return "".join(each["choices"][0]["text"] for each in events)


@many
@given(text=texts, data=st.data())
def test_text_of_another_server_arrives_as_it_was_written(
    pair: tuple[str, Strangers], text: str, data: st.DataObject
) -> None:
    url, strangers = pair
    values = [{"index": 0, "text": each, "finish_reason": None} for each in (text[:3], text[3:])]
    values.append({"index": 0, "text": "", "finish_reason": "stop"})
    lines = [json.dumps({"choices": [value]}, ensure_ascii=False) for value in values]
    pieces = data.draw(chunked("".join(f"data: {line}\r\n\r\n" for line in lines).encode()))

    def answer(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        for piece in pieces:
            connection.sendall(piece)

    strangers.behaviour = answer
    whole = HTTP.post(f"{url}/v1/completions", json={"prompt": "="})
    assert whole.json()["choices"][0]["text"] == text
    assert streamed(url) == text


def test_a_character_in_two_halves_is_put_together(pair: tuple[str, Strangers]) -> None:
    url, strangers = pair
    halves = [{"choices": [{"text": half, "finish_reason": None}]} for half in ("\ud83d", "\ude42")]
    halves.append({"choices": [{"text": None, "finish_reason": "stop"}]})
    stream = b"".join(map(event, halves))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    strangers.behaviour = lambda connection: connection.sendall(head + stream)
    assert HTTP.post(f"{url}/v1/completions", json={"prompt": "="}).json()["choices"][0]["text"] == "🙂"
    assert streamed(url).encode("utf-16", "surrogatepass").decode("utf-16") == "🙂"


@pytest.fixture(scope="module")
def dictated(model: Path, engine: TransformersEngine) -> Iterator[tuple[str, list[int]]]:
    """A transformer, a predictor whose model writes the tokens in a list, and that list."""
    tokens: list[int] = []
    scribe = copy.copy(engine)
    scribe.generate = lambda *_: iter([*tokens, 0])  # type: ignore[method-assign]
    with predicting(model, scribe) as predictor, transforming(model, predictor) as (url, _):
        yield url, tokens


@many
@given(text=texts)
def test_text_arrives_as_our_predictor_wrote_it(dictated: tuple[str, list[int]], model: Path, text: str) -> None:
    url, tokens = dictated
    tokens[:] = load_encoder(model).encode(text)
    with httpx.Client(base_url=url, trust_env=False) as client:
        assert ask(client, {"prompt": "="})["text"] == text
    assert streamed(url) == text


def test_the_openai_package_reads_line_separators(dictated: tuple[str, list[int]], model: Path) -> None:
    url, tokens = dictated
    text = f"a{BREAKS}b"
    tokens[:] = load_encoder(model).encode(text)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        chunks = list(client.completions.create(model="tiny", prompt="=", stream=True))
        assert "".join(chunk.choices[0].text for chunk in chunks) == text
