"""The way to the server: another model on it, and every way in which it can disappoint."""

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infill.editor.completer import Completer, Completion
from infill.editor.documents import Caret, DocumentLocation
from infill.editor.project import Project
from infill.editor.remote import AwayError, PausedError, Remote
from infill.errors import ServiceError
from infill.prompt import load_format, read_tokenizer
from serving.local import free_port
from tests.editor.conftest import write
from tests.serving.conftest import Strangers, say, strange_predictor

LIMITS = {"max_prompt_tokens": 256, "max_new_tokens": 16, "tokenizer": "one", "strategy": "infill", "context_items": 8}
CARET = Caret(DocumentLocation(None, "a.py"), "x = ", "\n")
GOOD = say("200 OK", json.dumps({"choices": [{"text": "1 + 1"}]}))


@pytest.fixture
def stranger(model: Path) -> Iterator[tuple[str, Strangers]]:
    """A server that describes itself as Infill's do; what it answers is set by the test."""
    with strange_predictor(GOOD) as (url, server):
        server.pages["/v1/models"] = {"data": [{"id": "tiny", "infill": LIMITS}]}
        fmt = load_format(model).to_json()
        server.pages["/v1/tokenizer"] = {"tokenizer": read_tokenizer(model), "prompt_format": fmt}
        yield url, server


def complete(url: str, caret: Caret = CARET, project: Project | None = None, times: int = 1) -> Completion | None:
    async def run() -> Completion | None:
        remote = Remote(url, timeout_s=5)
        try:
            completer = Completer(remote, 16)
            for _ in range(times):
                completion = await completer.complete(caret, project)
            return completion
        finally:
            await remote.close()

    return asyncio.run(run())


def one_after_the_other(*behaviours: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    left = [*behaviours]
    return lambda connection: left.pop(0)(connection) if len(left) > 1 else left[0](connection)


def refusal(status: str, code: str) -> Callable[[socket.socket], None]:
    return say(status, json.dumps({"error": {"message": "no", "code": code}}))


@pytest.mark.parametrize("code", ["tokenizer_changed", "prompt_too_long"])
def test_for_another_model_the_prompt_is_packed_again(stranger: tuple[str, Strangers], code: str) -> None:
    url, server = stranger

    def changed(connection: socket.socket) -> None:
        limits = {**LIMITS, "tokenizer": "two", "max_prompt_tokens": 32}
        server.pages["/v1/models"] = {"data": [{"id": "other", "infill": limits}]}
        refusal("409 Conflict", code)(connection)

    server.behaviour = one_after_the_other(changed, GOOD)
    completion = complete(url, CARET._replace(prefix="value = 12345\n" * 40 + "x = "))
    assert completion is not None
    bodies = [json.loads(body) for _, body in server.requests]
    assert [body["tokenizer"] for body in bodies] == ["one", "two"]
    assert [len(body["prompt"]) > 32 for body in bodies] == [True, False]


DISAPPOINTING: dict[str, tuple[Any, Any, str]] = {
    "an error": (None, refusal("503 Service Unavailable", "predictor_unavailable"), "answered 503: no"),
    "no key": (None, refusal("401 Unauthorized", "x"), "put a valid key into INFILL_API_KEY"),
    "no JSON": (None, say("200 OK", "<html>"), "sent no JSON"),
    "another answer": (None, say("200 OK", "[1]"), "does not answer like an Infill server"),
    "a text that is none": (None, say("200 OK", '{"choices": [{"text": 1}]}'), "text is 1"),
    "closing": (None, lambda _: None, "no server answers"),
    "another server": (
        {"data": [{"id": "llama"}]},
        GOOD,
        "is not an Infill server of this version: /v1/models lacks 'infill'",
    ),
    "an older server": ({"data": [{"id": "a", "infill": {"prompt_format": "x"}}]}, GOOD, "lacks 'tokenizer'"),
    "no model": ({"data": []}, GOOD, "not an Infill server"),
}


@pytest.mark.parametrize("case", DISAPPOINTING)
def test_a_server_that_disappoints_gives_a_clear_error(stranger: tuple[str, Strangers], case: str) -> None:
    models, behaviour, message = DISAPPOINTING[case]
    url, server = stranger
    server.behaviour = behaviour
    server.pages["/v1/models"] = models or server.pages["/v1/models"]
    with pytest.raises(ServiceError) as error:
        complete(url)
    assert message in str(error.value)


def test_an_overloaded_server_is_left_alone_without_a_message(stranger: tuple[str, Strangers]) -> None:
    url, server = stranger
    server.behaviour = refusal("429 Too Many Requests", "overloaded")

    async def run() -> None:
        remote = Remote(url)
        completer = Completer(remote, 16)
        for _ in range(3):
            with pytest.raises(PausedError):
                await completer.complete(CARET, None)
        await remote.close()

    asyncio.run(run())
    assert len(server.requests) == 1


def test_a_connection_that_the_server_closes_meanwhile_is_not_an_error(stranger: tuple[str, Strangers]) -> None:
    url, server = stranger
    server.behaviour = one_after_the_other(lambda _: None, GOOD)
    assert complete(url) is not None
    assert len(server.requests) == 2


def test_a_tokenizer_that_cannot_be_used_gives_a_clear_error(stranger: tuple[str, Strangers]) -> None:
    url, server = stranger
    server.pages["/v1/tokenizer"]["tokenizer"] = {"model": {}}
    with pytest.raises(ServiceError, match=r"the tokenizer of .* cannot be used"):
        complete(url)


def test_a_server_that_is_down_is_not_asked_at_each_keystroke() -> None:
    async def run() -> list[type[ServiceError]]:
        remote, hit = Remote(f"http://127.0.0.1:{free_port()}"), []
        for _ in range(3):
            with pytest.raises(ServiceError) as error:
                await remote.model()
            hit.append(error.type)
        await remote.close()
        return hit

    assert asyncio.run(run()) == [AwayError, PausedError, PausedError]


def test_a_blank_completion_is_none(stranger: tuple[str, Strangers]) -> None:
    url, server = stranger
    server.behaviour = say("200 OK", json.dumps({"choices": [{"text": " \n\t"}]}))
    assert complete(url) is None


def test_a_project_that_is_not_indexed_yet_has_no_context(stranger: tuple[str, Strangers], tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "x = \n", "b.py": "x = 1\n"})
    place = DocumentLocation(tmp_path, "a.py")
    completion = complete(stranger[0], CARET._replace(place=place), Project(tmp_path))
    assert completion is not None
    assert completion.items == ()
    project = Project(tmp_path)
    project.refresh()
    completion = complete(stranger[0], CARET._replace(place=place), project)
    assert completion is not None
    assert [item.path for item in completion.items] == ["b.py"]


def test_a_completion_is_kept_while_its_beginning_is_typed() -> None:
    typed = Completion("1 + 1", CARET).after_typing(CARET._replace(prefix="x = 1"))
    assert typed is not None
    assert typed.text == " + 1"
    assert Completion("1 + 1", CARET).after_typing(CARET._replace(prefix="x =")) is None
    assert Completion("1 + 1", CARET).after_typing(CARET._replace(prefix="x = 2")) is None
    assert Completion("1 + 1", CARET).after_typing(CARET._replace(suffix=")")) is None
    assert Completion("1 + 1", CARET).after_typing(CARET._replace(prefix="x = 1 + 1")) is None
