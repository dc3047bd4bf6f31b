"""The predictor over HTTP: answers, refusals, cancellation, overload, deadlines."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from infill import manifest, storage
from infill.errors import InputError, ServiceError
from infill.prompt import load_encoder
from serving.events import read_events
from serving.local import free_port
from serving.predictor.completion import Piece
from serving.predictor.llama_cpp_engine import LlamaCppEngine
from serving.predictor.startup import bind, verify_model
from serving.predictor.transformers_engine import TransformersEngine
from serving.predictor.worker import CompletionJob, Worker
from serving.protocol import ApiError, Sampling
from tests.serving.conftest import CONTEXT, HTTP, figure, predicting, wait_until

PROMPT = list(range(40, 100))
GREEDY: dict[str, Any] = {"prompt": PROMPT, "temperature": 0, "ignore_eos": True}
ENDLESS = GREEDY | {"max_tokens": CONTEXT - len(PROMPT)}
"""Takes seconds when nobody stops it."""
CANCELLED = 'infill_predictor_requests_total{outcome="cancelled"}'
WRITTEN = 'infill_predictor_tokens_total{kind="completion"}'


@pytest.fixture(scope="module", params=["transformers", "llama.cpp"])
def url(
    model: Path, engine: TransformersEngine, llama: LlamaCppEngine, request: pytest.FixtureRequest
) -> Iterator[str]:
    with predicting(model, engine if request.param == engine.name else llama) as address:
        yield address


def ask(url: str, **fields: Any) -> httpx.Response:
    return HTTP.post(f"{url}/v1/completions", json=GREEDY | fields, timeout=60)


def streamed(url: str, **fields: Any) -> list[Any]:
    """The events of a stream; the last is the word [DONE]."""
    body = GREEDY | {"stream": True} | fields
    with HTTP.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [data.decode() for data in read_events(response.iter_bytes())]
    return [data if data == "[DONE]" else json.loads(data) for data in events]


def test_a_stream_and_a_whole_answer_say_the_same(url: str) -> None:
    whole = ask(url, max_tokens=24).json()
    events = streamed(url, max_tokens=24, stream_options={"include_usage": True})
    assert events[-1] == "[DONE]"
    assert "".join(event["choices"][0]["text"] for event in events[:-2]) == whole["choices"][0]["text"]
    assert events[-3]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"] == "length"
    assert events[-2]["choices"] == []
    assert events[-2]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == 24
    assert events[-2]["usage"]["prompt_tokens_details"]["cached_tokens"] == len(PROMPT) - 1


def test_a_seed_fixes_the_sample(url: str) -> None:
    def text(seed: int) -> str:
        return str(ask(url, temperature=1.0, seed=seed, max_tokens=20).json()["choices"][0]["text"])

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_stop_strings_and_stop_tokens_end_the_text_before_them(url: str, model: Path) -> None:
    text = ask(url, max_tokens=40).json()["choices"][0]["text"]
    stop = text[len(text) // 2 :][:3]
    cut = ask(url, max_tokens=40, stop=[stop]).json()["choices"][0]
    assert cut == {"index": 0, "text": text[: text.index(stop)], "logprobs": None, "finish_reason": "stop"}
    token = load_encoder(model).encode(text)[0]
    assert ask(url, max_tokens=40, stop_token_ids=[token]).json()["choices"][0]["finish_reason"] in ("stop", "length")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "text": ({"prompt": "def f("}, "token ids"),
    "texts": ({"prompt": ["def f("]}, "token ids"),
    "no prompt": ({"prompt": None}, "'prompt'"),
    "empty": ({"prompt": []}, "'prompt'"),
    "booleans": ({"prompt": [True]}, "'prompt'"),
    "negative": ({"prompt": [-1]}, "'prompt'"),
    "nested": ({"prompt": [[1, 2]]}, "'prompt'"),
    "beyond the vocabulary": ({"prompt": [512]}, "vocabulary"),
    "too long": ({"max_tokens": CONTEXT}, "exceed the context"),
    "max_tokens": ({"max_tokens": 0}, "'max_tokens'"),
    "temperature": ({"temperature": "hot"}, "'temperature'"),
    "too hot": ({"temperature": 3}, "between 0 and 2"),
    "top_p": ({"top_p": -0.1}, "'top_p'"),
    "seed": ({"seed": 1.5}, "'seed'"),
    "stop": ({"stop": [1]}, "'stop'"),
    "long stop": ({"stop": ["x" * 9_000, "y" * 9_000]}, "'stop'"),
    "stream": ({"stream": "yes"}, "'stream'"),
    "stream_options": ({"stream_options": [1]}, "'stream_options'"),
    "n": ({"n": 2}, "'n'"),
    "logprobs": ({"logprobs": 5}, "'logprobs'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_answered_is_refused_by_name(url: str, case: str) -> None:
    fields, message = REFUSED[case]
    response = ask(url, **fields)
    error = response.json()["error"]
    assert response.status_code == 400
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["code"]


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"seed": ' + b"9" * 5_000 + b"}"])
def test_a_body_that_is_not_a_json_object_is_refused(url: str, body: bytes) -> None:
    response = HTTP.post(f"{url}/v1/completions", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_json"


def test_a_body_that_is_too_large_is_refused(url: str) -> None:
    response = HTTP.post(f"{url}/v1/completions", content=b" " * 4_000_001)
    assert response.status_code == 413


def test_a_stream_that_the_client_leaves_is_cancelled(url: str) -> None:
    cancelled, written = figure(url, CANCELLED), figure(url, WRITTEN)
    with HTTP.stream("POST", f"{url}/v1/completions", json=ENDLESS | {"stream": True}, timeout=60) as response:
        next(response.iter_bytes())
    wait_until(lambda: figure(url, CANCELLED) == cancelled + 1)
    assert figure(url, WRITTEN) - written < ENDLESS["max_tokens"]
    assert ask(url, max_tokens=2).status_code == 200


def test_a_request_without_stream_is_cancelled_when_the_client_goes(url: str) -> None:
    cancelled, written = figure(url, CANCELLED), figure(url, WRITTEN)
    with pytest.raises(httpx.ReadTimeout):
        HTTP.post(f"{url}/v1/completions", json=ENDLESS, timeout=0.3)
    wait_until(lambda: figure(url, CANCELLED) == cancelled + 1)
    assert figure(url, WRITTEN) - written < ENDLESS["max_tokens"]


def test_many_clients_are_served_one_after_the_other(url: str) -> None:
    prompts = [[32 + number, *PROMPT] for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda prompt: ask(url, prompt=prompt, max_tokens=5).json(), prompts))
    alone = [ask(url, prompt=prompt, max_tokens=5).json() for prompt in prompts]
    assert [each["choices"] for each in together] == [each["choices"] for each in alone]


def test_health_models_and_metrics(url: str) -> None:
    for path in ("/health", "/v2/health/live", "/v2/health/ready"):
        assert HTTP.get(url + path).status_code == 200
    listed = HTTP.get(f"{url}/v1/models").json()
    assert (listed["data"][0]["id"], listed["data"][0]["max_model_len"]) == ("tiny", CONTEXT)
    assert figure(url, "infill_predictor_cache_bytes") > 0


def test_the_request_id_comes_back(url: str) -> None:
    response = HTTP.post(f"{url}/v1/completions", json=GREEDY, headers={"x-request-id": "editor-7"})
    assert response.headers["x-request-id"] == "editor-7"
    assert response.json()["id"] == "cmpl-editor-7"
    response = HTTP.post(f"{url}/v1/completions", json=GREEDY, headers={"x-request-id": "a b;c"})
    assert response.headers["x-request-id"] != "a b;c"


def test_a_full_queue_refuses_and_says_when_to_come_back(model: Path, engine: TransformersEngine) -> None:
    with predicting(model, engine, queue=1) as url, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(url, max_tokens=200), range(8)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert {answer.status_code for answer in answers} == {200, 429}
        assert all(answer.headers["retry-after"] == "1" for answer in refused)
        assert refused[0].json()["error"]["code"] == "overloaded"


def test_a_deadline_ends_a_request_wherever_it_is(model: Path, engine: TransformersEngine) -> None:
    with predicting(model, engine, timeout_s=0.3) as url:
        response = HTTP.post(f"{url}/v1/completions", json=ENDLESS, timeout=30)
        assert response.status_code == 504
        assert response.json()["error"]["code"] == "timeout"
        events = streamed(url, **ENDLESS)
        assert events[-2]["error"]["code"] == "timeout"
        assert events[-1] == "[DONE]"


def test_a_defect_answers_500_and_after_three_the_predictor_is_unhealthy(
    model: Path, engine: TransformersEngine
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a kernel died")

    with predicting(model, engine) as url:
        handle = engine.model.register_forward_pre_hook(fail)
        try:
            statuses = [ask(url, prompt=[50, number + 50]).status_code for number in range(3)]
            wait_until(lambda: HTTP.get(f"{url}/v2/health/ready").status_code == 503)  # the probe follows the answer
        finally:
            handle.remove()
        assert statuses == [500, 500, 500]
        assert ask(url).status_code == 200
        wait_until(lambda: HTTP.get(f"{url}/v2/health/ready").status_code == 200)


def test_requests_that_nobody_waits_for_make_room_in_the_queue(engine: TransformersEngine) -> None:
    worker = Worker(engine, queue=1, observe=lambda *_: None)
    answers: list[Piece | ApiError] = []

    def job() -> CompletionJob:
        return CompletionJob(prompt=PROMPT, sampling=Sampling(max_tokens=1), deadline=float("inf"), emit=answers.append)

    first = job()
    worker.submit(first)
    with pytest.raises(ApiError, match="too many requests"):
        worker.submit(job())
    first.cancelled.set()
    worker.submit(job())
    worker.start()
    wait_until(lambda: len(answers) == 1)
    worker.stop()


def test_the_model_must_be_the_deployed_one(model: Path, tmp_path: Path) -> None:
    record = str(tmp_path / "deployment.json")
    storage.write_json(record, {"model_uri": str(model), "model_digest": manifest.digest_of(str(model))})
    verify_model(model, record)
    storage.write_json(record, {"model_uri": str(model), "model_digest": "0" * 64})
    with pytest.raises(InputError, match="deploy again"):
        verify_model(model, record)


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded() -> None:
    taken = bind("127.0.0.1", free_port())
    taken.listen()
    with pytest.raises(ServiceError, match="choose another --port"):
        bind("127.0.0.1", taken.getsockname()[1])
    taken.close()


def test_the_command_line_says_what_is_wrong_in_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serving.predictor", "--model", str(tmp_path / "none"), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("predictor: there is nothing at")
