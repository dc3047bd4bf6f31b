"""A sandbox that runs generated Python in isolation and reports whether it ran to its end.

The program runs as nobody, in its own namespaces without a network, in a root directory with only Python's files
(read-only) and an empty `/tmp`, with limits of time, memory and file size. It has passed if it ended with status 0
*and* returned a nonce that it gets only after its last statement, so `sys.exit(0)` does not pass. A hostile program
could find the nonce, but generated code is only careless, and the isolation does not depend on it.
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
"""Environment variable: `limits` allows running without namespaces, in a container that is itself a sandbox."""
DETAIL_BYTES: Final = 2_000
SELF_TEST: Final = "import math, random, typing"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    status: Literal["passed", "failed", "timeout"]
    detail: str
    """The end of the program's standard error."""

    @property
    def passed(self) -> bool:
        return self.status == "passed"


def run(program: str, *, seconds: float = 10.0, memory: int = 1 << 30) -> Outcome:
    """Run `program` with at most `seconds` of wall-clock time and `memory` bytes of address space; return its outcome.

    Raises InputError when this machine offers no isolation, unless INFILL_SANDBOX waives it.
    """
    return _start(program, seconds, memory, isolated=isolation() == "namespaces")


def run_all(programs: Sequence[str], *, seconds: float = 10.0, workers: int = 0) -> list[Outcome]:
    """Return the outcomes of several programs in order, run `workers` at a time (0: one per processor)."""
    isolation()
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(lambda program: run(program, seconds=seconds), programs))


@cache
def isolation() -> Literal["namespaces", "limits"]:
    """Return how programs are isolated: by namespaces, or only by limits if INFILL_SANDBOX=limits allows it.

    Raises InputError when neither is possible.
    """
    weak = os.environ.get(WEAK) == "limits"
    try:
        outcome = _start(SELF_TEST, 10.0, 1 << 30, isolated=not weak)
    except InputError as error:
        raise InputError(
            f"generated code cannot be isolated on this machine ({error}); run as root or allow user namespaces, "
            f"or set {WEAK}=limits inside a container that is itself a sandbox"
        ) from error
    if not outcome.passed:
        raise InputError(
            f"the sandbox cannot run even {SELF_TEST!r} ({outcome.status}: {outcome.detail.strip()[-300:]}); "
            "install Python where every user can read it"
        )
    return "limits" if weak else "namespaces"


def _start(program: str, seconds: float, memory: int, *, isolated: bool) -> Outcome:
    nonce = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="infill-sandbox-") as root, tempfile.TemporaryFile() as errors:
        os.chmod(root, 0o777)  # without namespaces, the user nobody works in it
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
            answer = verdict.read(64) or b""
        detail = _tail(errors.fileno())
    if status == jail.UNAVAILABLE:
        raise InputError(detail.strip() or "no reason given")
    if status is None:
        return Outcome(status="timeout", detail=detail)
    passed = status == 0 and answer == nonce.encode()
    return Outcome(status="passed" if passed else "failed", detail=detail)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Return the exit status, or None after `seconds`; kill all that is left of the process."""
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
