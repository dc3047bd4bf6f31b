"""Run generated Python where it can do no harm, and say whether it ran to its end.

The program runs as nobody, in namespaces of its own without a network, in a root directory that holds Python's own
files read-only and an empty `/tmp`, under limits of time, memory and file size. It has passed when it ended with status
0 *and* a nonce came back that is handed out only behind its last statement, so `sys.exit(0)` does not pass. A program
written to find the nonce could; generated code is careless, not hostile, and the walls do not depend on it.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from infill.errors import InputError
from infill.evaluate import jail

WEAK: Final = "INFILL_SANDBOX"
"""Environment variable: `limits` accepts running without namespaces, in a container that is itself a sandbox."""
DETAIL_BYTES: Final = 2_000
SELF_TEST: Final = "import math, random, typing"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    status: Literal["passed", "failed", "timeout"]
    detail: str
    """The end of what the program wrote to standard error."""

    @property
    def passed(self) -> bool:
        return self.status == "passed"


def run(program: str, *, seconds: float = 10.0, memory: int = 1 << 30) -> Outcome:
    """What became of `program`, which may use `seconds` of wall-clock time and `memory` bytes of address space.

    Raises InputError where this machine offers no isolation and none was waived.
    """
    return _start(program, seconds, memory, isolated=isolation() == "namespaces")


def run_all(programs: Sequence[str], *, seconds: float = 10.0, workers: int = 0) -> list[Outcome]:
    """The outcomes of many programs in order, `workers` at a time (0: one per processor)."""
    isolation()
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(lambda program: run(program, seconds=seconds), programs))


@cache
def isolation() -> Literal["namespaces", "limits"]:
    """How programs are kept in: namespaces, or limits alone where INFILL_SANDBOX=limits says that this will do.

    Raises InputError when neither is possible.
    """
    weak = os.environ.get(WEAK) == "limits"
    try:
        outcome = _start(SELF_TEST, 10.0, 1 << 30, isolated=not weak)
    except InputError as error:
        raise InputError(
            f"generated code cannot be isolated on this machine ({error}); run as root or allow user namespaces, "
            f"or set {WEAK}=limits inside a container that you would give up"
        ) from error
    if not outcome.passed:
        raise InputError(
            f"the sandbox cannot run even {SELF_TEST!r} ({outcome.status}: {outcome.detail.strip()[-300:]}); "
            "install Python where every user may read it"
        )
    return "limits" if weak else "namespaces"


def _start(program: str, seconds: float, memory: int, *, isolated: bool) -> Outcome:
    nonce = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="infill-sandbox-") as root, tempfile.TemporaryFile() as errors:
        os.chmod(root, 0o777)  # where there are no namespaces, nobody has to work in it
        request = {
            "program": program,
            "seconds": int(seconds) + 1,
            "memory": memory,
            "isolated": isolated,
            "root": root,
        }
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as verdict, tempfile.TemporaryFile() as file:
            file.write(json.dumps(request).encode() + b"\n" + nonce.encode())
            file.seek(0)
            try:
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-B", jail.__file__, str(file.fileno()), str(writing)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    cwd=root,
                    env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                    pass_fds=(file.fileno(), writing),
                    start_new_session=True,
                )
            finally:
                os.close(writing)
            status = _wait(process, seconds)
            os.set_blocking(reading, False)
            said = verdict.read(64) or b""
        detail = _tail(errors.fileno())
    if status == jail.UNAVAILABLE:
        raise InputError(detail.strip() or "no reason given")
    if status is None:
        return Outcome(status="timeout", detail=detail)
    passed = status == 0 and said == nonce.encode()
    return Outcome(status="passed" if passed else "failed", detail=detail)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit status, or None after `seconds`; nothing of the process is left alive."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        # The jail's child dies with it (PR_SET_PDEATHSIG), and its namespace with the child.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _tail(file: int) -> str:
    size = os.fstat(file).st_size
    return os.pread(file, DETAIL_BYTES, max(0, size - DETAIL_BYTES)).decode(errors="replace")
