"""The predictor's HTTP interface: vLLM's `/v1/completions` with token ids, health, readiness, metrics."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, exposition
from starlette.requests import ClientDisconnect

from serving.events import DONE, event
from serving.http import EventStream, error_response, json_response, read_body, request_id, while_connected
from serving.predictor.completion import CompletionEngine, Piece
from serving.predictor.predictor_config import PredictorConfig
from serving.predictor.worker import CompletionJob, Worker, emitter
from serving.protocol import (
    SAMPLING_FIELDS,
    ApiError,
    Head,
    Sampling,
    choice,
    invalid,
    is_token,
    parse_object,
    read_sampling,
    read_text,
    unknown_fields,
    usage,
)

FIELDS: Final = SAMPLING_FIELDS | {"prompt", "model", "user", "cache_salt", "begins_with"}
MAX_SALT_CHARS: Final = 256
MAX_BEGINNING_CHARS: Final = 256
CLIENT_GONE: Final = Response(status_code=499)
"""A response that nobody reads; 499 is nginx's status for a client that has closed the connection."""
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class PredictorMetrics:
    """The predictor's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = "infill_predictor"
        self.requests = Counter(f"{name}_requests", "Requests by outcome", ["outcome"], registry=self.registry)
        self.tokens = Counter(f"{name}_tokens", "Tokens: prompt, cached, completion", ["kind"], registry=self.registry)
        self.waited = Histogram(f"{name}_queue_seconds", "Wait", registry=self.registry, buckets=SECONDS)
        self.seconds = Histogram(f"{name}_run_seconds", "Prefill and decode", registry=self.registry, buckets=SECONDS)
        self.queue = Gauge(f"{name}_queue_length", "Requests that wait", registry=self.registry)
        self.cache = Gauge(f"{name}_cache_bytes", "KV caches kept between requests", registry=self.registry)

    def observe(self, job: CompletionJob, outcome: str, last: Piece | None, seconds: float) -> None:
        """Count a job that ended with `outcome` after `seconds` of the model's time; `last` is its last piece."""
        self.requests.labels(outcome).inc()
        self.tokens.labels("prompt").inc(len(job.prompt))
        self.waited.observe(max(time.monotonic() - seconds - job.submitted, 0))
        self.seconds.observe(seconds)
        if last:
            self.tokens.labels("cached").inc(last.cached_tokens)
            self.tokens.labels("completion").inc(last.tokens)


@dataclass(frozen=True, kw_only=True)
class PredictorService:
    """The objects that all routes share; nothing here belongs to one request."""

    config: PredictorConfig
    engine: CompletionEngine
    worker: Worker
    metrics: PredictorMetrics


def read_prompt(body: dict[str, Any], engine: CompletionEngine, sampling: Sampling) -> list[int]:
    """Return the token ids of `prompt`. Raises ApiError 400 for text, unknown ids or more than the context holds."""
    prompt = body.get("prompt")
    if isinstance(prompt, str) or (isinstance(prompt, list) and any(isinstance(part, str) for part in prompt)):
        message = "'prompt' must be a list of token ids, not text; send text to the transformer"
        raise invalid(message, "prompt", "text_prompt")
    if not isinstance(prompt, list) or not prompt or not all(is_token(token) for token in prompt):
        raise invalid("'prompt' must be a non-empty list of token ids", "prompt", "invalid_type")
    if max(prompt) >= engine.vocab_size:
        message = f"token ids must be below {engine.vocab_size}, the size of the vocabulary, got {max(prompt)}"
        raise invalid(message, "prompt")
    if len(prompt) + sampling.max_tokens > engine.context_length:
        raise invalid(
            f"{len(prompt)} prompt tokens and 'max_tokens' = {sampling.max_tokens} exceed "
            f"the context of {engine.context_length} tokens",
            "prompt",
            "context_length_exceeded",
        )
    return prompt


async def _pieces(queue: "asyncio.Queue[Piece | ApiError]") -> AsyncIterator[Piece]:
    while True:
        piece = await queue.get()
        if isinstance(piece, ApiError):
            raise piece
        yield piece
        if piece.finish_reason:
            return


async def _collect(queue: "asyncio.Queue[Piece | ApiError]") -> tuple[str, Piece]:
    """Return the whole text and the last piece."""
    pieces = [piece async for piece in _pieces(queue)]
    return "".join(piece.text for piece in pieces), pieces[-1]


async def _events(
    head: Head, job: CompletionJob, first: Piece, queue: "asyncio.Queue[Piece | ApiError]", more: dict[str, Any]
) -> AsyncIterator[bytes]:
    """Yield server-sent events from `first` on, the first with the fields `more`; skip steps without text or end."""
    piece = first
    try:
        yield event(head.completion([choice(first.text, first.finish_reason)], **more))
        if not first.finish_reason:
            async for piece in _pieces(queue):
                if piece.text or piece.finish_reason:
                    yield event(head.completion([choice(piece.text, piece.finish_reason)]))
        if job.sampling.include_usage:
            counts = usage(len(job.prompt), piece.tokens, piece.cached_tokens)
            yield event(head.completion([], usage=counts))
    except ApiError as error:
        yield event(error.body())
    yield DONE


async def _first(queue: "asyncio.Queue[Piece | ApiError]") -> Piece:
    piece = await queue.get()
    if isinstance(piece, ApiError):
        raise piece
    return piece


async def complete(service: PredictorService, request: Request, rid: str) -> Response:
    """Answer one completion request. Raises ApiError, or ClientDisconnect when the client has gone."""
    config, engine = service.config, service.engine
    body = parse_object(await read_body(request, limit=config.max_body_bytes, timeout_s=config.timeout_s))
    begins_with = read_text(body, "begins_with", limit=MAX_BEGINNING_CHARS)
    sampling = replace(read_sampling(body, Sampling()), begins_with=begins_with)
    warnings = unknown_fields(body, FIELDS)
    prompt = read_prompt(body, engine, sampling)
    queue: asyncio.Queue[Piece | ApiError] = asyncio.Queue()
    deadline = time.monotonic() + config.timeout_s
    emit = emitter(asyncio.get_running_loop(), queue)
    salt = read_text(body, "cache_salt", limit=MAX_SALT_CHARS)
    job = CompletionJob(prompt=prompt, sampling=sampling, deadline=deadline, salt=salt, emit=emit)
    head = Head.new(rid, config.name)
    more = {"infill": {"warnings": warnings}} if warnings else {}
    service.worker.submit(job)
    try:
        if not sampling.stream:
            text, last = await while_connected(request, _collect(queue))
            counts = usage(len(prompt), last.tokens, last.cached_tokens)
            return json_response(head.completion([choice(text, last.finish_reason)], usage=counts, **more), rid)
        # The status must be known before the stream begins, so the first token is awaited here.
        first = await while_connected(request, _first(queue))
    except BaseException:
        job.cancelled.set()
        raise

    async def close() -> None:
        job.cancelled.set()

    return EventStream(_events(head, job, first, queue, more), close, rid)


def create_app(service: PredictorService) -> FastAPI:
    """Return the application; its worker threads run as long as it does."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        yield
        await asyncio.to_thread(service.worker.stop)

    app = FastAPI(title="Infill predictor", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        rid = request_id(request)
        try:
            return await complete(service, request, rid)
        except ApiError as error:
            return error_response(error, rid)
        except ClientDisconnect:
            return CLIENT_GONE

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        entry = {"id": service.config.name, "object": "model", "created": 0, "owned_by": "infill"}
        more = {"max_model_len": service.engine.context_length, "begins_with": True}
        return {"object": "list", "data": [entry | more]}

    _add_health(app, service)
    return app


def _add_health(app: FastAPI, service: PredictorService) -> None:
    def health() -> Response:
        state = {
            "ready": service.worker.healthy,
            "waiting": service.worker.waiting,
            "engine": service.engine.name,
        }
        return json_response(state, "", 200 if service.worker.healthy else 503)

    async def metrics(request: Request) -> Response:
        service.metrics.queue.set(service.worker.waiting)
        service.metrics.cache.set(service.engine.cache_bytes)
        encode, kind = exposition.choose_encoder(request.headers.get("accept", ""))
        return Response(encode(service.metrics.registry), headers={"content-type": kind})

    handlers: dict[str, Callable[..., Any]] = {
        "/health": health,
        "/v2/health/live": health,
        "/v2/health/ready": health,
        "/metrics": metrics,
    }
    for path, handler in handlers.items():
        app.add_api_route(path, handler, methods=["GET"])
