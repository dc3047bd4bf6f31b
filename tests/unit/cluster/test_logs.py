"""The log arrives once and whole, whatever happens to the stream."""

import io
import time

from infill.cluster.api import Api
from infill.cluster.logs import KEPT_LINES, LogTail
from infill.cluster.stage_job import StageJob, build
from tests.kube.apiserver import Fault, Server
from tests.unit.cluster.kuberay import KubeRay


def stamp(second: int, nanosecond: int = 0) -> str:
    return f"2026-11-22T20:{second // 60:02d}:{second % 60:02d}.{nanosecond:09d}Z"


def tailed(api: Api, job: StageJob, *, quiet: float = 60.0) -> tuple[LogTail, io.StringIO]:
    out = io.StringIO()
    tail = LogTail(api, job.name, out, pause=0.05, quiet=quiet)
    tail.start()
    return tail, out


def wait_for(out: io.StringIO, text: str) -> None:
    for _ in range(200):
        if text in out.getvalue():
            return
        time.sleep(0.02)
    raise AssertionError(f"{text!r} did not arrive: {out.getvalue()!r}")


def test_a_broken_stream_continues_where_it_was(server: Server, api: Api, kuberay: KubeRay, job: StageJob) -> None:
    api.create("rayjobs", build(job))
    kuberay.pod(job.name, "submitter", "submitter")
    # Breaks within a second (at lines 3 and 7) and between seconds.
    server.faults += [Fault("GET", "/log", drop=True, after=after) for after in (3, 4, 5)]
    for number in range(40):
        server.say("submitter", f"line {number} ü", stamp(number // 8, number))
    server.hush("submitter")
    kuberay.pod_status("submitter", phase="Succeeded")
    tail, out = tailed(api, job)
    wait_for(out, "line 39")
    tail.finish(3.0)
    assert out.getvalue().splitlines() == [f"line {number} ü" for number in range(40)]
    assert [query.get("sinceTime", "")[-3:] for query in server.log_requests[:3]] == ["", "00Z", "00Z"]


def test_a_quiet_stream_is_opened_again_without_repeats(
    server: Server, api: Api, kuberay: KubeRay, job: StageJob
) -> None:
    api.create("rayjobs", build(job))
    kuberay.pod(job.name, "submitter", "submitter")
    server.say("submitter", "before", stamp(1))
    tail, out = tailed(api, job, quiet=0.3)
    wait_for(out, "before")
    time.sleep(0.8)
    server.say("submitter", "after", stamp(1, 5))
    wait_for(out, "after")
    assert len(server.log_requests) >= 2
    server.hush("submitter")
    tail.finish(3.0)
    assert out.getvalue() == "before\nafter\n"


def test_the_log_of_a_retry_follows_that_of_the_first_attempt(
    server: Server, api: Api, kuberay: KubeRay, job: StageJob
) -> None:
    api.create("rayjobs", build(job))
    kuberay.pod(job.name, "first", "submitter", "Failed")
    server.say("first", "attempt one", stamp(1))
    server.hush("first")
    tail, out = tailed(api, job)
    wait_for(out, "attempt one")
    time.sleep(1.1)  # creation times have seconds
    kuberay.pod(job.name, "second", "submitter", "Succeeded")
    server.say("second", "attempt two", stamp(9))
    server.hush("second")
    wait_for(out, "attempt two")
    tail.finish(3.0)
    assert out.getvalue() == "attempt one\nattempt two\n"


def test_only_the_last_lines_are_kept(server: Server, api: Api, kuberay: KubeRay, job: StageJob) -> None:
    api.create("rayjobs", build(job))
    kuberay.pod(job.name, "submitter", "submitter", "Succeeded")
    for number in range(3 * KEPT_LINES):
        server.say("submitter", str(number), stamp(number))
    server.hush("submitter")
    tail, out = tailed(api, job)
    wait_for(out, str(3 * KEPT_LINES - 1))
    tail.finish(3.0)
    assert list(tail.last) == [str(number) for number in range(2 * KEPT_LINES, 3 * KEPT_LINES)]


def test_a_log_that_may_not_be_read_is_not_a_failure(server: Server, api: Api, kuberay: KubeRay, job: StageJob) -> None:
    api.create("rayjobs", build(job))
    server.forbidden.add(("list", "pods"))
    tail, out = tailed(api, job)
    wait_for(out, "cannot be read")
    tail.finish(3.0)


def test_finish_does_not_wait_for_a_stream_that_hangs(
    server: Server, api: Api, kuberay: KubeRay, job: StageJob
) -> None:
    api.create("rayjobs", build(job))
    kuberay.pod(job.name, "submitter", "submitter")
    tail, _ = tailed(api, job)
    started = time.monotonic()
    tail.finish(0.5)
    assert time.monotonic() - started < 2
    server.hush("submitter")
    tail.finish(3.0)
