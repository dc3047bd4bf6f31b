"""The routes of workspaces; docs/reference/workspaces.md describes the protocol."""

import asyncio
from typing import Any, Final

from fastapi import Request

from serving.http import read_body
from serving.protocol import parse_object
from serving.transformer.access import Principal
from serving.transformer.fields import NAME_PATTERN, Fields, Schema, field, required
from serving.transformer.service import TransformerService
from serving.transformer.workspaces import Change, read_change, read_name

PATH: Final = "/v1/workspaces/{workspace}"
ERRORS: Final = (404, 409, 429, 503)
PARAMETERS: Final[Fields] = {
    "workspace": required("name of the workspace, which the client chooses", "string", pattern=f"^{NAME_PATTERN}$")
}
_DIGEST: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_TEXTS: Final = field(
    "text of files by path, each of a file that is listed", "object", additionalProperties={"type": "string"}
)
LIST: Final[Fields] = {
    "files": required(
        "the whole list: the SHA-256 of each file's text in UTF-8, in hexadecimal, by path",
        "object",
        additionalProperties=_DIGEST,
    ),
    "texts": _TEXTS,
}
DELTA: Final[Fields] = {
    "revision": field("revision to which `files` belongs, from the last answer", "string"),
    "files": field(
        "the SHA-256 of new and changed files by path; null removes a file",
        "object",
        additionalProperties={"anyOf": [_DIGEST, {"type": "null"}]},
    ),
    "texts": _TEXTS,
}
_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_PATHS: Final[Schema] = {"type": "array", "items": _TEXT}
_REASONS: Final[Schema] = {"type": "object", "additionalProperties": _TEXT}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": [*properties]}


REPORT: Final = _object(revision=_TEXT, files=_COUNT, missing=_PATHS, refused=_REASONS, left_out=_REASONS)
STATE: Final = _object(revision=_TEXT, files=_COUNT, indexed=_COUNT, bytes=_COUNT, missing=_PATHS)


async def put(service: TransformerService, request: Request) -> dict[str, Any]:
    """Open a workspace, or replace its list of files."""
    return await _change(service, request, whole=True)


async def patch(service: TransformerService, request: Request) -> dict[str, Any]:
    """Change a workspace."""
    return await _change(service, request, whole=False)


async def show(service: TransformerService, request: Request) -> dict[str, Any]:
    """Return the state of a workspace."""
    return service.workspaces.find(_principal(request).tenant, _name(request)).state()


async def close(service: TransformerService, request: Request) -> None:
    """Drop a workspace."""
    service.workspaces.close(_principal(request).tenant, _name(request))


async def _change(service: TransformerService, request: Request, *, whole: bool) -> dict[str, Any]:
    """Apply a change. Raises ApiError."""
    name, principal = _name(request), _principal(request)
    service.require_slot()
    async with service.slots:
        body = await read_body(request, limit=service.config.max_body_bytes, timeout_s=service.config.total_s)
        change = await asyncio.to_thread(_read, body, whole)
        del body
        counts = {"files": len(change.files), "texts": len(change.texts)}
        service.access.audit("workspace", principal, request.state.rid, method=request.method, **counts)
        answer = await service.workspaces.change(principal.tenant, name, change)
        service.warmer.changed(principal.tenant, name)
        service.workspaces.tokenise_ahead(principal.tenant, name, change)
        return answer


def _read(body: bytes, whole: bool) -> Change:
    return read_change(parse_object(body), whole=whole)


def _name(request: Request) -> str:
    return read_name(request.path_params["workspace"])


def _principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal
