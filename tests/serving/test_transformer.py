"""The transformer with a real predictor: what editors get, and which errors they see when they ask wrongly."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from infill.prompt import load_format
from serving.events import read_events
from serving.predictor.transformers_engine import TransformersEngine
from serving.transformer.request import read_request
from serving.transformer.service import TransformerService
from tests.properties import examples
from tests.serving.conftest import CONTEXT, HTTP, figure, predicting, transforming, wait_until

NEW = 64
FILES = [
    {
        "path": "package/circle.py",
        "text": "class Circle:\n    size: int\n\n    def area(self):\n        return self.size\n",
    },
    {"path": "package/read.py", "text": "def read_circles(folder):\n    return [Circle() for name in folder]\n"},
]
CARET: dict[str, Any] = {
    "path": "package/largest.py",
    "prompt": "def largest_circle(circles):\n    best = ",
    "suffix": "\n    return best.area()\n",
    "max_tokens": 8,
    "ignore_eos": True,
}


@pytest.fixture(scope="module")
def stack(model: Path, engine: TransformersEngine) -> Iterator[tuple[str, TransformerService, str]]:
    """Address of the transformer, what it shares, address of the predictor."""
    with predicting(model, engine) as predictor:
        settings = {"max_prompt_tokens": 512, "max_new_tokens": CONTEXT - 512}
        with transforming(model, predictor, **settings) as (url, service):
            yield url, service, predictor


@pytest.fixture(scope="module")
def url(stack: tuple[str, TransformerService, str]) -> str:
    return stack[0]


def ask(url: str, **fields: Any) -> httpx.Response:
    return HTTP.post(f"{url}/v1/completions", json=CARET | fields)


def test_an_answer_says_what_is_in_its_prompt(url: str) -> None:
    answer = ask(url, context=FILES).json()
    assert answer["object"] == "text_completion"
    assert answer["model"] == "tiny"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 8
    reported = answer["infill"]
    assert reported["prompt_tokens"] == answer["usage"]["prompt_tokens"] <= 512
    assert {item["path"] for item in reported["context"]} <= {file["path"] for file in FILES}
    assert set(reported["context"][0]) == {"path", "first_line", "last_line", "score", "strategy"}
    assert reported["why_empty"] is None


def test_without_other_files_it_says_why_there_is_no_context(url: str) -> None:
    answer = ask(url).json()["infill"]
    assert answer["context"] == []
    assert answer["why_empty"]


def test_a_stream_gives_the_same_text_and_provenance(url: str) -> None:
    whole = ask(url, context=FILES).json()
    body = CARET | {"context": FILES, "stream": True, "stream_options": {"include_usage": True}}
    with HTTP.stream("POST", f"{url}/v1/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        *line, done = read_events(response.iter_bytes())
    assert done == b"[DONE]"
    events = [json.loads(data) for data in line]
    assert "".join(event["choices"][0]["text"] for event in events[:-1]) == whole["choices"][0]["text"]
    timings = [line.pop("timing_ms") for line in (events[0]["infill"], whole["infill"])]
    assert all(timing["packing"] > 0 and timing["first_token"] > 0 for timing in timings)
    assert events[0]["infill"] == whole["infill"]
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    assert events[-1]["usage"]["completion_tokens"] == 8
    assert len({event["id"] for event in events}) == 1


def test_the_openai_package_works_whole_and_streaming(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        fields: dict[str, Any] = {name: CARET[name] for name in ("prompt", "suffix", "max_tokens")}
        extra = {"path": CARET["path"], "context": FILES, "ignore_eos": True}
        whole = client.completions.create(model="tiny", temperature=0, extra_body=extra, **fields)
        chunks = list(client.completions.create(model="tiny", temperature=0, extra_body=extra, stream=True, **fields))
        assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
        assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 8
        assert [model.id for model in client.models.list()] == ["tiny"]
        with pytest.raises(openai.BadRequestError, match="'n'"):
            client.completions.create(model="tiny", n=3, **fields)


@pytest.mark.parametrize("who", [{"user": "editor"}, {"session": "window 1"}, {}], ids=["user", "session", "nameless"])
def test_the_next_key_stroke_finds_its_prompt_in_the_cache(url: str, who: dict[str, str]) -> None:
    first = ask(url, context=FILES, **who).json()["usage"]
    typed = ask(url, context=FILES, prompt=CARET["prompt"] + "circ", **who).json()["usage"]
    assert typed["prompt_tokens_details"]["cached_tokens"] >= first["prompt_tokens"] - 12


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no prompt": ({"prompt": None}, "'prompt'"),
    "a number": ({"prompt": 5}, "'prompt'"),
    "token ids": ({"prompt": [1, 2, 3]}, "'prompt'"),
    "two prompts": ({"prompt": ["a", "b"]}, "'prompt'"),
    "suffix": ({"suffix": ["a"]}, "'suffix'"),
    "path": ({"path": 1}, "'path'"),
    "long path": ({"path": "a" * 5_000}, "'path'"),
    "path of two lines": ({"path": "a\nb"}, "'path'"),
    "context": ({"context": {"path": "a", "text": "b"}}, "'context'"),
    "context of strings": ({"context": ["a"]}, "'context'"),
    "context without text": ({"context": [{"path": "a"}]}, "'context'"),
    "context with a number": ({"context": [{"path": "a", "text": 1}]}, "'context'"),
    "user": ({"user": 7}, "'user'"),
    "max_tokens": ({"max_tokens": -1}, "'max_tokens'"),
    "temperature": ({"temperature": float("inf")}, "'temperature'"),
    "best_of": ({"best_of": 4}, "'best_of'"),
    "echo": ({"echo": True}, "'echo'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_answered_is_refused_by_name(url: str, case: str) -> None:
    fields, message = REFUSED[case]
    response = HTTP.post(f"{url}/v1/completions", content=json.dumps(CARET | fields))
    assert response.status_code == 400
    error = response.json()["error"]
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"\xff\xff", b"[" * 100_000, b'{"prompt": "\\ud83d"'])
def test_a_body_that_is_not_a_json_object_is_refused(url: str, body: bytes) -> None:
    response = HTTP.post(f"{url}/v1/completions", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_json"


ODD: dict[str, dict[str, Any]] = {
    "nothing before and after": {"prompt": "", "suffix": ""},
    "a list of one": {"prompt": ["def f("]},
    "NUL": {"prompt": "a\0b = ", "suffix": "\0", "path": "a\0.py", "context": [{"path": "\0", "text": "\0\0 b"}]},
    "control tokens": {"prompt": "<fim_middle><|endoftext|>", "suffix": "<fim_suffix>", "path": "<filename>.py"},
    "half an emoji": {"prompt": "x = '\ud83d", "suffix": "\ude00'"},
    "no path": {"path": None, "suffix": None},
    "the path of Windows": {"path": "package\\largest.py"},
    "an empty path": {"path": ""},
    "carriage returns": {"prompt": "a\r\nb\rc\u2028d\x0be\x0cf ="},
    "a file twice": {"context": [{"path": "a.py", "text": "x = 1"}, {"path": "a.py", "text": "largest_circle = 2"}]},
    "the current file": {"context": [{"path": CARET["path"], "text": "def largest_circle(): ..."}]},
    "an empty file": {"context": [{"path": "a.py", "text": ""}]},
    "long lines": {"prompt": "a = " + "9" * 100_000, "suffix": "b" * 100_000},
    "10 MB before the caret": {"prompt": "value = compute(circle)\n" * 440_000},
    "10 MB after the caret": {"suffix": "value = compute(circle)\n" * 440_000},
    "10 MB on one line": {"prompt": "x" * 10_000_000},
    "10 MB of other files": {"context": [{"path": f"f{n}.py", "text": "best = circle\n" * 7_200} for n in range(100)]},
    "more tokens than there is room for": {"max_tokens": 1_000_000, "stop": "\n"},
}


@pytest.mark.parametrize("case", ODD)
def test_odd_text_is_completed_like_any_other(url: str, case: str) -> None:
    fields = {"max_tokens": 2} | ODD[case]
    response = HTTP.post(f"{url}/v1/completions", content=json.dumps(CARET | fields))
    assert response.status_code == 200, response.text
    assert response.json()["infill"]["prompt_tokens"] <= 512


def test_of_a_huge_prompt_the_end_is_kept(stack: tuple[str, TransformerService, str]) -> None:
    service = stack[1]
    prompt = "value = compute(circle)\n" * 440_000
    marked = CARET | {"prompt": prompt + "THE END", "suffix": ""}
    ids = service.packer.pack(read_request(marked, NEW)).prompt.ids
    assert len(ids) <= 512
    assert ids[-1] == service.packer.fmt.fim_middle
    end = service.packer.encoder.encode("(circle)\nTHE END")
    assert ids[-1 - len(end) : -1] == end


def test_a_body_above_the_limit_is_refused(url: str) -> None:
    response = HTTP.post(f"{url}/v1/completions", content=b" " * 16_000_001)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"
    assert ask(url).status_code == 200


@examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.lists(
        st.sampled_from(["<fim_middle>", "<fim_prefix>", "<fim_suffix>", "<|endoftext|>", "<filename>", "\n", "a = b"]),
        max_size=8,
    ).map("".join)
)
def test_control_tokens_in_text_stay_text(stack: tuple[str, TransformerService, str], model: Path, text: str) -> None:
    body = CARET | {"path": text.replace("\n", "") or "a", "prompt": text, "suffix": text, "context": FILES}
    packed = stack[1].packer.pack(read_request(body, NEW))
    fmt = load_format(model)
    control = [token for token in packed.prompt.ids if token < 32]
    assert control == [fmt.filename] * (len(packed.prompt.items) + 1) + [fmt.fim_suffix, fmt.fim_prefix, fmt.fim_middle]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("prompt", "suffix", "path", "context", "temperature", "top_p", "stop", "seed", "stream", "n", "user", "model")


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_whatever_the_fields_hold_there_is_an_answer_or_a_clear_error(url: str, fields: dict[str, Any]) -> None:
    response = HTTP.post(f"{url}/v1/completions", content=json.dumps(CARET | {"max_tokens": 1} | fields))
    assert response.status_code in (200, 400)
    if response.status_code == 400:
        assert set(response.json()["error"]) == {"message", "type", "code", "param"}


def test_twenty_clients_at_once_get_what_each_would_get_alone(url: str) -> None:
    def complete(number: int) -> Any:
        answer = ask(url, prompt=f"value_{number} = ", context=FILES[: number % 3], user=f"editor-{number}").json()
        del answer["infill"]["timing_ms"]
        return answer["choices"], answer["infill"]

    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(complete, range(20)))
    assert together == [complete(number) for number in range(20)]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_when_the_client_goes_the_predictor_stops(stack: tuple[str, TransformerService, str], stream: bool) -> None:
    url, _, predictor = stack
    name = 'infill_predictor_requests_total{outcome="cancelled"}'
    before = figure(predictor, name)
    body = CARET | {"max_tokens": 1_400, "stream": stream}
    if stream:
        with HTTP.stream("POST", f"{url}/v1/completions", json=body) as response:
            next(response.iter_bytes())
    else:
        with pytest.raises(httpx.ReadTimeout):
            HTTP.post(f"{url}/v1/completions", json=body, timeout=0.3)
    wait_until(lambda: figure(predictor, name) == before + 1)
    assert ask(url).status_code == 200


def test_the_request_id_goes_through(url: str) -> None:
    response = HTTP.post(f"{url}/v1/completions", json=CARET, headers={"x-request-id": "editor-7"})
    assert response.headers["x-request-id"] == "editor-7"
    assert response.json()["id"] == "cmpl-editor-7"
