"""The page for one rater, on the loopback address: it shows items without saying which completion is whose.

Each rating is on the disk before the page shows the next item. The page reaches no other address.
"""

import json
import logging
import mimetypes
import socket
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from infill import manifest
from infill.artifacts import rating as artifact
from infill.rating.rating_items import left_of
from infill.text import split_lines

LOOPBACK: Final = "127.0.0.1"
HOSTS: Final = ("127.0.0.1", "localhost")
"""Names by which the page may be asked for; with another, a web site that points its name here would read the code."""
STATIC: Final = Path(__file__).parent / "static"
INDEX: Final = "rate.html"
LINES_BEFORE: Final = 40
LINES_AFTER: Final = 25
MAX_BODY: Final = 4_096
HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
log: Final = logging.getLogger(__name__)


class RatingSession:
    """The items of a rating set in the order of one rater, and that rater's choices."""

    def __init__(self, folder: Path, rater: str) -> None:
        """Open the rating set in `folder`. Raises InputError if there is none."""
        self.items = artifact.read_items(str(folder))
        self._seed = int(manifest.load(str(folder)).config["seed"])
        self._file = artifact.RatingsFile(folder, rater)
        self._choices = self._file.choices()
        self._lock = threading.Lock()

    def state(self) -> dict[str, Any]:
        """Return the numbers of items and of rated ones, and the number of the first that is not rated."""
        missing = [number for number, item in enumerate(self.items) if item["id"] not in self._choices]
        return {
            "rater": self._file.rater,
            "items": len(self.items),
            "rated": len(self.items) - len(missing),
            "next": missing[0] if missing else None,
        }

    def item(self, number: int) -> dict[str, Any]:
        """Return what the page shows of an item, by its number."""
        item = self.items[number]
        left = self._left(item)
        right = artifact.OTHER[left]
        return {
            "number": number,
            "path": item["path"],
            "language": item["language"],
            "before": "".join(split_lines(item["prefix"], keepends=True)[-LINES_BEFORE:]),
            "after": "".join(split_lines(item["suffix"], keepends=True)[:LINES_AFTER]),
            "left": item[left],
            "right": item[right],
            "choice": _side(self._choices.get(item["id"]), left),
        }

    def rate(self, number: int, side: str, seconds: float) -> dict[str, Any]:
        """Store a choice, `left`, `right`, EQUAL or SKIP; return the state."""
        item = self.items[number]
        left = self._left(item)
        right = artifact.OTHER[left]
        choice = {"left": left, "right": right}.get(side, side)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        with self._lock:
            self._file.add({"item": item["id"], "left": left, "choice": choice, "seconds": seconds, "at": at})
            self._choices[item["id"]] = choice
            return self.state()

    def _left(self, item: Mapping[str, Any]) -> str:
        return left_of(self._seed, self._file.rater, item["id"])


SIDES: Final = ("left", "right", artifact.EQUAL, artifact.SKIP)


def _side(choice: str | None, left: str) -> str | None:
    """Return an earlier choice as the page shows it."""
    if choice in (artifact.FIRST, artifact.SECOND):
        return "left" if choice == left else "right"
    return choice


def application(session: RatingSession) -> Starlette:
    """Return the web application of a session."""

    async def index(_request: Request) -> Response:
        return _static(INDEX)

    async def static(request: Request) -> Response:
        return _static(request.path_params["name"])

    async def state(_request: Request) -> Response:
        return JSONResponse(session.state(), headers=HEADERS)

    async def item(request: Request) -> Response:
        number = request.path_params["number"]
        if number >= len(session.items):
            return _problem(404, f"there are {len(session.items)} items")
        return JSONResponse(session.item(number), headers=HEADERS)

    async def rate(request: Request) -> Response:
        number = request.path_params["number"]
        body = await _rating(request)
        if isinstance(body, str) or number >= len(session.items):
            return _problem(400, body if isinstance(body, str) else f"there are {len(session.items)} items")
        try:
            return JSONResponse(await run_in_threadpool(session.rate, number, *body), headers=HEADERS)
        except OSError as error:
            log.exception("a rating could not be stored")
            return _problem(507, f"it could not be stored: {error.strerror}")

    routes = [
        Route("/", index),
        Route("/static/{name}", static),
        Route("/state", state),
        Route("/items/{number:int}", item),
        Route("/items/{number:int}", rate, methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS))])


async def _rating(request: Request) -> tuple[str, float] | str:
    """Return side and seconds of a request, or what is wrong with it."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        return "a rating must be JSON"  # which no page of another site can send unasked
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            return "a rating is a small JSON object"
    try:
        body = json.loads(data)
        side, seconds = body["choice"], float(body["seconds"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "a rating has a choice and seconds"
    if side not in SIDES or not 0 <= seconds < 1e9:
        return f"choice must be one of {', '.join(SIDES)}, and seconds a number"
    return side, round(seconds, 1)


def _static(name: str) -> Response:
    file = STATIC / Path(name).name
    if not file.is_file():
        return _problem(404, "there is no such file")
    media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    return Response(file.read_bytes(), media_type=media_type, headers=HEADERS)


def _problem(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status, headers=HEADERS)


def serve(session: RatingSession, bound: socket.socket) -> None:
    """Serve the page on a listening socket until a signal arrives."""
    settings = uvicorn.Config(application(session), log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    with bound:
        uvicorn.Server(settings).run(sockets=[bound])
