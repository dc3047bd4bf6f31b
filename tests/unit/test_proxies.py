"""Requests to this machine go to it directly, all others as the environment says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infill import entry, proxies
from infill.errors import InputError, ServiceError
from infill.preferences.llm import LlmJudge
from infill.release.smoke import ask
from serving.client import complete
from tests.serving.conftest import say, strange_predictor

ANSWER = '{"choices": [{"text": "x", "message": {"content": "x"}}], "infill": {"prompt_tokens": 1, "context": []}}'
HERE = ["http://localhost:1", "https://LOCALHOST./", "http://127.0.0.1:8080", "http://127.9.9.9/x", "http://[::1]:8080"]
HERE += ["http://0.0.0.0:80", "http://[::]:80", "http://[::ffff:127.0.0.1]:80", "http://a.localhost:3"]
ELSEWHERE = ["http://localhost.example.com", "http://10.0.0.1", "http://infill-predictor.team", "http://[::2]", "x", ""]


@pytest.mark.parametrize("url", HERE)
def test_this_machine(url: str) -> None:
    assert proxies.is_local(url)


@pytest.mark.parametrize("url", ELSEWHERE)
def test_another_machine(url: str) -> None:
    assert not proxies.is_local(url)


def _complete(url: str, folder: Path) -> Any:
    (folder / "a.py").write_text("x = 1\n")
    return complete(url, str(folder), "a.py", 1, 1)["text"]


def _judge(url: str, _: Path) -> Any:
    with LlmJudge(url, "m", sleep=lambda _: None) as judge:
        return judge._ask([], 1).json()["choices"][0]["message"]["content"]


def _ask(url: str, _: Path) -> Any:
    with proxies.client(url, timeout=5) as client:
        return ask(client, {"prompt": "a"})["text"]


CALLS: dict[str, Callable[[str, Path], Any]] = {"complete": _complete, "judge": _judge, "smoke": _ask}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment without any word about proxies."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


@pytest.mark.parametrize("variable", ["http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("call", CALLS)
def test_a_server_here_is_asked_without_a_proxy(
    environment: pytest.MonkeyPatch, tmp_path: Path, call: str, variable: str
) -> None:
    environment.setenv(variable, "http://127.0.0.1:9")
    with strange_predictor(say("200 OK", ANSWER)) as (url, _):
        assert CALLS[call](url, tmp_path) == "x"


@pytest.mark.parametrize("call", CALLS)
def test_a_server_elsewhere_is_asked_through_the_proxy(
    environment: pytest.MonkeyPatch, tmp_path: Path, call: str
) -> None:
    with strange_predictor(say("200 OK", ANSWER)) as (proxy, seen):
        environment.setenv("http_proxy", proxy)
        assert CALLS[call]("http://models.invalid", tmp_path) == "x"
    assert seen.requests[0][0].startswith("POST http://models.invalid/")


def test_a_proxy_that_cannot_be_used_is_named(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(InputError, match="the proxy in ALL_PROXY cannot be used"):
        _complete("http://models.invalid", tmp_path)
    with pytest.raises(ServiceError, match="no server answers"):
        _complete("http://127.0.0.1:9", tmp_path)


PROXIES: list[tuple[dict[str, str], str, str | None]] = [
    ({}, "http://models.invalid", None),
    ({"http_proxy": "http://proxy:1"}, "http://models.invalid", "http://proxy:1"),
    ({"http_proxy": "http://proxy:1"}, "https://models.invalid", None),
    ({"ALL_PROXY": "http://user:word@proxy:1"}, "https://models.invalid", "http://user:word@proxy:1"),
    ({"http_proxy": "http://proxy:1", "no_proxy": ".invalid"}, "http://models.invalid:8080/a", None),
    ({"ALL_PROXY": "socks5://proxy:1"}, "http://127.0.0.1:8080", None),
]


@pytest.mark.parametrize(("variables", "url", "proxy"), PROXIES)
def test_the_proxy_of_a_server(
    environment: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: str | None
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    assert proxies.proxy_of(url) == proxy


def test_the_proxy_of_a_server_must_speak_http(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(InputError, match="the proxy in ALL_PROXY cannot be used: it must begin with http"):
        proxies.proxy_of("http://models.invalid")
    with pytest.raises(InputError, match="is not a URL"):
        proxies.proxy_of("http://a:b")


def test_what_is_not_a_url_is_refused() -> None:
    with pytest.raises(InputError, match="is not a URL"):
        proxies.client("http://a:b")


NO_PROXY: list[tuple[dict[str, str], str]] = [
    ({}, "localhost,127.0.0.1,::1"),
    ({"NO_PROXY": ".svc, 10.0.0.0/8"}, ".svc,10.0.0.0/8,localhost,127.0.0.1,::1"),
    ({"no_proxy": "127.0.0.1", "NO_PROXY": "ignored"}, "127.0.0.1,localhost,::1"),
]


@pytest.mark.parametrize(("before", "after"), NO_PROXY)
def test_programs_tell_libraries_and_children_to_spare_this_machine(before: dict[str, str], after: str) -> None:
    environment = dict(before)
    entry.spare_loopback(environment)
    assert environment == {"no_proxy": after, "NO_PROXY": after}
    entry.spare_loopback(environment)
    assert environment["NO_PROXY"] == after
    everything = {"NO_PROXY": "*"}
    entry.spare_loopback(everything)
    assert everything == {"NO_PROXY": "*"}
