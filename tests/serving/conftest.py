"""A tiny model in real servers in threads of the test process; the KServe server itself runs in `test_local`."""

import json
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from serving.http import DirectHandlers
from serving.local import free_port
from serving.predictor.app import PredictorMetrics, create_app
from serving.predictor.app import PredictorService as Predictor
from serving.predictor.completion import CompletionEngine
from serving.predictor.llama_cpp_engine import LlamaCppEngine
from serving.predictor.predictor_config import PredictorConfig
from serving.predictor.transformers_engine import TransformersEngine
from serving.predictor.worker import Worker
from serving.transformer.openapi import include
from serving.transformer.routes import create_router
from serving.transformer.service import TransformerService as Transformer
from serving.transformer.service import build
from serving.transformer.transformer_config import TransformerConfig, prepare
from tests.builders import tiny_model

CONTEXT = 2_048
HTTP = httpx.Client(timeout=60, trust_env=False)
"""One client for all: a new one loads certificates, which takes longer than a completion."""


@pytest.fixture(scope="session", autouse=True)
def _close_connections() -> Iterator[None]:
    yield
    HTTP.close()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Llama with a context long enough that a generation can be interrupted."""
    folder = tmp_path_factory.mktemp("serving") / "model"
    tiny_model(folder, context_length=CONTEXT)
    return folder


@pytest.fixture(scope="session")
def engine(model: Path) -> TransformersEngine:
    return TransformersEngine(model, threads=1)


@pytest.fixture(scope="package", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the GGUF files of tiny models out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="package")
def llama(model: Path, _own_cache: None) -> Iterator[LlamaCppEngine]:
    engine = LlamaCppEngine(model, threads=1)
    yield engine
    engine.close()


@contextmanager
def serving(app: FastAPI | DirectHandlers, port: int = 0) -> Iterator[str]:
    """The base URL of `app` on a server in a thread."""
    port = port or free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=1, access_log=False)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Return when `condition` holds; fail when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def make_predictor(model: Path, engine: CompletionEngine, queue: int = 32, timeout_s: float = 60.0) -> Predictor:
    """A predictor with a loaded engine; only one at a time may use it."""
    config = PredictorConfig(model=str(model), name="tiny", queue=queue, timeout_s=timeout_s)
    metrics = PredictorMetrics()
    worker = Worker(engine, queue=queue, observe=metrics.observe)
    return Predictor(config=config, engine=engine, worker=worker, metrics=metrics)


@contextmanager
def predicting(model: Path, engine: CompletionEngine, queue: int = 32, timeout_s: float = 60.0) -> Iterator[str]:
    """The base URL of a running predictor."""
    with serving(create_app(make_predictor(model, engine, queue, timeout_s))) as url:
        yield url


def figure(url: str, name: str) -> float:
    """The value of a Prometheus sample, 0 where there is none yet."""
    for line in HTTP.get(f"{url}/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[-1])
    return 0.0


@contextmanager
def transforming(model: Path, predictor: str, **settings: Any) -> Iterator[tuple[str, Transformer]]:
    """The base URL of our routes, without KServe around them, and what they share; at `port`, if that is a setting.

    Without a cache of completions, and with nothing computed in advance, unless a test sets them: most ask the same
    again and count what the predictor gets.
    """
    port = settings.pop("port", 0)
    settings = {"completion_cache_bytes": 0, "warm_s": 0.0, **settings}
    config = TransformerConfig(model=str(model), predictor=predictor, name="tiny", **settings)
    service = build(config, prepare(config), CollectorRegistry())
    app = include(FastAPI(), create_router(service))
    with serving(app, port) as url:
        yield url, service


class Stranger(socketserver.BaseRequestHandler):
    """Reads a request and answers with whatever the server's `behaviour` writes to the socket."""

    def handle(self) -> None:
        connection: socket.socket = self.request
        received = b""
        while b"\r\n\r\n" not in received:
            if not (part := connection.recv(65_536)):
                return  # it was opened for a request that never came
            received += part
        head, _, body = received.partition(b"\r\n\r\n")
        server = cast(Strangers, self.server)
        if head.startswith(b"GET "):
            answer = server.pages.get(head.split()[1].decode())
            status = "404 Not Found" if answer is None else "200 OK"
            say(status, json.dumps(answer))(connection)
            return
        length = int(re.findall(rb"content-length: (\d+)", head.lower())[0])
        while len(body) < length:
            body += connection.recv(65_536)
        server.requests.append((head.decode(errors="replace"), body))
        server.behaviour(connection)


class Strangers(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, behaviour: Callable[[socket.socket], None]) -> None:
        super().__init__(("127.0.0.1", 0), Stranger)
        self.behaviour = behaviour
        self.requests: list[tuple[str, bytes]] = []
        """Head and body of each POST request."""
        self.pages: dict[str, Any] = {}
        """Path -> the JSON that a GET request for it is answered with."""


@contextmanager
def strange_predictor(
    behaviour: Callable[[socket.socket], None], kind: type[Strangers] = Strangers
) -> Iterator[tuple[str, Strangers]]:
    """The base URL of a predictor that is not ours: it does on the socket what `behaviour` does."""
    with kind(behaviour) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", server
        server.shutdown()
        thread.join(5)


def say(status: str, body: str, kind: str = "application/json") -> Callable[[socket.socket], None]:
    """A behaviour: one answer, then the connection closes."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n"
    return lambda connection: connection.sendall((head + body).encode())


def chunk(text: str, reason: str | None = None) -> str:
    """An event as vLLM sends it."""
    return f"data: {json.dumps({'choices': [{'index': 0, 'text': text, 'finish_reason': reason}]})}\n\n"
