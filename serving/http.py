"""HTTP helpers of both servers: read a bounded body, notice a client's disconnect, answer with an error."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.protocol import ApiError

T = TypeVar("T")

REQUEST_ID: Final = "x-request-id"
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
DRAIN_FACTOR: Final = 4
"""A body above the limit is read and discarded up to this many limits, else the client would see a broken pipe."""


def request_id(request: Request) -> str:
    """Return the client's `x-request-id` if it is well-formed, else a new id."""
    name = request.headers.get(REQUEST_ID, "")
    return name if re.fullmatch(r"[A-Za-z0-9_.:-]{1,128}", name) else uuid.uuid4().hex


def forwarded(request: Request, names: Collection[str]) -> list[tuple[bytes, bytes]]:
    """Return the request's headers with these lower-case names as bytes, to be forwarded unchanged.

    A value may hold bytes outside ASCII. Blanks around it are stripped (llama.vim without a key sends `Bearer `). A
    value with control characters, which no HTTP client may send, is left out.
    """
    return [
        (name, value.strip(b" \t"))
        for name, value in request.headers.raw
        if name.decode("latin-1").lower() in names and not _CONTROL.search(value)
    ]


async def read_body(request: Request, *, limit: int, timeout_s: float) -> bytes:
    """Return the whole body. Raises ApiError 413 above `limit` bytes and 408 when it does not arrive in time."""
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limit:
                    chunks.append(chunk)
                elif size > DRAIN_FACTOR * limit:
                    break
    except TimeoutError as error:
        raise ApiError(408, f"the body did not arrive within {timeout_s:g} s", code="request_timeout") from error
    if size > limit:
        raise ApiError(413, f"the body is larger than {limit} bytes", code="request_too_large")
    return b"".join(chunks)


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Return the result of `work`; when the client disconnects first, cancel `work` and raise ClientDisconnect.

    The request's body must have been read. Raises ApiError 503 if the server ends, which cancels what it still answers.
    """
    task, gone = asyncio.current_task(), False
    assert task is not None

    async def watch() -> None:
        nonlocal gone
        await _disconnected(request)
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if task.uncancel() == 0:
            raise (ClientDisconnect() if gone else _stopping()) from None
        raise
    finally:
        watcher.cancel()


def _stopping() -> ApiError:
    return ApiError(503, "the server is shutting down; send the request again", code="shutting_down", retry_after=1)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class DirectHandlers:
    """An application that gives POST requests of some paths to their handlers, past the framework's own layers.

    The handlers must answer every error themselves. The routes remain in the application for its description.
    """

    def __init__(self, app: ASGIApp, handlers: Mapping[str, Callable[[Request], Awaitable[Response]]]) -> None:
        self._app = app
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        handler = self._handlers.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if handler is None:
            await self._app(scope, receive, send)
            return
        response = await handler(Request(scope, receive, send))
        await response(scope, receive, send)


class EventStream(StreamingResponse):
    """A streamed response that calls `close` once, however it ends: completed, broken or left by its client."""

    def __init__(
        self,
        events: AsyncIterator[bytes],
        close: Callable[[], Coroutine[Any, Any, None]],
        rid: str,
        media_type: str = "text/event-stream",
    ) -> None:
        headers = {"cache-control": "no-cache", REQUEST_ID: rid}
        super().__init__(events, headers=headers, media_type=media_type)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await asyncio.shield(self._close())


def json_response(value: dict[str, Any], rid: str, status: int = 200) -> JSONResponse:
    """Return a response with the body `value` and the request's id in a header."""
    return JSONResponse(value, status, headers={REQUEST_ID: rid})


def error_response(error: ApiError, rid: str, body: dict[str, Any] | None = None) -> JSONResponse:
    """Return the response for an error: `body`, or OpenAI's shape when there is none."""
    response = json_response(body or error.body(), rid, error.status)
    if error.retry_after:
        response.headers["retry-after"] = str(error.retry_after)
    if error.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    if error.status in (408, 413):
        response.headers["connection"] = "close"
    return response
