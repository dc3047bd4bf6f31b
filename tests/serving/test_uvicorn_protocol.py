"""The head of a response goes out with the beginning of its body, and the access log has few responses."""

import asyncio
import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from uvicorn import Config, Server

from serving.transformer.uvicorn_protocol import AccessLog, JoinedWrites, QuietProtocol


class Written(asyncio.Transport):
    """A transport that remembers what is written, and when it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.sent.append(b"closed")


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


def test_a_head_waits_for_its_body_but_not_for_the_next_turn_of_the_loop() -> None:
    async def write() -> list[bytes]:
        transport = Written()
        joined = JoinedWrites(transport)
        for data in (HEAD, b"first", b"second", HEAD):
            joined.write(data)
        await asyncio.sleep(0)
        joined.write(b"late")
        joined.write(HEAD)
        joined.close()
        await asyncio.sleep(0)
        return transport.sent

    assert asyncio.run(write()) == [HEAD + b"first", b"second", HEAD, b"late", HEAD, b"closed"]


async def whole(request: Request) -> Response:
    return Response(await request.body())


async def streamed(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one "
        await asyncio.sleep(0.01)
        yield b"two"

    return StreamingResponse(parts())


async def empty(_: Request) -> Response:
    return Response(status_code=204)


ROUTES = [Route("/whole", whole, methods=["POST"]), Route("/streamed", streamed), Route("/empty", empty)]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_every_kind_of_response_is_as_uvicorn_writes_it(loop: str) -> None:
    async def ask() -> list[tuple[int, bytes]]:
        server = Server(Config(Starlette(routes=ROUTES), port=0, http=QuietProtocol, log_level="error"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            answers = [
                await client.post("/whole", content=b"x" * 300_000),
                await client.get("/streamed"),
                await client.head("/streamed"),
                await client.get("/empty"),
                await client.post("/whole", content=b"", headers={"connection": "close"}),
            ]
        server.should_exit = True
        await serving
        return [(answer.status_code, answer.content) for answer in answers]

    factory = None if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        answers = runner.run(ask())
    assert answers == [(200, b"x" * 300_000), (200, b"one two"), (200, b""), (204, b""), (200, b"")]


@pytest.mark.parametrize(
    ("path", "status", "logged"),
    [
        ("/v1/completions", 200, False),
        ("/v1/completions", 429, True),
        ("/v1/completions?a=b", 200, False),
        ("/v1/models", 200, True),
        ("/v2/health/ready", 200, False),
        ("/metrics", 200, False),
    ],
)
def test_only_rare_responses_are_logged(path: str, status: int, logged: bool, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("test.access")
    with caplog.at_level(logging.INFO, "test.access"):
        AccessLog(logger).info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:9", "POST", path, "1.1", status)
    assert len(caplog.messages) == logged
