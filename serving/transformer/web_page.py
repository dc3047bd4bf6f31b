"""The web page at `/`: files that `make page` builds from `web/`, with headers that let it reach only this server."""

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response

FOLDER: Final = Path(__file__).parent / "static"
INDEX: Final = "index.html"
POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        *("script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'"),
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
        *("require-trusted-types-for 'script'", "trusted-types 'none'"),
    ]
)
"""A policy that forbids inline scripts and styles, other origins, and text that is interpreted as HTML."""
HEADERS: Final = {
    "cache-control": "no-cache",
    "content-security-policy": POLICY,
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "vary": "accept-encoding",
    "x-content-type-options": "nosniff",
}
"""Headers of each file; with `no-cache` a browser keeps a file but checks its digest before each use."""


@dataclass(frozen=True)
class StaticFile:
    """One file of the page."""

    body: bytes
    media_type: str

    @cached_property
    def compressed(self) -> bytes:
        """The body compressed with gzip, when a browser first asks for it."""
        return gzip.compress(self.body, 9, mtime=0)

    @cached_property
    def etag(self) -> str:
        """The body's digest in quotes, as HTTP requires."""
        return f'"{hashlib.sha256(self.body).hexdigest()}"'

    def response(self, request: Request) -> Response:
        """Return the response to `request`: the body, or 304 when the browser has it."""
        headers = {**HEADERS, "etag": self.etag}
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(self.body, media_type=self.media_type, headers=headers)
        headers["content-encoding"] = "gzip"
        return Response(self.compressed, media_type=self.media_type, headers=headers)


@cache
def files() -> dict[str, StaticFile]:
    """Return the page's files by name."""
    return {
        path.name: StaticFile(path.read_bytes(), mimetypes.guess_type(path.name)[0] or "application/octet-stream")
        for path in sorted(FOLDER.iterdir())
    }


def add_page(router: APIRouter) -> None:
    """Serve the page at `/` and its other files below `/static/`."""

    @router.get("/", include_in_schema=False)
    def index(request: Request) -> Response:
        return files()[INDEX].response(request)

    @router.get("/static/{name}", include_in_schema=False)
    def static(name: str, request: Request) -> Response:
        file = files().get(name)
        return file.response(request) if file else Response(status_code=404, headers=HEADERS)
