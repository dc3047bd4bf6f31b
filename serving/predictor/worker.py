"""The thread that owns the model, and the queue before it."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import torch

from serving.predictor.engine import Engine
from serving.predictor.text import Detokeniser, StopFilter
from serving.protocol import ApiError, Sampling

log = logging.getLogger("infill.predictor")

MAX_FAILURES: Final = 3
"""After so many probes of the model in a row have failed the predictor is not healthy (a broken GPU context, say)."""


class CancelledError(Exception):
    """The client has gone."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What one step adds to an answer."""

    text: str
    finish_reason: str | None
    """`stop` or `length` in the last piece, None before."""
    tokens: int
    """Completion tokens so far."""
    cached_tokens: int


@dataclass(kw_only=True)
class Job:
    prompt: list[int]
    sampling: Sampling
    deadline: float
    """On the monotonic clock."""
    emit: Callable[[Piece | ApiError], None]
    """Called in the worker's thread; the last call has a finish reason or an error."""
    submitted: float = field(default_factory=time.monotonic)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise CancelledError when the client has gone, ApiError when the time is up."""
        if self.cancelled.is_set():
            raise CancelledError
        if time.monotonic() > self.deadline:
            raise ApiError(504, "the completion took longer than the predictor allows", code="timeout")


def emitter(
    loop: asyncio.AbstractEventLoop, queue: "asyncio.Queue[Piece | ApiError]"
) -> Callable[[Piece | ApiError], None]:
    """A function that puts what a thread gives it into `queue`, which belongs to `loop`."""

    def emit(value: Piece | ApiError) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(queue.put_nowait, value)

    return emit


class Worker:
    """Runs jobs one after the other on a thread of its own."""

    def __init__(self, engine: Engine, *, queue: int, observe: Callable[[Job, str, Piece | None, float], None]) -> None:
        self.engine = engine
        self._size = queue
        self._observe = observe
        self._jobs: deque[Job] = deque()
        self._running: Job | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Cancel what runs, drop what waits, and wait for the thread to end."""
        with self._changed:
            self._stopping = True
            if self._running:
                self._running.cancelled.set()
            self._changed.notify()
        self._thread.join(timeout_s)

    @property
    def healthy(self) -> bool:
        """Whether jobs can be expected to succeed."""
        return self._thread.is_alive() and self._failures < MAX_FAILURES

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._jobs)

    def submit(self, job: Job) -> None:
        """Queue `job`. Raises ApiError 503 when the queue is full of requests that somebody still waits for."""
        with self._changed:
            if len(self._jobs) >= self._size:
                self._jobs = deque(other for other in self._jobs if not other.cancelled.is_set())
            if len(self._jobs) >= self._size:
                raise ApiError(503, "too many requests wait for the model", code="overloaded", retry_after=1)
            self._jobs.append(job)
            self._changed.notify()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            started = time.monotonic()
            outcome, last = self._complete(job)
            self._observe(job, outcome, last, time.monotonic() - started)

    def _next(self) -> Job | None:
        with self._changed:
            self._running = None
            self._changed.wait_for(lambda: self._jobs or self._stopping)
            if self._stopping:
                return None
            self._running = self._jobs.popleft()
            return self._running

    def _complete(self, job: Job) -> tuple[str, Piece | None]:
        """Run `job` to whatever end it has; the outcome's name for the metrics, and the last piece."""
        last: list[Piece] = []

        def emit(piece: Piece) -> None:
            last[:] = [piece]
            job.emit(piece)

        try:
            job.check()
            self._generate(job, emit)
            outcome, self._failures = "done", 0
        except CancelledError:
            outcome = "cancelled"
        except ApiError as error:
            outcome = error.code
            job.emit(error)
        except torch.OutOfMemoryError:
            outcome = "out_of_memory"
            job.emit(ApiError(503, "the model has run out of memory", code=outcome, retry_after=1))
        except Exception:
            log.exception("a request failed")
            outcome = "failed"
            job.emit(ApiError(500, "the predictor failed; its log says why", code="internal_error"))
            self._probe()
        return outcome, last[0] if last else None

    def _probe(self) -> None:
        """Find out whether the model itself is broken: no request, however odd, counts as ill health."""
        try:
            self.engine.probe()
            self._failures = 0
        except Exception:
            log.exception("the model does not answer a probe")
            self._failures += 1

    def _generate(self, job: Job, emit: Callable[[Piece], None]) -> None:
        sampling = job.sampling
        stops = set(sampling.stop_token_ids) | (set() if sampling.ignore_eos else self.engine.stop_ids)
        detokeniser, stop_filter = Detokeniser(self.engine.token_bytes), StopFilter(sampling.stop)
        with self.engine.session(job.prompt) as session:
            for count, token in enumerate(self.engine.generate(session, sampling, job.check), start=1):
                ended = token in stops
                text = stop_filter.feed("" if ended else detokeniser.feed(token))
                ended = ended or stop_filter.stopped
                reason = "stop" if ended else "length" if count == sampling.max_tokens else None
                if reason:
                    text += stop_filter.flush()
                emit(Piece(text=text, finish_reason=reason, tokens=count, cached_tokens=session.cached_tokens))
                if reason:
                    return
