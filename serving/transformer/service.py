"""The objects that the transformer's routes share: configuration, packer, connection to the predictor, metrics."""

import asyncio
from dataclasses import dataclass, replace
from typing import Any, Final

from fastapi import Request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from infill.context import ProjectIndex
from infill.prompt import stop_ids
from serving.http import REQUEST_ID, forwarded
from serving.protocol import overloaded
from serving.transformer.access import Access
from serving.transformer.client_tokenizer import tokenizer_of
from serving.transformer.completion_cache import CompletionCache
from serving.transformer.packer import Packer, ProjectCache, Sessions
from serving.transformer.prefill_speed import PrefillSpeed
from serving.transformer.sides import Sides
from serving.transformer.telemetry.recorder import SuggestionRecorder
from serving.transformer.transformer_config import Prepared, TransformerConfig
from serving.transformer.upstream import Headers, Upstream
from serving.transformer.warmer import Warmer
from serving.transformer.workspaces import Workspaces

TRACE: Final = ("x-b3-traceid", "traceparent")
"""Headers that are forwarded to the predictor in addition to the request's id."""
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class TransformerMetrics:
    """The transformer's metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name = "infill_transformer"
        self.requests = Counter(
            f"{name}_requests", "Requests by status and code", ["status", "code"], registry=registry
        )
        self.protocols = Counter(f"{name}_protocols", "Requests by protocol", ["protocol"], registry=registry)
        self.events = Counter(f"{name}_events", "Events that clients report", ["kind"], registry=registry)
        self.tokens = Counter(f"{name}_tokens", "Tokens: prompt, cached, completion", ["kind"], registry=registry)
        self.truncated = Counter(
            f"{name}_truncated", "Answers that ended by their syntax, by rule", ["rule"], registry=registry
        )
        self.items = Counter(f"{name}_context_items", "Context items in prompts", registry=registry)
        self.prefill = Gauge(
            f"{name}_prefill_tokens_per_second",
            "Speed at which the predictor reads prompts, from its answers",
            ["model"],
            registry=registry,
        )
        self.packing = Histogram(f"{name}_packing_seconds", "Ranking and packing", registry=registry, buckets=SECONDS)
        self.first = Histogram(f"{name}_first_token_seconds", "To the first token", registry=registry, buckets=SECONDS)

    def observe_usage(self, counts: dict[str, Any]) -> None:
        """Count the tokens of a finished answer."""
        self.tokens.labels("prompt").inc(counts["prompt_tokens"])
        self.tokens.labels("completion").inc(counts["completion_tokens"])
        self.tokens.labels("cached").inc(counts["prompt_tokens_details"]["cached_tokens"])


@dataclass(frozen=True, kw_only=True)
class TokenLimits:
    """The most tokens of one request: of its prompt, and new ones."""

    prompt: int
    new: int

    def within(self, context: int | None) -> "TokenLimits":
        """Return these limits, or smaller ones that fit a predictor's `context`; None means that it is unknown."""
        if context is None or self.prompt + self.new <= context:
            return self
        new = max(1, min(self.new, context // 4))
        return TokenLimits(prompt=min(self.prompt, context - new), new=new)


@dataclass(frozen=True, kw_only=True)
class TransformerService:
    """The objects that all routes share; nothing here belongs to one request."""

    config: TransformerConfig
    packer: Packer
    upstream: Upstream
    prefill: PrefillSpeed
    max_new_tokens: int
    metrics: TransformerMetrics
    access: Access
    telemetry: SuggestionRecorder
    workspaces: Workspaces
    completions: CompletionCache
    warmer: Warmer
    slots: asyncio.Semaphore
    """A slot for each request that is read, packed or waits for its first token."""
    sides: Sides | None = None
    """The canary, if there is a candidate."""
    candidate: "TransformerService | None" = None
    """These objects with the candidate's packer and predictor."""

    def require_slot(self) -> None:
        """Raise ApiError 429 if all slots are taken."""
        if self.slots.locked():
            raise overloaded(f"too many requests at once: at most {self.config.max_requests} are allowed")

    def headers(self, request: Request, rid: str = "") -> Headers:
        """Return the headers of a request to the predictor.

        The client's own credentials are passed on only if this server does not ask for any itself.
        """
        access = self.access
        own = access.predictor_headers or (forwarded(request, ("authorization",)) if access.open else [])
        return [*own, *forwarded(request, TRACE), *([(REQUEST_ID.encode(), rid.encode())] if rid else [])]

    async def limits(self, headers: Headers, *, again: bool = False) -> TokenLimits:
        """Return the current limits of a request: the configured ones, reduced to the predictor's context.

        With `again` the predictor is asked for its context even if the answer is known.
        """
        configured = TokenLimits(prompt=self.packer.budget, new=self.max_new_tokens)
        return configured.within(await self.upstream.context(headers, again=again))


def build_packer(config: TransformerConfig, prepared: Prepared) -> Packer:
    """Return a packer with no projects or sessions yet."""
    encode = prepared.encoder.encode
    return Packer(
        fmt=prepared.fmt,
        encoder=prepared.encoder,
        budget=prepared.max_prompt_tokens,
        strategy=config.strategy,
        context_items=config.context_items,
        projects=ProjectCache(lambda: ProjectIndex(encode), config.index_chars),
        sessions=Sessions(config.sessions),
        tokenizer=tokenizer_of(prepared),
    )


def _upstream(config: TransformerConfig, prepared: Prepared) -> Upstream:
    return Upstream(config, stop_ids(prepared.fmt, prepared.encoder), prepared.encoder.vocab_size)


def build(config: TransformerConfig, prepared: Prepared, registry: CollectorRegistry) -> TransformerService:
    """Return the objects that the routes share."""
    metrics = TransformerMetrics(registry)
    service = TransformerService(
        config=config,
        packer=build_packer(config, prepared),
        upstream=_upstream(config, prepared),
        prefill=PrefillSpeed(metrics.prefill.labels(config.name)),
        max_new_tokens=prepared.max_new_tokens,
        metrics=metrics,
        access=Access(config),
        telemetry=SuggestionRecorder(config, prepared.fmt.hash, registry),
        workspaces=Workspaces(lambda: ProjectIndex(prepared.encoder.encode), config.workspace_bytes, registry),
        completions=CompletionCache(config.completion_cache_bytes, registry),
        warmer=Warmer(config.warm_s, config.sessions, registry),
        slots=asyncio.Semaphore(config.max_requests),
    )
    return service if prepared.candidate is None else _with_candidate(service, prepared.candidate, registry)


def _with_candidate(service: TransformerService, prepared: Prepared, registry: CollectorRegistry) -> TransformerService:
    """Return the service with a candidate, which shares its workspaces, whose ranking needs no tokenizer."""
    config = service.config.candidate()
    packer, upstream = build_packer(config, prepared), _upstream(config, prepared)
    sides = Sides(service.config, packer, upstream, registry)
    service.telemetry.on_shown = sides.on_shown
    candidate = replace(
        service,
        config=config,
        packer=packer,
        upstream=upstream,
        prefill=PrefillSpeed(service.metrics.prefill.labels(config.name)),
        max_new_tokens=prepared.max_new_tokens,
        sides=sides,
    )
    return replace(service, sides=sides, candidate=candidate)
