"""`/v1/completions`, `/v1/models` and `/v1/tokenizer` for KServe's application."""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from infill.context.packing import Packed
from infill.errors import InfillError
from infill.text import clean
from serving.events import DONE, event
from serving.http import (
    REQUEST_ID,
    EventStream,
    error_response,
    forwarded,
    json_response,
    read_body,
    request_id,
    while_connected,
)
from serving.protocol import ApiError, Head, Sampling, choice, parse_object, usage
from serving.transformer.request import CompletionRequest, read_request
from serving.transformer.service import Limits, Service
from serving.transformer.upstream import Delta, Headers, RefusedError

log = logging.getLogger("kserve.infill")

FORWARDED: Final = ("authorization", "x-b3-traceid", "traceparent")
"""Headers that go on to the predictor beside the request's id."""
INLINE_BYTES: Final = 200_000
"""A smaller body is parsed on the event loop; a larger one would hold up the other requests."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One request's answer in the making."""

    head: Head
    packed: Packed
    sampling: Sampling
    deltas: AsyncGenerator[Delta, None]
    warnings: tuple[str, ...]

    @property
    def provenance(self) -> dict[str, Any]:
        """What stands in the prompt, and where it came from."""
        names = ("path", "first_line", "last_line", "score", "strategy")
        return {
            "prompt_tokens": len(self.packed.prompt.ids),
            "context": [{name: getattr(item, name) for name in names} for item in self.packed.prompt.items],
            "why_empty": self.packed.why_empty,
            "warnings": list(self.warnings),
        }

    def usage(self, given: dict[str, Any] | None, pieces: int) -> dict[str, Any]:
        """The predictor's usage, or a count of our own: each piece is at least a token."""
        told = given or {}
        details = told.get("prompt_tokens_details") or {}
        cached = int(details.get("cached_tokens") or 0)
        return usage(len(self.packed.prompt.ids), int(told.get("completion_tokens", pieces)), cached)


async def _parse(body: bytes, max_new_tokens: int) -> CompletionRequest:
    def parse() -> CompletionRequest:
        return read_request(parse_object(body), max_new_tokens)

    return parse() if len(body) <= INLINE_BYTES else await asyncio.to_thread(parse)


def _scoped(completion: CompletionRequest, request: Request) -> CompletionRequest:
    """The session's name bound to the client's credentials, so that nobody continues another's session by its name.

    A client that names none is known by its address and the file: the prompts of two that share these only keep less of
    each other's beginning, since a prompt never holds text that its own request does not hold.
    """
    parts = [request.headers.get("authorization", ""), completion.session]
    if not completion.session:
        address = request.client.host if request.client else ""
        parts += [address, request.headers.get("x-forwarded-for", ""), completion.fim.path]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return replace(completion, session=key, project=key if completion.session else "")


async def begin(service: Service, request: Request, rid: str) -> tuple[Answer, Delta]:
    """Read, pack, ask the predictor, and wait for its first event. Raises ApiError."""
    config = service.config
    body = await read_body(request, limit=config.max_body_bytes, timeout_s=config.total_s)
    headers = [*forwarded(request, FORWARDED), (REQUEST_ID.encode(), rid.encode())]
    limits = await service.limits(headers)
    completion = _scoped(await _parse(body, limits.new), request)
    started = time.monotonic()
    try:
        answer, first = await _ask(service, request, completion, limits, headers, rid)
    except RefusedError:
        current = await service.limits(headers, again=True)
        if current == limits:
            raise
        completion = _scoped(await _parse(body, current.new), request)
        answer, first = await _ask(service, request, completion, current, headers, rid)
    service.metrics.first.observe(time.monotonic() - started)
    return answer, first


async def _ask(
    service: Service, request: Request, completion: CompletionRequest, limits: Limits, headers: Headers, rid: str
) -> tuple[Answer, Delta]:
    """Pack, ask the predictor, and wait for its first event. Raises ApiError."""
    started = time.monotonic()
    packed = await asyncio.to_thread(service.packer.pack, completion, limits.prompt)
    service.metrics.packing.observe(time.monotonic() - started)
    service.metrics.items.inc(len(packed.prompt.items))
    deltas = service.upstream.deltas(packed.prompt.ids, completion.sampling, headers)
    answer = Answer(
        head=Head.new(rid, service.config.name),
        packed=packed,
        sampling=completion.sampling,
        deltas=deltas,
        warnings=completion.warnings,
    )
    try:
        return answer, await while_connected(request, anext(deltas))
    except BaseException:
        await deltas.aclose()
        raise


async def collect(service: Service, answer: Answer, first: Delta) -> dict[str, Any]:
    """The whole answer as one object."""
    async with aclosing(answer.deltas):
        rest = [delta async for delta in answer.deltas]
    deltas = [first, *rest]
    text = clean("".join(delta.text for delta in deltas))
    reason = next((delta.finish_reason for delta in deltas if delta.finish_reason), None)
    given = next((delta.usage for delta in reversed(deltas) if delta.usage), None)
    counts = answer.usage(given, sum(bool(delta.text) for delta in deltas))
    service.metrics.observe_usage(counts)
    return answer.head.completion([choice(text, reason)], usage=counts, infill=answer.provenance)


async def events(service: Service, answer: Answer, first: Delta) -> AsyncIterator[bytes]:
    """The answer as server-sent events; the first carries the provenance, an error ends the stream as an event."""
    head, pieces, given = answer.head, 0, first.usage
    yield event(head.completion([choice(first.text, first.finish_reason)], infill=answer.provenance))
    try:
        async for delta in answer.deltas:
            given, pieces = delta.usage or given, pieces + bool(delta.text)
            if delta.text or delta.finish_reason:
                yield event(head.completion([choice(delta.text, delta.finish_reason)]))
        counts = answer.usage(given, pieces + bool(first.text))
        service.metrics.observe_usage(counts)
        if answer.sampling.include_usage:
            yield event(head.completion([], usage=counts))
    except ApiError as error:
        service.metrics.requests.labels("stream", error.code).inc()
        yield event(error.body())
    yield DONE


async def respond(service: Service, request: Request, rid: str) -> Response:
    """Answer one completion request. Raises ApiError."""
    answer, first = await begin(service, request, rid)
    if answer.sampling.stream:
        return EventStream(events(service, answer, first), answer.deltas.aclose, rid)
    return json_response(await while_connected(request, collect(service, answer, first)), rid)


async def guarded(service: Service, request: Request) -> Response:
    """The answer or the error, never an exception."""
    rid = request_id(request)
    status, code = 200, "ok"
    try:
        if service.slots.locked():
            raise ApiError(503, "too many requests at once", code="overloaded", retry_after=1)
        async with service.slots:
            return await respond(service, request, rid)
    except ClientDisconnect:
        status, code = 499, "client_gone"
        return Response(status_code=status)
    except ApiError as error:
        status, code = error.status, error.code
        return error_response(error, rid)
    except InfillError as error:
        status, code = 400, "invalid_value"
        return error_response(ApiError(status, str(error), code=code), rid)
    except Exception:
        log.exception("request %s failed", rid)
        status, code = 500, "internal_error"
        return error_response(ApiError(status, f"request {rid} failed; the log says why", code=code), rid)
    finally:
        service.metrics.requests.labels(str(status), code).inc()


def create_router(service: Service) -> APIRouter:
    """The routes. `/v1/models` answers in OpenAI's shape and in KServe's, whose place it takes."""

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        await service.upstream.close()

    router = APIRouter(lifespan=lifespan)

    @router.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await guarded(service, request)

    @router.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        name = service.config.name
        limits = await service.limits(forwarded(request, FORWARDED))
        told = {
            "prompt_format": service.packer.fmt.hash,
            "max_prompt_tokens": limits.prompt,
            "max_new_tokens": limits.new,
            "tokenizer": service.packer.tokenizer.digest,
            "strategy": service.packer.strategy,
            "context_items": service.packer.context_items,
        }
        entry = {"id": name, "object": "model", "created": 0, "owned_by": "infill", "infill": told}
        entry["max_model_len"] = limits.prompt + limits.new
        return {"object": "list", "data": [entry], "models": [name]}

    @router.get("/v1/tokenizer")
    async def tokenizer(request: Request) -> Response:
        return await asyncio.to_thread(service.packer.tokenizer.response, request)

    return router


def allow_origins(app: FastAPI, origins: str) -> None:
    """Let web pages of `origins` (separated by commas, or `*`) ask, without cookies."""
    allowed = [origin.strip() for origin in origins.split(",") if origin.strip()]
    app.add_middleware(CORSMiddleware, allow_origins=allowed, allow_methods=["GET", "POST"], allow_headers=["*"])
