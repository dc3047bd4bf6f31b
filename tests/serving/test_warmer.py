"""Prompts that are computed before they are asked for: what is sent, when, and what ends it."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.transformer.service import TransformerService
from tests.serving.conftest import Strangers, chunk, say, strange_predictor, transforming, wait_until
from tests.serving.test_workspaces import FILES, ask, listed, patch, put

ANSWER = say("200 OK", chunk("y", "stop") + "data: [DONE]\n\n", "text/event-stream")


class Stack:
    """A transformer with a workspace in which one caret was completed, and its predictor."""

    def __init__(self, url: str, service: TransformerService, strangers: Strangers) -> None:
        self.service, self.strangers = service, strangers
        self.address = f"{url}/v1/workspaces/project"
        self.revision = put(self.address, {"files": listed(FILES), "texts": FILES})["revision"]
        self.ask()

    def ask(self, session: str = "window") -> None:
        ask(self.address, session=session, max_tokens=4)

    def save(self, **files: str) -> None:
        body = {"revision": self.revision, "files": listed(files), "texts": files}
        self.revision = patch(self.address, body)["revision"]

    def prompts(self) -> list[Any]:
        return [json.loads(body) for _, body in self.strangers.requests]

    def ended(self, how: str) -> float:
        return float(self.service.warmer.ended.labels(how)._value.get())


@pytest.fixture
def stack(model: Path) -> Iterator[Stack]:
    with (
        strange_predictor(ANSWER) as (predictor, strangers),
        transforming(model, predictor, warm_s=0.01) as (url, service),
    ):
        yield Stack(url, service, strangers)


def test_a_saved_file_has_the_next_prompt_computed_and_the_request_finds_it(stack: Stack) -> None:
    stack.save(**{"a.py": "def alpha(last, first):\n    return first\n"})
    wait_until(lambda: stack.ended("done") == 1)
    stack.ask()
    first, warmed, asked = stack.prompts()
    assert warmed["max_tokens"] == 1
    assert warmed["prompt"] != first["prompt"]
    assert asked["prompt"] == warmed["prompt"]


def test_a_change_that_leaves_the_prompt_as_it_is_asks_nothing(stack: Stack) -> None:
    stack.save(**{"note.py": "\n"})
    wait_until(lambda: stack.ended("same") == 1)
    assert len(stack.prompts()) == 1


def test_a_change_of_another_workspace_warms_nothing(stack: Stack) -> None:
    other = stack.address.replace("project", "other")
    put(other, {"files": listed(FILES), "texts": FILES})
    stack.save(**{"a.py": "def alpha(last, first):\n    return first\n"})
    wait_until(lambda: stack.ended("done") == 1)
    assert len(stack.prompts()) == 2


@pytest.mark.parametrize("session", ["window", "another window"])
def test_any_request_ends_what_is_computed_in_advance(stack: Stack, session: str) -> None:
    closed = threading.Event()

    def behave(connection: socket.socket) -> None:
        if json.loads(stack.strangers.requests[-1][1])["max_tokens"] > 1:
            ANSWER(connection)
        elif connection.recv(1) == b"":
            closed.set()

    stack.strangers.behaviour = behave
    stack.save(**{"a.py": "def alpha(last, first):\n    return first\n"})
    wait_until(lambda: len(stack.prompts()) == 2)
    stack.ask(session)
    assert closed.wait(20)
    wait_until(lambda: stack.ended("cancelled") == 1)


def test_a_server_that_computes_nothing_in_advance_remembers_nothing(model: Path) -> None:
    with strange_predictor(ANSWER) as (predictor, strangers), transforming(model, predictor) as (url, service):
        stack = Stack(url, service, strangers)
        stack.save(**{"a.py": "def alpha(last, first):\n    return first\n"})
        assert len(service.warmer) == 0
