"""The driver's log, copied completely and only once into the step's own log.

The submitter pod prints the driver's output. Kubernetes returns a log from a point in time (whole seconds), not from a
byte offset, so the position is a byte offset within the last second seen, and after a broken stream at most that second
is downloaded again.
"""

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, TextIO

from infill.cluster.answers import ClusterApiError, ClusterRefusedError
from infill.cluster.api import Api, Manifest
from infill.cluster.stage_job import JOB_LABEL, ROLE_LABEL, SUBMITTER

KEPT_LINES: Final = 50
CRASH_LINES: Final = 10
"""Lines to show of a container that fails repeatedly."""
REFUSED_PAUSE: Final = 30.0
"""Seconds between attempts to read a log for which we lack the rights."""
STARTED: Final = ("Running", "Succeeded", "Failed")


@dataclass
class Position:
    """The place in a pod's log up to which it has been read."""

    second: str = ""
    """RFC 3339 time of the last line, truncated to the second."""
    offset: int = 0
    """Bytes read since that second, including time stamps."""
    ended: bool = False


class LogTail:
    """A thread that follows the newest submitter pod of a job; `last` holds the last 50 lines."""

    def __init__(self, api: Api, job: str, out: TextIO, *, pause: float = 2.0, quiet: float = 60.0) -> None:
        self.last: deque[str] = deque(maxlen=KEPT_LINES)
        self._api = replace(api, outage=0.0, grace=0.0)  # this class retries
        self._job, self._out = job, out
        self._pause = pause
        self._quiet = quiet  # seconds without a byte after which the stream is reopened
        self._positions: dict[str, Position] = {}
        self._stop = threading.Event()
        self._until = float("inf")  # time of the monotonic clock at which reading stops
        self._grace = api.grace
        self._refused: float | None = None  # when the server began to refuse
        self._reported = False
        self._thread = threading.Thread(target=self._run, name="log-tail", daemon=True)

    def start(self) -> None:
        """Start the thread that follows the log."""
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Wait until the log is read to its end, at most `seconds`. Call this when the job has ended."""
        self._until = time.monotonic() + seconds
        self._stop.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        """Follow the log across errors of the API server; the position is kept."""
        while time.monotonic() < self._until:
            stopping, pause = self._stop.is_set(), self._pause
            try:
                pod = self._pod()
                if pod is not None:
                    self._stream(pod)
                self._refused = None
                if stopping:  # everything up to the job's end has been read
                    return
            except ClusterApiError as error:
                if isinstance(error, ClusterRefusedError) and error.status in (401, 403):
                    if stopping:
                        return
                    pause = self._report(error)
            if stopping:
                time.sleep(pause)
            else:
                self._stop.wait(pause)

    def _report(self, error: ClusterRefusedError) -> float:
        """Print a message, once, if a refusal lasts; return the seconds until the next attempt."""
        now = time.monotonic()
        self._refused = now if self._refused is None else self._refused
        if now - self._refused < self._grace:
            return self._pause
        if not self._reported:
            self._reported = True
            self._out.write(f"[infill] the job's log cannot be read at the moment: {error}\n")
            self._out.flush()
        return max(self._pause, REFUSED_PAUSE)

    def _pod(self) -> Manifest | None:
        pods = self._api.list("pods", labels=f"{JOB_LABEL}={self._job},{ROLE_LABEL}=submitter")["items"]
        started = [pod for pod in pods if pod.get("status", {}).get("phase") in STARTED]
        newest = max(started, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
        if newest is None or self._position(newest).ended:
            return None
        return dict(newest)

    def _position(self, pod: Mapping[str, Mapping[str, str]]) -> Position:
        return self._positions.setdefault(pod["metadata"]["uid"], Position())

    def _stream(self, pod: Manifest) -> None:
        at = self._position(pod)
        query = {"container": SUBMITTER, "follow": "true", "timestamps": "true", "sinceTime": at.second}
        known = at.offset
        for line in self._api.log(pod["metadata"]["name"], query=query, timeout=self._quiet):
            if known >= len(line):
                known -= len(line)
                continue
            self._take(at, line)
        at.ended = pod["status"]["phase"] != "Running"

    def _take(self, at: Position, line: bytes) -> None:
        stamp, _, text = line.partition(b" ")
        second = stamp[:19].decode("ascii", "replace") + "Z"
        if second != at.second:
            at.second, at.offset = second, 0
        at.offset += len(line)
        shown = text.decode("utf-8", "replace")
        self.last.append(shown.rstrip("\n"))
        self._out.write(shown if shown.endswith("\n") else f"{shown}\n")
        self._out.flush()


def last_lines(api: Api, pod: str, container: str) -> list[str]:
    """Return the last lines of a container before it ended; empty if its log is gone or may not be read."""
    query = {"container": container, "previous": "true", "tailLines": str(CRASH_LINES)}
    try:
        lines = list(api.log(pod, query=query, timeout=api.timeout))
    except ClusterApiError:
        return []
    return [line.decode("utf-8", "replace").rstrip() for line in lines[-CRASH_LINES:]]
