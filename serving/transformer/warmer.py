"""Prompts computed before they are asked for: after a workspace has changed, for the carets last completed in it.

A saved file changes the context of the carets in other files: items of the last prompt are gone, others come, and the
KV cache is of no use from the first of them on. So the last request of each session is packed again and the predictor
asked for one token of it, after a pause. Whoever asks for a completion comes first: any request cancels what is being
computed in advance, of all sessions.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from serving.protocol import ApiError
from serving.transformer.request import CompletionRequest

log = logging.getLogger("kserve.infill")

RECENT_S: Final = 120.0
"""Seconds after its last request for which a session is warmed."""
AT_ONCE: Final = 2
"""Prompts that are warmed at once."""
MAX_CHARS: Final = 200_000
"""Characters of the largest request that is remembered."""

Warm = Callable[[], Awaitable[str]]
"""Compute the prompt of a request; return the outcome for the metrics."""


@dataclass(kw_only=True)
class WarmSession:
    """The last request of a session in a workspace."""

    workspace: tuple[str, str]
    """Tenant and name."""
    warm: Warm
    asked: float
    """Time of the monotonic clock."""
    task: asyncio.Task[None] | None = None


class Warmer:
    """The sessions that may be warmed, at most `most`; `wait_s` 0 warms none. All methods run on the event loop."""

    def __init__(self, wait_s: float, most: int, registry: CollectorRegistry) -> None:
        self._wait_s = wait_s
        self._most = most
        self._sessions: OrderedDict[str, WarmSession] = OrderedDict()
        self._running = asyncio.Semaphore(AT_ONCE)
        self._computing: set[asyncio.Task[None]] = set()
        self.ended = Counter(
            "infill_transformer_warmed_prompts",
            "Prompts computed in advance: done, same (nothing to do), busy, cancelled, failed",
            ["ended"],
            registry=registry,
        )

    def __len__(self) -> int:
        return len(self._sessions)

    def asked(self, completion: CompletionRequest, tenant: str, warm: Warm) -> None:
        """Remember the request of a session, and cancel what is being computed in advance for all."""
        if not self._wait_s:
            return
        self._forget(completion.session)
        for task in self._computing:
            task.cancel()
        warms = completion.workspace and completion.session and completion.sampling.max_tokens
        if not warms or completion.chars > MAX_CHARS:
            return
        workspace = tenant, completion.workspace
        self._sessions[completion.session] = WarmSession(workspace=workspace, warm=warm, asked=time.monotonic())
        if len(self._sessions) > self._most:
            self._forget(next(iter(self._sessions)))

    def changed(self, tenant: str, name: str) -> None:
        """Warm the sessions of a workspace that has changed, unless it changes again within the pause."""
        since = time.monotonic() - RECENT_S
        for session in self._sessions.values():
            if session.workspace == (tenant, name) and session.asked >= since:
                if session.task is not None:
                    session.task.cancel()
                session.task = asyncio.create_task(self._run(session.warm))

    async def close(self) -> None:
        """Cancel everything."""
        tasks = [session.task for session in self._sessions.values() if session.task is not None]
        while self._sessions:
            self._forget(next(iter(self._sessions)))
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, name: str) -> None:
        session = self._sessions.pop(name, None)
        if session is not None and session.task is not None:
            session.task.cancel()

    async def _run(self, warm: Warm) -> None:
        await asyncio.sleep(self._wait_s)
        task, ended = asyncio.current_task(), "cancelled"
        assert task is not None
        self._computing.add(task)
        try:
            async with self._running:
                ended = await warm()
        except ApiError as error:
            ended = "failed"
            log.info("a prompt could not be computed in advance: %s", error.code)
        finally:
            self._computing.discard(task)
            self.ended.labels(ended).inc()
