"""The cache of completions: what it answers is what the predictor answered to the same user in the same place."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from infill.context.packing import Packed
from infill.prompt import Prompt
from serving.events import read_events
from serving.transformer import keys, upstream
from serving.transformer.completion_cache import MAX_AGE_S, CompletionCache
from serving.transformer.prefix_trie import PrefixTrie, TrieNode
from serving.transformer.service import TransformerService
from tests.serving.conftest import HTTP, Strangers, chunk, say, strange_predictor, transforming
from tests.serving.test_canary import paired
from tests.serving.test_workspaces import FILES, listed, patch, put

CACHE = {"completion_cache_bytes": 1_000_000}
TEXT = "width * height\n"
CARET: dict[str, Any] = {
    "prompt": "def area(width, height):\n    return ",
    "suffix": "\n\nx = 1\n",
    "path": "a.py",
    "max_tokens": 8,
    "session": "window",
    "context": [{"path": "b.py", "text": "y = 2\n"}],
    "recent": ["b.py"],
}
PACKED = Packed(prompt=Prompt(ids=[1, 2, 3], items=()), why_empty="")

# The trie

TEXTS = st.text("ab", max_size=6)


@given(st.lists(st.tuples(st.sampled_from(["put", "remove"]), TEXTS), max_size=40), TEXTS)
def test_a_trie_knows_the_values_on_the_way_to_a_text(steps: list[tuple[str, str]], wanted: str) -> None:
    trie, nodes = PrefixTrie[str](), dict[str, TrieNode[str]]()
    for step, text in steps:
        if step == "put":
            nodes[text] = trie.put(text, f"of {text}")
        elif text in nodes:
            trie.remove(nodes.pop(text))
    expected = [(len(text), f"of {text}") for text in sorted(nodes, key=len) if wanted.startswith(text)]
    assert [(length, node.value) for length, node in trie.along(wanted)] == expected
    assert trie.memory >= 400 * len([text for text in nodes if text])
    for node in nodes.values():
        trie.remove(node)
    assert trie.memory == 0


# The cache


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def kept(text: str, reason: str = "stop", clock: Clock | None = None) -> CompletionCache:
    cache = CompletionCache(1_000_000, CollectorRegistry(), clock or Clock())
    cache.keep("lane", "x = ", text, reason, PACKED)
    return cache


@given(st.text("ab \n", max_size=8), st.text("ab \n", max_size=8))
def test_what_is_left_is_the_end_of_what_was_answered(text: str, typed: str) -> None:
    answer = kept(text).find("lane", f"x = {typed}")
    if answer is not None:
        assert typed + answer.text == text
    else:
        assert not text.startswith(typed) or not text[len(typed) :].strip()


def test_the_latest_answer_on_the_way_serves() -> None:
    cache = kept("a + b")
    cache.keep("lane", "x = a", " - c", "stop", PACKED)
    assert [answer and answer.text for answer in (cache.find("lane", "x = "), cache.find("lane", "x = a"))] == [
        "a + b",
        " - c",
    ]
    assert cache.find("lane", "x = a +") is not None  # the latest is another from here on, the one before serves


def test_an_answer_serves_for_a_while() -> None:
    clock = Clock()
    cache = kept("a + b", clock=clock)
    clock.now = MAX_AGE_S
    assert cache.find("lane", "x = ")
    clock.now += 1
    assert cache.find("lane", "x = ") is None


def test_of_an_answer_that_ended_at_a_limit_a_short_rest_does_not_serve() -> None:
    for reason, serves in (("stop", True), ("length", False)):
        assert (kept("abcdef", reason).find("lane", "x = abcd") is not None) == serves
    assert kept("abcdef", "length").find("lane", "x = abc") is not None


def test_the_cache_stays_below_its_cap_and_forgets_the_least_recently_used() -> None:
    cache = CompletionCache(40_000, CollectorRegistry())
    cache.keep("lane", "first", "1", "stop", PACKED)
    for number in range(200):
        cache.keep("lane", f"text {number}" * 40, str(number), "stop", PACKED)
        assert cache.memory <= 40_000
        assert cache.find("lane", "first")
    assert 5 < len(cache) < 40
    assert cache.find("lane", "text 198" * 40)
    assert cache.find("lane", "text 0" * 40) is None


# The server


@pytest.fixture
def stack(model: Path) -> Iterator[tuple[str, TransformerService, Strangers]]:
    answer = say("200 OK", chunk(TEXT, "stop") + "data: [DONE]\n\n", "text/event-stream")
    with (
        strange_predictor(answer) as (predictor, strangers),
        transforming(model, predictor, telemetry="metrics", **CACHE) as (url, service),
    ):
        yield url, service, strangers


def ask(url: str, key: str = "", **fields: Any) -> Any:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    response = HTTP.post(f"{url}/v1/completions", json=CARET | fields, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def test_typing_through_a_suggestion_and_deleting_back_asks_the_predictor_once(
    stack: tuple[str, TransformerService, Strangers],
) -> None:
    url, service, strangers = stack
    first = ask(url)
    assert (first["choices"][0]["text"], first["infill"]["cached"]) == (TEXT, False)
    for typed in ("w", "width", "width *", "wi", ""):
        answer = ask(url, prompt=CARET["prompt"] + typed)
        assert answer["choices"] == [{**first["choices"][0], "text": TEXT.removeprefix(typed)}]
        assert answer["infill"]["cached"]
        assert answer["infill"]["context"] == first["infill"]["context"]
        assert answer["usage"]["prompt_tokens"] == first["usage"]["prompt_tokens"]
    assert len(strangers.requests) == 1
    results = [("same", 1), ("typed", 4), ("miss", 1)]
    assert [service.completions.metrics.lookups.labels(name)._value.get() for name, _ in results] == [
        count for _, count in results
    ]
    assert ask(url, prompt=CARET["prompt"] + "h")["infill"]["cached"] is False


def test_a_stream_from_the_cache_is_like_any_other_and_has_an_id_of_its_own(
    stack: tuple[str, TransformerService, Strangers],
) -> None:
    url, _, strangers = stack
    first = ask(url)
    body = CARET | {"prompt": CARET["prompt"] + "width", "stream": True, "stream_options": {"include_usage": True}}
    with HTTP.stream("POST", f"{url}/v1/completions", json=body) as response:
        *data, done = read_events(response.iter_bytes())
    assert done == b"[DONE]"
    events = [json.loads(each) for each in data]
    assert "".join(event["choices"][0]["text"] for event in events[:-1]) == " * height\n"
    assert events[0]["infill"]["cached"]
    assert events[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] == first["usage"]["prompt_tokens"]
    assert len(strangers.requests) == 1
    accepted = {"type": "select", "completion_id": events[0]["id"], "accepted_chars": 9}
    assert events[0]["id"] != first["id"]
    assert HTTP.post(f"{url}/v1/events", json=accepted).status_code == 200
    assert HTTP.post(f"{url}/v1/events", json=accepted | {"accepted_chars": 11}).status_code == 400


OTHER: dict[str, dict[str, Any]] = {
    "suffix": {"suffix": "\n\nx = 2\n"},
    "path": {"path": "c.py"},
    "session": {"session": "another window"},
    "no session": {"session": ""},
    "unsaved text": {"context": [{"path": "b.py", "text": "y = 3\n"}]},
    "another file": {"context": [*CARET["context"], {"path": "c.py", "text": ""}]},
    "recent files": {"recent": ["c.py", "b.py"]},
    "length": {"max_tokens": 4},
    "stop": {"stop": ["\n"]},
    "stop token": {"stop_token_ids": [7]},
    "endless": {"ignore_eos": True},
    "no end of the unit": {"stop_at_unit": False},
    "language": {"language": "go"},
    "a sample": {"temperature": 0.5},
}


@pytest.mark.parametrize("case", OTHER)
def test_a_request_that_differs_is_answered_by_the_predictor(
    stack: tuple[str, TransformerService, Strangers], case: str
) -> None:
    url, _, strangers = stack
    ask(url)
    assert not ask(url, **OTHER[case])["infill"]["cached"]
    assert len(strangers.requests) == 2
    assert ask(url)["infill"]["cached"]


def test_a_sample_is_never_kept(stack: tuple[str, TransformerService, Strangers]) -> None:
    for _ in range(2):
        assert not ask(stack[0], temperature=0.5)["infill"]["cached"]


def test_a_changed_workspace_is_another_place_but_not_the_saved_text_of_the_file_itself(
    stack: tuple[str, TransformerService, Strangers],
) -> None:
    url = stack[0]
    address = f"{url}/v1/workspaces/project"
    files = {**FILES, "main.py": "x = 1\n"}
    revision = put(address, {"files": listed(files), "texts": files})["revision"]
    fields: dict[str, Any] = {"workspace": "project", "path": "main.py", "context": []}
    assert [ask(url, **fields)["infill"]["cached"] for _ in range(2)] == [False, True]
    saved = {"main.py": "x = 2\n"}
    revision = patch(address, {"revision": revision, "files": listed(saved), "texts": saved})["revision"]
    assert ask(url, **fields)["infill"]["cached"]
    other = {"a.py": "def alpha(last):\n    return last\n"}
    patch(address, {"revision": revision, "files": listed(other)})
    assert not ask(url, **fields)["infill"]["cached"]
    patch(address, {"texts": other})
    assert not ask(url, **fields)["infill"]["cached"]  # the text of the file has come: the prompt is another one
    assert ask(url, **fields)["infill"]["cached"]


def test_no_tenant_gets_an_answer_of_another(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    a, a_too, b = (keys.add(file, tenant) for tenant in ("team-a", "team-a", "team-b"))
    answer = say("200 OK", chunk(TEXT, "stop") + "data: [DONE]\n\n", "text/event-stream")
    with (
        strange_predictor(answer) as (predictor, strangers),
        transforming(model, predictor, keys=str(file), tenant_tokens=10_000, **CACHE) as (url, _),
    ):
        assert [ask(url, key)["infill"]["cached"] for key in (a, b, a_too, a, b)] == [False, False, False, True, True]
    assert len(strangers.requests) == 3


def test_the_sides_of_a_canary_do_not_share_answers(model: Path) -> None:
    with paired(model, canary_weight=100.0, **CACHE) as pair:
        assert [pair.ask("s").json()["choices"][0]["text"] for _ in range(2)] == ["new", "new"]
        pair.state.weight = 0.0
        assert [pair.ask("s").json()["choices"][0]["text"] for _ in range(2)] == ["stable", "stable"]
        pair.state.weight = 100.0
        answer = pair.ask("s").json()
        assert (answer["model"], answer["infill"]["cached"]) == ("candidate", True)
        assert (len(pair.stable.requests), len(pair.candidate.requests)) == (1, 1)


def test_an_answer_that_breaks_off_is_not_kept(stack: tuple[str, TransformerService, Strangers]) -> None:
    url, service, strangers = stack
    strangers.behaviour = say("200 OK", chunk("wid"), "text/event-stream")
    assert HTTP.post(f"{url}/v1/completions", json=CARET).status_code == 503
    assert len(service.completions) == 0


@pytest.mark.parametrize("notice", ["it broke off", "it has another context"])
def test_another_predictor_answers_for_itself(
    stack: tuple[str, TransformerService, Strangers], monkeypatch: pytest.MonkeyPatch, notice: str
) -> None:
    url, _, strangers = stack
    answering, broke_off = strangers.behaviour, notice == "it broke off"
    monkeypatch.setattr(upstream, "KEEP_ALIVE_S", 3600.0 if broke_off else 0.0)
    ask(url)
    if broke_off:
        strangers.behaviour = say("200 OK", chunk("wid"), "text/event-stream")
        assert HTTP.post(f"{url}/v1/completions", json=CARET | {"path": "c.py"}).status_code == 503
        strangers.behaviour = answering
    else:
        strangers.pages = {"/v1/models": {"data": [{"id": "a", "max_model_len": 512}]}}
    assert [ask(url)["infill"]["cached"] for _ in range(2)] == [False, True]
