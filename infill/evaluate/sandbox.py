"""A sandbox that runs generated programs in isolation and reports whether they ran to their end.

The program runs as a user without rights, in its own namespaces without a network, in a root directory with only
Python's files (read-only) and an empty `/tmp`, in one process with a list of allowed system calls, with limits of time,
memory and file size (see `jail`). `layers` says which of these this machine does not offer.

A program alone says of itself that it ran to its end: `sys.exit(0)` does not pass, but a program that is written to
deceive can. What must not be forged belongs into the `check`, which is trusted: it runs in another process, where the
program reaches neither its code nor the nonce that makes a pass, and calls the program's functions by
`remote("name")`, with copies of plain values (numbers, texts, collections) as arguments and results. So a program
passes only by answering right.

A program of another language (`toolchains`) is compiled and started in the same way, once for each question of the
check. It and its compiler may start processes, in the same namespaces and with the same limits.
"""

import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Final, Literal

from infill.errors import InputError
from infill.evaluate import jail
from infill.evaluate.toolchains import Commands

WEAK: Final = "INFILL_SANDBOX"
"""Environment variable: `limits` allows running without namespaces, in a container that is itself a sandbox."""
DETAIL_BYTES: Final = 2_000
VERDICT_BYTES: Final = 4_096
log: Final = logging.getLogger(__name__)
SELF_TEST: Final = "import math, random, typing"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    status: Literal["passed", "failed", "timeout"]
    detail: str
    """The end of the program's standard error."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Layers of isolation that this machine does not offer, with the reason."""

    @property
    def passed(self) -> bool:
        return self.status == "passed"


def run(
    program: str, *, check: str = "", seconds: float = 10.0, memory: int = 1 << 30, tools: Commands | None = None
) -> Outcome:
    """Run `program` and then `check` with at most `seconds` of wall-clock time; return the outcome.

    Each may take `memory` bytes. With `tools` the program is another language's: it is built, and the check calls it
    as `remote("output")(text)`, which starts it with a text as its standard input and returns its standard output.
    Raises InputError when this machine offers no isolation, unless INFILL_SANDBOX waives it.
    """
    return _start(program, seconds, memory, check=check, isolated=isolation() == "namespaces", tools=tools)


def run_all(
    programs: Sequence[str],
    *,
    checks: Sequence[str] | None = None,
    tools: Sequence[Commands | None] | None = None,
    seconds: float = 10.0,
    workers: int = 0,
) -> list[Outcome]:
    """Return the outcomes of several programs in order, run `workers` at a time (0: one per processor).

    `checks` has one check per program, `tools` its commands or None.
    """
    isolation()
    each = zip(programs, checks or [""] * len(programs), tools or [None] * len(programs), strict=True)
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(lambda one: run(one[0], check=one[1], tools=one[2], seconds=seconds), each))


def layers() -> dict[str, str]:
    """Return the layers of isolation that this machine does not offer, with the reason; empty if all are in force.

    Raises InputError as `isolation` does.
    """
    waived = {} if isolation() == "namespaces" else {"namespaces": f"{WEAK}=limits waives them"}
    return {**waived, **run(SELF_TEST).missing}


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
    for layer, reason in outcome.missing.items():
        log.warning("sandbox: generated code runs without the layer %s, since %s", layer, reason)
    return "limits" if weak else "namespaces"


def _start(
    program: str, seconds: float, memory: int, *, isolated: bool, check: str = "", tools: Commands | None = None
) -> Outcome:
    nonce = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="infill-sandbox-") as root, tempfile.TemporaryFile() as errors:
        os.chmod(root, 0o777)  # without namespaces, the user nobody works in it
        request = {
            "program": program,
            "seconds": int(seconds) + 1,
            "memory": memory,
            "isolated": isolated,
            "root": root,
            "tools": tools and tools.request(),
        }
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as verdict, tempfile.TemporaryFile() as file:
            message = jail.Channel(-1, file.fileno())
            message.send(request)
            message.send({"check": check, "nonce": nonce})
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
            report, _, answer = (verdict.read(VERDICT_BYTES) or b"").partition(b"\n")
        detail = _tail(errors.fileno())
    if status == jail.UNAVAILABLE:
        raise InputError(detail.strip() or "no reason given")
    missing = json.loads(report or b"{}")
    if status is None:
        return Outcome(status="timeout", detail=detail, missing=missing)
    passed = status == 0 and answer == nonce.encode()
    return Outcome(status="passed" if passed else "failed", detail=detail, missing=missing)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Return the exit status, or None after `seconds`; kill all that is left of the process."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        # The supervisor dies with the starter (PR_SET_PDEATHSIG), and with it its namespace.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _tail(file: int) -> str:
    size = os.fstat(file).st_size
    return os.pread(file, DETAIL_BYTES, max(0, size - DETAIL_BYTES)).decode(errors="replace")
