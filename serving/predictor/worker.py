"""The threads that run the model, and the queue that feeds them."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Final

from serving.predictor.completion import CompletionEngine, Piece
from serving.protocol import ApiError, Sampling, overloaded
from serving.stops import StopFilter

log = logging.getLogger("infill.predictor")

MAX_FAILURES: Final = 3
"""Failed probes of the model in a row after which the predictor is unhealthy (for example, a broken GPU context)."""


class CancelledError(Exception):
    """The exception that ends a job whose client has gone."""


@dataclass(kw_only=True)
class CompletionJob:
    """One completion to compute."""

    prompt: list[int]
    sampling: Sampling
    deadline: float
    """Time on the monotonic clock, in seconds, at which the job is given up."""
    salt: str = ""
    """Cached prompts of another salt are not used."""
    emit: Callable[[Piece | ApiError], None]
    """A callback for each piece, called in the worker's thread; the last call has a finish reason or an error."""
    submitted: float = field(default_factory=time.monotonic)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise CancelledError when the client has gone, ApiError 504 when the time is up."""
        if self.cancelled.is_set():
            raise CancelledError
        if time.monotonic() > self.deadline:
            raise ApiError(504, "the completion took longer than the predictor's timeout_s allows", code="timeout")


def emitter(
    loop: asyncio.AbstractEventLoop, queue: "asyncio.Queue[Piece | ApiError]"
) -> Callable[[Piece | ApiError], None]:
    """Return a function that puts its argument into `queue`, which belongs to `loop`, from any thread."""

    def emit(value: Piece | ApiError) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(queue.put_nowait, value)

    return emit


class Worker:
    """A queue of jobs with one thread per slot of the engine; jobs start in the order of submission."""

    def __init__(
        self,
        engine: CompletionEngine,
        *,
        queue: int,
        observe: Callable[[CompletionJob, str, Piece | None, float], None],
    ) -> None:
        self.engine = engine
        self._size = queue
        self._observe = observe
        self._jobs: deque[CompletionJob] = deque()
        self._running: list[CompletionJob] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._failures = 0
        self._probing = threading.Lock()
        names = [f"model-{number}" for number in range(engine.slots)]
        self._threads = [threading.Thread(target=self._run, name=name, daemon=True) for name in names]

    def start(self) -> None:
        """Start the threads of the worker."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Cancel the running jobs, drop the waiting ones, and wait up to `timeout_s` for the threads to end."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._stopping = True
            for job in self._running:
                job.cancelled.set()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def healthy(self) -> bool:
        """Whether jobs can be expected to succeed: all threads run and the model answers probes."""
        return all(thread.is_alive() for thread in self._threads) and self._failures < MAX_FAILURES

    @property
    def waiting(self) -> int:
        """Number of jobs in the queue."""
        return len(self._jobs)

    def submit(self, job: CompletionJob) -> None:
        """Queue `job`. Raises ApiError 429 when the queue is full of jobs whose clients still wait."""
        with self._changed:
            if len(self._jobs) >= self._size:
                self._jobs = deque(other for other in self._jobs if not other.cancelled.is_set())
            if len(self._jobs) >= self._size:
                raise overloaded(f"too many requests: {self._size} already wait for the model")
            self._jobs.append(job)
            self._changed.notify()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            started = time.monotonic()
            outcome, last = self._complete(job)
            self._observe(job, outcome, last, time.monotonic() - started)
            with self._changed:
                self._running.remove(job)

    def _next(self) -> CompletionJob | None:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._stopping)
            if self._stopping:
                return None
            job = self._jobs.popleft()
            self._running.append(job)
            return job

    def _complete(self, job: CompletionJob) -> tuple[str, Piece | None]:
        """Run `job` to its end, whatever it is; return the outcome's name for the metrics, and the last piece."""
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
        except MemoryError:
            outcome = "out_of_memory"
            job.emit(ApiError(503, "the model has run out of memory", code=outcome, retry_after=1))
        except Exception:
            log.exception("a request failed")
            outcome = "failed"
            job.emit(ApiError(500, "the predictor failed; see its log", code="internal_error"))
            self._probe()
        return outcome, last[0] if last else None

    def _probe(self) -> None:
        """Find out whether the model itself is broken, since an odd request that fails does not make it unhealthy."""
        with self._probing:
            try:
                self.engine.probe()
                self._failures = 0
            except Exception:
                log.exception("the model does not answer a probe")
                self._failures += 1

    def _generate(self, job: CompletionJob, emit: Callable[[Piece], None]) -> None:
        stop_filter = StopFilter(job.sampling.stop)
        with closing(self.engine.complete(job.prompt, job.sampling, job.check, job.salt)) as pieces:
            for piece in pieces:
                text = stop_filter.feed(piece.text)
                reason = "stop" if stop_filter.stopped else piece.finish_reason
                if reason:
                    text += stop_filter.flush()
                emit(replace(piece, text=text, finish_reason=reason))
                if reason:
                    return
