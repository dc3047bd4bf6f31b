"""The transformer's OpenAPI description, made from the tables of protocols and pages."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

import infill
from serving.http import DirectHandlers
from serving.transformer.fields import Field, Fields, Schema, object_schema, only
from serving.transformer.protocols import by_path
from serving.transformer.protocols.base import SSE, Protocol
from serving.transformer.service import TransformerService
from serving.transformer.service_routes import Page

ERROR: Final[Schema] = {
    "description": "An error in the protocol's own shape",
    "type": "object",
    "properties": {"error": {"type": ["object", "string"]}},
    "required": ["error"],
}
EVENTS: Final[Schema] = {
    "description": "The streamed answer: server-sent events, the data of each an object of the protocol",
    "type": "object",
    "properties": {"data": {"type": "string"}},
    "required": ["data"],
}
LINES: Final[Schema] = {"description": "The streamed answer: one object per line", "type": "string"}
CHANGED: Final = 409
MISSING: Final = 404
STATUS: Final[Mapping[int, str]] = {
    400: "The request is invalid; `param` names the field",
    401: "The server asks for a key or a token, and this is none that it knows",
    403: "The token names no tenant, or the server or the user does not allow it",
    MISSING: "This server does not know the workspace (`workspace_unknown`): list its files; or it has not answered "
    "such a completion to this tenant recently",
    408: "The request's body did not arrive in time",
    CHANGED: "The token ids were made for another model (`tokenizer_changed`): fetch `/v1/tokenizer` again; or the "
    "workspace is at another revision (`workspace_changed`): list its files again",
    413: "The request's body is too large",
    429: "Too many requests at once (`overloaded`), or the tenant has used what it may (`rate_limit_exceeded`); "
    "`Retry-After` says when to try again",
    502: "The predictor failed",
    503: "No predictor, or it cannot answer yet; `Retry-After` says when to try again",
    504: "The predictor did not answer in time",
}
PROBES: Final = ("/", "/metrics", "/v2/health/live", "/v2/health/ready")
"""The routes of KServe that this model answers; it rejects KServe's inference protocols."""


def _content(schema: Schema, media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": schema}}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"description": STATUS[status], "content": _content(ERROR)} for status in statuses}


def _either(schemas: Sequence[Schema]) -> Schema:
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}


def packed_fields(service: TransformerService) -> Fields:
    """Return the fields that differ in a request whose prompt the client has packed for this model."""
    tokenizer = service.packer.tokenizer
    ids = {"type": "integer", "minimum": 0, "exclusiveMaximum": tokenizer.size}
    prompt = {"type": "array", "items": ids, "minItems": 1, "maxItems": service.packer.budget}
    return {
        "prompt": Field(about="a packed prompt as token ids", schema=prompt, required=True),
        "tokenizer": only("the digest in `/v1/models`", tokenizer.digest, ""),
        "suffix": only("empty", ""),
        "path": only("empty", ""),
        "context": only("empty", []),
        "recent": only("empty", []),
        "workspace": only("empty", ""),
    }


def of_protocols(protocols: Sequence[Protocol], packed: Fields) -> dict[str, Any]:
    """Return the description of the route that `protocols` share, as arguments of `add_api_route`."""
    answers = _content(_either([each.whole_schema for each in protocols]))
    for streamed in {each.media_type for each in protocols if each.media_type}:
        answers |= _content(EVENTS if streamed == SSE else LINES, streamed)
    bodies = [object_schema(each.fields) for each in protocols]
    from_ids = [object_schema({**each.fields, **packed}) for each in protocols if each.takes_ids]
    body = _content(_either([*bodies, *from_ids]))
    statuses = [status for status in STATUS if status not in (MISSING, CHANGED) or from_ids]
    return {
        "summary": "Complete at a caret: " + ", ".join(each.title for each in protocols),
        "openapi_extra": {"requestBody": {"required": True, "content": body}},
        "responses": {200: {"description": "The completion", "content": answers}, **_errors(*statuses)},
    }


def of_page(page: Page) -> dict[str, Any]:
    """Return the description of a page's route, as arguments of `add_api_route`."""
    answer: dict[str, Any] = {"description": "The answer"}
    if page.schema:
        answer["content"] = _content(page.schema)
    route: dict[str, Any] = {"summary": page.about, "responses": {200: answer, **_errors(401, 403)}}
    if page.path == "/v1/tokenizer":
        route["responses"][304] = {"description": "The client is up to date: `If-None-Match` holds the digest"}
    if not page.schema:
        route["response_class"] = Response
    route["responses"] |= _errors(*page.errors)
    route["openapi_extra"] = {"parameters": [_in_path(name, each) for name, each in page.parameters.items()]}
    if page.body is not None:
        route["openapi_extra"]["requestBody"] = {"required": True, "content": _content(object_schema(page.body))}
        route["responses"] |= _errors(400, 408, 413)
    return route


def _in_path(name: str, parameter: Field) -> dict[str, Any]:
    """Return the description of a part of the path."""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": parameter.about,
        "schema": dict(parameter.schema),
    }


def include(app: FastAPI, router: APIRouter) -> DirectHandlers:
    """Add our routes to `app`, and make its OpenAPI description list them and the probes only.

    Return the application to serve: in it, completions go to their handlers directly, since the framework's layers take
    longer than reading a request. They remain routes of `app`, too.
    """
    app.include_router(router)
    completions = by_path()
    handlers = {
        route.path: route.endpoint
        for route in router.routes
        if isinstance(route, APIRoute) and route.path in completions and route.methods == {"POST"}
    }
    app.title, app.version = "Infill", infill.__version__
    app.description = "Complete code at a caret, in the protocols that editors' clients speak."
    described = {route.path for route in router.routes if isinstance(route, APIRoute)} | set(PROBES)

    def description() -> dict[str, Any]:
        if app.openapi_schema is None:
            whole = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            whole["paths"] = {path: each for path, each in whole["paths"].items() if path in described}
            app.openapi_schema = whole
        return app.openapi_schema

    app.openapi = description  # type: ignore[method-assign]
    return DirectHandlers(app, handlers)
