"""The routes of KServe's application: one path through the code for completions in all protocols, and the pages."""

import asyncio
import functools
import hashlib
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final, NamedTuple

import orjson
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from infill.context.packing import Packed
from infill.errors import InfillError
from infill.prompt import heal
from serving.http import (
    REQUEST_ID,
    EventStream,
    error_response,
    json_response,
    read_body,
    request_id,
    while_connected,
)
from serving.protocol import ApiError, Head, parse_object
from serving.transformer.access import ANYBODY, Principal
from serving.transformer.answer import OngoingAnswer, PartialAnswer
from serving.transformer.completion_cache import KeptAnswer, lane
from serving.transformer.cut import before, cut, nothing, once, silent, truncated
from serving.transformer.openapi import of_page, of_protocols, packed_fields
from serving.transformer.protocols import by_path
from serving.transformer.protocols.base import Protocol
from serving.transformer.request import CompletionRequest
from serving.transformer.service import TokenLimits, TransformerService
from serving.transformer.service_routes import PAGES, Page
from serving.transformer.sides import sticky_key, watching
from serving.transformer.upstream import MAX_STOPS, Delta, Headers, PredictorRefusedError
from serving.transformer.web_page import add_page

log = logging.getLogger("kserve.infill")

Handler = Callable[[Request], Awaitable[Response]]
INLINE_BYTES: Final = 200_000
"""Bodies up to this size are parsed on the event loop; larger ones, in a thread, would block other requests."""


async def _read(body: bytes, protocols: Sequence[Protocol], limit: int) -> tuple[Protocol, CompletionRequest]:
    """Return the one of `protocols`, which share a path, that claims `body`, and the request in it. Raises ApiError."""

    def read() -> tuple[Protocol, CompletionRequest]:
        value = _parsed(body)
        protocol = next(each for each in protocols if each.claims(value))
        return protocol, protocol.read(value, limit)

    return read() if len(body) <= INLINE_BYTES else await asyncio.to_thread(read)


def _parsed(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`. Raises ApiError 400 for anything else."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:  # `json` takes halves of surrogate pairs, and says what is wrong
        return parse_object(body)
    return value if isinstance(value, dict) else parse_object(body)


def _scoped(completion: CompletionRequest, request: Request, principal: Principal) -> CompletionRequest:
    """Return the request with its session's name bound to the client, so that no other client can join it by name.

    A client that names no session is identified by its address and the file. Two clients that share both only reuse
    less of their KV caches, since a prompt never contains text that is not in its own request.
    """
    credentials = principal.name or request.headers.get("authorization", "")
    parts = [principal.tenant, credentials, completion.session]
    if not (completion.ids or completion.fim.prefix or completion.fim.suffix):
        return replace(completion, session="", project="")  # it warms the cache: no caret follows it
    if not completion.session:
        address = request.client.host if request.client else ""
        parts += [address, request.headers.get("x-forwarded-for", ""), completion.fim.path]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return replace(completion, session=key, project=key if completion.session else "")


async def begin(
    service: TransformerService, protocols: Sequence[Protocol], request: Request, rid: str, principal: Principal
) -> tuple[Protocol, OngoingAnswer, Delta]:
    """Read and pack the request, ask a predictor, and wait for its first event. Raises ApiError.

    Where the candidate should answer but fails before its first event, the stable predictor answers.
    """
    config = service.config
    body = await read_body(request, limit=config.max_body_bytes, timeout_s=config.total_s)
    headers = service.headers(request, rid)
    limits = await service.limits(headers)
    protocol, completion = await _read(body, protocols, limits.new)
    service.metrics.protocols.labels(protocol.name).inc()
    incoming = ReceivedRequest(request, protocols, body, headers, rid, principal)
    if (sides := service.sides) and (candidate := service.candidate):
        digest = service.packer.tokenizer.digest
        if sides.chooses_candidate(_sticky(completion, request, principal), completion, digest):
            try:
                return await _begin(candidate, incoming, await candidate.limits(headers))
            except ApiError as error:
                sides.fall_back(error)
        elif sides.shadows(completion, digest, busy=service.slots.locked()):
            incoming = incoming._replace(shadow=True)
    return await _begin(service, incoming, limits, (protocol, completion))


class ReceivedRequest(NamedTuple):
    """A request that has been received."""

    request: Request
    protocols: Sequence[Protocol]
    body: bytes
    headers: Headers
    rid: str
    principal: Principal
    shadow: bool = False
    """Whether the candidate also answers, without its answer being shown."""


def _sticky(completion: CompletionRequest, request: Request, principal: Principal) -> str:
    """Return the name by which a user stays with one model; for one without any name, that is his address."""
    workspace = request.headers.get("x-infill-workspace", "") or completion.workspace
    address = request.client.host if request.client else ""
    unnamed = " ".join((address, *(request.headers.get(name, "") for name in ("x-forwarded-for", "authorization"))))
    return sticky_key(principal, workspace, completion.session or unnamed)


async def _begin(
    service: TransformerService,
    incoming: ReceivedRequest,
    limits: TokenLimits,
    known: tuple[Protocol, CompletionRequest] | None = None,
) -> tuple[Protocol, OngoingAnswer, Delta]:
    """Read the request unless it is `known`, pack it, ask one side, wait for its first event. Raises ApiError."""
    protocol, completion = known or await _read(incoming.body, incoming.protocols, limits.new)
    started = time.monotonic()
    with service.telemetry.observing(completion, service.config.name):
        try:
            answer, first = await _ask(service, incoming, completion, limits)
        except PredictorRefusedError:
            current = await service.limits(incoming.headers, again=True)
            if current == limits:
                raise
            protocol, completion = await _read(incoming.body, incoming.protocols, current.new)
            answer, first = await _ask(service, incoming, completion, current)
    service.metrics.first.observe(time.monotonic() - started)
    return protocol, answer, first


async def _ask(
    service: TransformerService, incoming: ReceivedRequest, named: CompletionRequest, limits: TokenLimits
) -> tuple[OngoingAnswer, Delta]:
    """Pack the request, ask the predictor, and wait for its first event. Raises ApiError."""
    request, principal, rid = incoming.request, incoming.principal, incoming.rid
    completion = _scoped(named, request, principal)
    started = time.monotonic()
    warm = functools.partial(_warm, service, completion, limits, principal, incoming.headers)
    service.warmer.asked(completion, principal.tenant, warm)
    workspace = service.workspaces.find(principal.tenant, completion.workspace) if completion.workspace else None
    place = lane(completion, principal.tenant, f"{service.config.name} {service.upstream.replacements}", workspace)
    revision = workspace.revision if workspace else ""
    if (kept := service.completions.find(place, completion.fim.prefix)) is not None:
        answer, first = await _from_cache(service, incoming, completion, limits, kept, started)
        return replace(answer, revision=revision), first
    packed = await _packed(service, completion, limits, principal)
    asked = time.monotonic()
    service.metrics.packing.observe(asked - started)
    service.metrics.items.inc(len(packed.prompt.items))
    answer = OngoingAnswer(
        head=Head.new(rid, service.config.name),
        packed=packed,
        request=completion,
        deltas=_sided(service, incoming, completion, _deltas(service, packed, completion, incoming)),
        principal=principal,
        rid=rid,
        context_length=limits.prompt + limits.new,
        began=started,
        asked=asked,
        revision=revision,
        lane=place,
    )
    try:
        first = await while_connected(request, anext(answer.deltas))
    except BaseException:
        await answer.deltas.aclose()
        raise
    await service.access.spend(principal, len(packed.prompt.ids))
    return replace(answer, first=time.monotonic()), first


async def _warm(
    service: TransformerService,
    completion: CompletionRequest,
    limits: TokenLimits,
    principal: Principal,
    headers: Headers,
) -> str:
    """Compute the prompt that a request would have now, unless the server is busy; return the outcome."""
    if service.slots.locked():
        return "busy"
    last = service.packer.sessions.get(completion.session)
    packed = await _packed(service, completion, limits, principal)
    if last is not None and last.prompt.ids == packed.prompt.ids:
        return "same"
    one = replace(completion.sampling, max_tokens=1)
    async with aclosing(service.upstream.deltas(packed.prompt.ids, one, headers, principal.salt)) as deltas:
        async for _ in deltas:
            pass
    return "done"


async def _from_cache(
    service: TransformerService,
    incoming: ReceivedRequest,
    completion: CompletionRequest,
    limits: TokenLimits,
    kept: KeptAnswer,
    started: float,
) -> tuple[OngoingAnswer, Delta]:
    """Return the rest of an earlier answer as an answer of its own."""
    counts = {
        "completion_tokens": len(service.packer.encoder.encode(kept.text)),
        "prompt_tokens_details": {"cached_tokens": kept.prompt_tokens},
    }
    deltas = once(Delta(text=kept.text, finish_reason=kept.finish_reason, usage=counts))
    answer = OngoingAnswer(
        head=Head.new(incoming.rid, service.config.name),
        packed=kept.packed,
        request=completion,
        deltas=deltas,
        principal=incoming.principal,
        rid=incoming.rid,
        context_length=limits.prompt + limits.new,
        began=started,
        asked=time.monotonic(),
        cached=kept,
    )
    return replace(answer, first=time.monotonic()), await anext(deltas)


async def _packed(
    service: TransformerService, completion: CompletionRequest, limits: TokenLimits, principal: Principal
) -> Packed:
    """Pack the request, with the files of its workspace if it names one. Raises ApiError 404 for an unknown one."""
    find = functools.partial(service.workspaces.find, principal.tenant, completion.workspace)
    workspace = find() if completion.workspace else None
    pack = functools.partial(
        service.packer.pack, completion, limits.prompt, workspace, service.prefill.rules(limits.prompt)
    )
    try:
        if (workspace or completion.ids) and service.packer.is_short(completion):
            # Here, since other requests would wait for a thread as long, and this one for the change to it and back.
            with suppress(BlockingIOError):
                return pack(wait=False)
        return await asyncio.to_thread(pack)
    finally:
        if workspace:
            service.workspaces.settle(workspace)


def _deltas(
    service: TransformerService, packed: Packed, completion: CompletionRequest, incoming: ReceivedRequest
) -> AsyncGenerator[Delta, None]:
    """Return the events of the answer: the predictor's, ended early where the request asks for that."""
    sampling = completion.sampling
    if sampling.max_tokens == 0 and not packed.prompt.items:
        return nothing()
    asked = replace(sampling, max_tokens=sampling.max_tokens or 1)
    ids, stops_here = packed.prompt.ids, len(sampling.stop) > MAX_STOPS
    if service.config.healing and service.upstream.constrains and sampling.max_tokens and not sampling.ignore_eos:
        ids, beginning = heal(service.packer.fmt, service.packer.encoder, packed.prompt.ids)
        again = len(packed.prompt.ids) - len(ids)  # tokens that the answer begins with
        if any(set(stop) & set(beginning) for stop in sampling.stop):  # it must not be found in the beginning
            asked, stops_here = replace(asked, stop=()), True
        asked = replace(asked, begins_with=beginning, max_tokens=sampling.max_tokens + again)
    deltas = service.upstream.deltas(ids, asked, incoming.headers, incoming.principal.salt)
    if sampling.max_tokens == 0:
        return silent(deltas)
    if stops_here:
        deltas = before(deltas, sampling.stop)
    if completion.max_ms or completion.min_indent:
        deltas = cut(deltas, completion.max_ms, completion.min_indent)
    if completion.stop_at_unit and not sampling.ignore_eos:
        begin = functools.partial(service.packer.truncation, completion)
        return truncated(deltas, begin, service.metrics.truncated)
    return deltas


def _sided(
    service: TransformerService,
    incoming: ReceivedRequest,
    completion: CompletionRequest,
    deltas: AsyncGenerator[Delta, None],
) -> AsyncGenerator[Delta, None]:
    """Return `deltas` as the canary sees them, with the shadow next to them; without a candidate as they are."""
    sides, candidate = service.sides, service.candidate
    if sides is None:
        return deltas
    deltas = sides.observed(service.config.name, deltas)
    if not incoming.shadow or candidate is None:
        return deltas

    async def ask() -> str:
        limits = await candidate.limits(incoming.headers)
        packed = await _packed(candidate, completion, limits, incoming.principal)
        sampling = replace(completion.sampling, max_tokens=min(completion.sampling.max_tokens, limits.new))
        shadow = replace(completion, sampling=sampling)
        async with aclosing(_deltas(candidate, packed, shadow, incoming)) as theirs:
            return "".join([delta.text async for delta in theirs])

    return sides.shadowed(deltas, ask)


async def collect(service: TransformerService, answer: OngoingAnswer, first: Delta) -> PartialAnswer:
    """Return the whole answer. Raises ApiError."""
    outcome = PartialAnswer()
    outcome.add(first)
    _ = answer.provenance  # computed now, while the predictor computes
    with service.telemetry.observing(answer.request, answer.head.model):
        async with aclosing(answer.deltas):
            async for delta in answer.deltas:
                outcome.add(delta)
    return outcome.complete()


async def events(
    service: TransformerService, protocol: Protocol, answer: OngoingAnswer, first: Delta
) -> AsyncIterator[bytes]:
    """Yield the answer as a stream in the protocol's format; an error becomes the last part."""
    outcome = PartialAnswer()
    try:
        outcome.add(first)
        with service.telemetry.observing(answer.request, answer.head.model):
            if (piece := protocol.piece(answer, first, first=True)) is not None:
                yield protocol.frame(piece)
            async for delta in answer.deltas:
                outcome.add(delta)
                if (piece := protocol.piece(answer, delta, first=False)) is not None:
                    yield protocol.frame(piece)
        await _count(service, answer, outcome.complete())
        for last in protocol.last(answer, outcome):
            yield protocol.frame(last)
    except ApiError as error:
        service.metrics.requests.labels("stream", error.code).inc()
        yield protocol.frame(protocol.error(error))
    finally:
        if not outcome.ended:
            await _charge(service, answer, outcome)
    if protocol.end:
        yield protocol.end


async def _count(service: TransformerService, answer: OngoingAnswer, outcome: PartialAnswer) -> None:
    """Count a complete answer for the metrics and its user, and remember it where the next request may need it."""
    if answer.cached is None:
        service.metrics.observe_usage(outcome.counts(answer))
        if (computed := outcome.computed_tokens) is not None:
            service.prefill.observe(computed, answer.first - answer.asked)
        service.completions.keep(
            *(answer.lane, answer.request.fim.prefix, outcome.text, outcome.reason or "length", answer.packed)
        )
    service.telemetry.answered(answer, outcome)
    await _charge(service, answer, outcome)


async def _charge(service: TransformerService, answer: OngoingAnswer, outcome: PartialAnswer) -> None:
    """Count what was written for whoever asked, also when he has gone in the middle of it."""
    counts = outcome.counts(answer)
    prompt, completion = counts["prompt_tokens"], counts["completion_tokens"]
    if answer.cached is None:
        await service.access.spend(answer.principal, completion)
    service.access.audit(
        *("answer", answer.principal, answer.rid),
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached=answer.cached is not None,
    )


async def respond(
    service: TransformerService, protocols: Sequence[Protocol], request: Request, rid: str, principal: Principal
) -> Response:
    """Answer one completion request. Raises ApiError."""
    protocol, answer, first = await begin(service, protocols, request, rid, principal)
    if answer.request.sampling.stream and protocol.media_type:
        stream = events(service, protocol, answer, first)
        return EventStream(stream, answer.deltas.aclose, rid, protocol.media_type)
    outcome = await while_connected(request, collect(service, answer, first))
    # What follows an answer comes after it was written, and before the server reads any other request.
    return _whole(protocol.whole(answer, outcome), rid, BackgroundTask(_count, service, answer, outcome))


def _whole(value: dict[str, Any], rid: str, after: BackgroundTask) -> Response:
    """Return a response with the body `value`, after which `after` runs."""
    try:
        body = orjson.dumps(value)
    except TypeError:  # an integer of more than 64 bits that the client has sent
        body = json.dumps(value, ensure_ascii=False).encode()
    return Response(body, headers={REQUEST_ID: rid}, media_type="application/json", background=after)


async def guarded(service: TransformerService, protocols: Sequence[Protocol], request: Request) -> Response:
    """Return the answer or an error, never raise; protocols that share a path share the shape of errors."""
    rid = request_id(request)
    status, code, principal = 200, "ok", ANYBODY
    try:
        principal = await service.access.identify(request)
        service.require_slot()
        await service.access.enter(principal)
        async with service.slots:
            return await respond(service, protocols, request, rid, principal)
    except ClientDisconnect:
        status, code = 499, "client_gone"
        return Response(status_code=status)
    except InfillError as error:
        failure = error if isinstance(error, ApiError) else ApiError(400, str(error), code="invalid_value")
        status, code = failure.status, failure.code
        return error_response(failure, rid, protocols[-1].error(failure))
    except Exception:
        log.exception("request %s failed", rid)
        status, code = 500, "internal_error"
        failure = ApiError(status, f"request {rid} failed; see the transformer's log", code=code)
        return error_response(failure, rid, protocols[-1].error(failure))
    finally:
        service.metrics.requests.labels(str(status), code).inc()
        service.access.audit("request", principal, rid, path=request.url.path, status=status, code=code)


def create_router(service: TransformerService) -> APIRouter:
    """Return the routes: completions in every protocol, and the pages."""

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with watching(service.sides, service.access.predictor_headers):
            yield
        await service.warmer.close()
        await service.upstream.close()
        await asyncio.to_thread(service.telemetry.close)
        service.workspaces.shut_down()

    router = APIRouter(lifespan=lifespan)
    add_page(router)
    packed = packed_fields(service)
    for path, protocols in by_path().items():
        router.add_api_route(path, _completer(service, protocols), methods=["POST"], **of_protocols(protocols, packed))
    for page in PAGES:
        router.add_api_route(page.path, _shower(service, page), methods=[page.method], **of_page(page))
    for path in {page.path for page in PAGES}:
        router.add_route(path, _refuse_method(path), methods=[], include_in_schema=False)  # any other method
    return router


def _refuse_method(path: str) -> Handler:
    """Return a handler that answers 405 with all methods of a path; without it, only the first would be named."""
    allowed = ", ".join(page.method for page in PAGES if page.path == path)

    async def refuse(_: Request) -> Response:
        raise HTTPException(405, headers={"Allow": allowed})

    return refuse


def _completer(service: TransformerService, protocols: Sequence[Protocol]) -> Handler:
    async def complete(request: Request) -> Response:
        return await guarded(service, protocols, request)

    return complete


def _shower(service: TransformerService, page: Page) -> Handler:
    async def show(request: Request) -> Response:
        rid = request.state.rid = request_id(request)
        try:
            request.state.principal = await service.access.identify(request)
            answer = await page.answer(service, request)
        except ClientDisconnect:
            return Response(status_code=499)
        except ApiError as error:
            return error_response(error, rid)
        if isinstance(answer, Response):
            return answer
        return Response(headers={REQUEST_ID: rid}) if answer is None else json_response(answer, rid)

    return show


def allow_origins(app: ASGIApp, origins: str) -> ASGIApp:
    """Return `app` such that web pages of `origins` (separated by commas, or `*`) may call it, without cookies."""
    allowed = [origin.strip() for origin in origins.split(",") if origin.strip()]
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    return CORSMiddleware(app, allow_origins=allowed, allow_methods=methods, allow_headers=["*"])
