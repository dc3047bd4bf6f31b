"""A predictor without a model: it answers after given delays, so that only the layer before it takes time.

    python -m benchmarks.keystrokes.stub_engine --port N [--first-ms N] [--token-ms N]

It speaks as much of vLLM's protocol as the transformer needs. A client may set the answer to the request with a given
`x-request-id` in advance (POST /answers); any other request gets TEXT. GET /counts returns the number of requests and
of those that their client left. GET /times returns the milliseconds of each answer since it was last asked, by that id:
they differ from the delays, since timers end on full milliseconds.
"""

import asyncio
import contextlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import uvicorn

from infill import entry
from serving import local

TEXT: Final = "value = compute(other)\n"
PIECE: Final = 4
"""Characters of a token."""
CONTEXT: Final = 32_768
JSON: Final = [(b"content-type", b"application/json")]
EVENTS: Final = [(b"content-type", b"text/event-stream")]
STREAM: Final = re.compile(rb'"stream": ?true')


class StubEngine:
    """The application, in ASGI's own terms, since a framework would cost as much as what is measured."""

    def __init__(self, first_s: float, token_s: float) -> None:
        self._first_s, self._token_s = first_s, token_s
        self._answers: dict[bytes, str] = {}
        self._requests = self._left = 0
        self._left_at = 0.0
        """Time of the system's monotonic clock when a client last left its request."""
        self._times: dict[str, float] = {}
        """Milliseconds from a request to the last part of its answer, by its id."""

    async def __call__(self, scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        """Answer one request, or the messages of the server's life."""
        if scope["type"] != "http":
            return
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        body += message.get("body", b"")
        if scope["path"] == "/v1/completions":
            task = asyncio.ensure_future(self._complete(scope, body, send))
            gone = asyncio.ensure_future(receive())
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self._left, self._left_at = self._left + 1, time.monotonic()
            task.cancel()
            gone.cancel()
            return
        await _whole(send, self._page(scope["path"], body))

    def _page(self, path: str, body: bytes) -> dict[str, Any]:
        if path == "/answers":
            self._answers |= {name.encode(): text for name, text in json.loads(body).items()}
        if path == "/times":
            times, self._times = self._times, {}
            return times
        if path == "/counts":
            return {"requests": self._requests, "left": self._left, "left_at": self._left_at}
        return {"object": "list", "data": [{"id": "stub", "object": "model", "max_model_len": CONTEXT}]}

    async def _complete(self, scope: dict[str, Any], body: bytes, send: Callable[[Any], Any]) -> None:
        self._requests += 1
        name = dict(scope["headers"]).get(b"x-request-id", b"")
        text = self._answers.pop(name, TEXT)
        pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
        usage = {"prompt_tokens": 1, "completion_tokens": len(pieces), "total_tokens": 1 + len(pieces)}
        started = time.monotonic()

        async def until(number: int) -> None:
            """Wait until the token is due, so that one that comes late does not delay the next."""
            due = started + self._first_s + self._token_s * number
            await asyncio.sleep(max(0.0, due - time.monotonic()))

        await until(0)
        if not STREAM.search(body):
            await until(len(pieces) - 1)
            self._note(name, started)
            await _whole(send, {"choices": [_choice(text, "stop")], "usage": usage})
            return
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        for number, piece in enumerate(pieces):
            await until(number)
            await _event(send, {"choices": [_choice(piece, "stop" if number == len(pieces) - 1 else None)]})
        self._note(name, started)
        await _event(send, {"choices": [], "usage": usage})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    def _note(self, name: bytes, started: float) -> None:
        """Keep the time of an answer whose last token is due."""
        if name:
            self._times[name.decode("latin-1")] = 1_000 * (time.monotonic() - started)


def _choice(text: str, reason: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "finish_reason": reason}


async def _event(send: Callable[[Any], Any], value: Any) -> None:
    data = b"data: " + json.dumps(value).encode() + b"\n\n"
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _whole(send: Callable[[Any], Any], value: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": JSON})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})


@contextlib.contextmanager
def stub(first_ms: float, token_ms: float, echo: Callable[[str], None]) -> Iterator[local.Child]:
    """Run a stub on a free port; yield it when it is ready."""
    port = local.free_port()
    arguments = ["--port", str(port), "--first-ms", str(first_ms), "--token-ms", str(token_ms)]
    module = "benchmarks.keystrokes.stub_engine"
    with local.server("stub", module, f"http://127.0.0.1:{port}", arguments, echo) as child:
        yield child


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until a signal arrives."""
    parser = entry.Parser(
        prog="python -m benchmarks.keystrokes.stub_engine", description="A predictor without a model."
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--first-ms", type=float, default=0.0, help="milliseconds to the first token")
    parser.add_argument("--token-ms", type=float, default=0.0, help="milliseconds between tokens")
    options = parser.parse_args(arguments)
    app = StubEngine(options.first_ms / 1_000, options.token_ms / 1_000)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="error", access_log=False, lifespan="off")


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.keystrokes.stub_engine", main))
