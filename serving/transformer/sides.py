"""The two models of a canary: the choice of a side for each request, the outcome of each answer, and the shadow.

Each side has its own packer, sessions and connections, so that neither prompts nor caches mix; readiness of the
transformer knows the stable side alone.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from infill import manifest
from infill.editor.persistence import similarity
from serving.protocol import ApiError
from serving.transformer.access import Principal
from serving.transformer.canary import CANDIDATE, STABLE, CanaryRules, CanaryState, RequestOutcome
from serving.transformer.packer import Packer
from serving.transformer.request import CompletionRequest
from serving.transformer.telemetry.recent_suggestions import Suggestion
from serving.transformer.transformer_config import TransformerConfig
from serving.transformer.upstream import Delta, Headers, Upstream

log = logging.getLogger("kserve.infill")

NAME: Final = "infill_canary"
PROBE_S: Final = 1.0
"""Seconds between two questions whether the candidate is ready."""
SIMILARITIES: Final = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
Deltas = AsyncGenerator[Delta, None]


class CanaryMetrics:
    """The metrics of the two sides; no user, no path, no code."""

    def __init__(self, registry: CollectorRegistry) -> None:
        by = ["side", "model"]
        self.requests = Counter(
            f"{NAME}_requests", "Answers by side and how they ended", [*by, "ended"], registry=registry
        )
        self.seconds = Histogram(f"{NAME}_answer_seconds", "To the end of an answer", by, registry=registry)
        self.fallbacks = Counter(
            f"{NAME}_fallbacks", "Requests that the stable model took over before their first token", registry=registry
        )
        self.weight = Gauge(f"{NAME}_weight", "Per cent of the users whom the candidate answers", registry=registry)
        self.candidate = Gauge(
            f"{NAME}_candidate", "1 for the digest of the candidate's model", ["digest"], registry=registry
        )
        self.ready = Gauge(f"{NAME}_ready", "Whether the candidate is ready", registry=registry)
        self.rollbacks = Counter(f"{NAME}_rollbacks", "Rollbacks by reason", ["reason"], registry=registry)
        self.shadows = Counter(
            f"{NAME}_shadows",
            "Shadow answers: same, different, failed, dropped, cancelled",
            ["ended"],
            registry=registry,
        )
        self.similarity = Histogram(
            f"{NAME}_shadow_similarity", "Of both answers", registry=registry, buckets=SIMILARITIES
        )


class Sides:
    """The canary as the routes see it. All methods run on the event loop."""

    def __init__(self, config: TransformerConfig, packer: Packer, upstream: Upstream, registry: CollectorRegistry):
        """Take the candidate's packer and connections."""
        rules = CanaryRules(
            requests=config.canary_requests,
            window_s=config.canary_window_s,
            errors=config.canary_errors,
            latency=config.canary_latency,
            acceptance=config.canary_acceptance,
        )
        self.config = config
        self.packer = packer
        self.upstream = upstream
        self.state = CanaryState(config.canary_weight, rules, time.monotonic)
        self.metrics = CanaryMetrics(registry)
        self.metrics.weight.set(config.canary_weight)
        artifact = manifest.find(config.candidate_model) if config.candidate_model else None
        self.metrics.candidate.labels("" if artifact is None else artifact.digest).set(1)
        self._shadows: set[asyncio.Task[None]] = set()

    # Readiness

    async def watch(self, headers: Headers) -> None:
        """Ask again and again whether the candidate is ready, until cancelled."""
        while True:
            self._set_ready(await self.upstream.ready(headers))
            await asyncio.sleep(PROBE_S)

    def _set_ready(self, ready: bool) -> None:
        self.state.ready = ready
        self.metrics.ready.set(ready)

    async def close(self) -> None:
        """End the shadows, then the connections."""
        for task in self._shadows:
            task.cancel()
        await asyncio.gather(*self._shadows, return_exceptions=True)
        await self.upstream.close()

    # Canary

    def chooses_candidate(self, key: str, completion: CompletionRequest, digest: str) -> bool:
        """Return whether the candidate answers; never where the client packed for the tokenizer `digest` alone."""
        return self.accepts(completion, digest) and self.state.chooses_candidate(key)

    def accepts(self, completion: CompletionRequest, digest: str) -> bool:
        """Return whether the candidate can read the request: token ids of another tokenizer it cannot."""
        return not completion.ids or self.packer.tokenizer.digest == digest

    def fall_back(self, error: ApiError) -> None:
        """Note that the stable side takes a request over; a candidate that is gone gets no more until it is ready."""
        self.metrics.fallbacks.inc()
        if error.status == 503:
            self._set_ready(False)

    def side(self, model: str) -> str:
        """Return the side of the model with this name."""
        return CANDIDATE if model == self.config.candidate_name else STABLE

    def on_shown(self, suggestion: Suggestion) -> None:
        """Keep a suggestion that a user sees."""
        self.state.show(self.side(suggestion.labels.model), suggestion)

    async def observed(self, model: str, deltas: Deltas) -> Deltas:
        """Yield the events of `deltas`, and note how the answer ends; one that its client leaves counts as answered."""
        started, ended = time.monotonic(), "failed"
        try:
            async with aclosing(deltas):
                async for delta in deltas:
                    yield delta
            ended = "answered"
        except (GeneratorExit, asyncio.CancelledError):
            ended = "cancelled"
            raise
        finally:
            self._note(model, ended, time.monotonic() - started)

    def _note(self, model: str, ended: str, seconds: float) -> None:
        side = self.side(model)
        self.metrics.requests.labels(side, model, ended).inc()
        self.metrics.seconds.labels(side, model).observe(seconds)
        reason = self.state.add(side, RequestOutcome(ended == "failed", seconds))
        if reason:
            self.metrics.rollbacks.labels(reason).inc()
            self.metrics.weight.set(0)

    # Shadow

    def shadows(self, completion: CompletionRequest, digest: str, *, busy: bool) -> bool:
        """Return whether the candidate answers unseen too; under load, and beyond the allowed number, it does not."""
        if not (self.config.shadow_requests and completion.sampling.max_tokens and self.accepts(completion, digest)):
            return False
        full = busy or len(self._shadows) >= self.config.shadow_requests or not self.state.ready
        if full:
            self.metrics.shadows.labels("dropped").inc()
        return not full

    async def shadowed(self, deltas: Deltas, ask: Callable[[], Awaitable[str]]) -> Deltas:
        """Yield the events of `deltas` while the candidate answers too; left early, both are cancelled."""
        whole: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._compare(ask, whole))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)
        pieces: list[str] = []
        try:
            async with aclosing(deltas):
                async for delta in deltas:
                    pieces.append(delta.text)
                    yield delta
            whole.set_result("".join(pieces))
        finally:
            if not whole.done():
                task.cancel()

    async def _compare(self, ask: Callable[[], Awaitable[str]], whole: asyncio.Future[str]) -> None:
        """Count how far the candidate's answer agrees with the `whole` one that the user sees."""
        ended = "failed"
        try:
            theirs = await ask()
            ours = await whole
            self.metrics.similarity.observe(similarity(ours, theirs))
            ended = "same" if ours == theirs else "different"
        except ApiError as error:
            log.info("a shadow answer failed: %s", error.code)
        except asyncio.CancelledError:
            ended = "cancelled"
            raise
        finally:
            self.metrics.shadows.labels(ended).inc()


@contextlib.asynccontextmanager
async def watching(sides: Sides | None, headers: Headers) -> AsyncGenerator[None, None]:
    """Watch the candidate, if there is one, during the block, and close it afterwards."""
    if sides is None:
        yield
        return
    task = asyncio.create_task(sides.watch(headers))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await sides.close()


def sticky_key(principal: Principal, workspace: str, session: str) -> str:
    """Return the name by which a user stays on one side: his own, else his workspace's, else his session's."""
    return "\0".join((principal.tenant, principal.name or workspace or session))
