"""The two reasons to end a worker early: a hang, or a request to stop.

Both work in any thread and with any engine; the loop only calls `alive` and `asked`.
"""

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Final

from infill import manifest, storage
from infill.errors import InfillError

log = logging.getLogger(__name__)

HUNG: Final = 75
"""Exit status of a process that hung: EX_TEMPFAIL of sysexits.h, "try again"."""
HANG_FILE: Final = "scratch/hang.json"
"""File in a stage's output with the message for the process that started the worker; the stacks are in `logs/`."""
_stop: Final = threading.Event()
_called: Final = threading.Event()
_timeout_s = 0.0
"""Timeout of the active watch, else 0; a process has at most one."""


def alive() -> None:
    """Tell the active watch, if there is one, that the work progresses."""
    _called.set()
    if _timeout_s:  # in case the watch's thread cannot run, or the store does not answer
        faulthandler.dump_traceback_later(2 * _timeout_s, exit=True, file=sys.__stderr__ or sys.stderr)


@contextlib.contextmanager
def watched(timeout_s: float, output: str, rank: int = 0) -> Iterator[None]:
    """End this process if, in the block, `alive` is not called for `timeout_s` seconds.

    The stacks of all threads are first written to `logs/` of `output`.
    """
    global _timeout_s  # noqa: PLW0603
    ended = threading.Event()

    def watch() -> None:
        while _called.wait(timeout_s):
            _called.clear()
            if ended.is_set():
                return
        _end(f"no progress for {timeout_s:g} s, the value of train.timeout_s", output, rank)

    _timeout_s = timeout_s
    alive()
    thread = threading.Thread(target=watch, name="infill-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        _timeout_s = 0.0
        _called.set()
        faulthandler.cancel_dump_traceback_later()
        thread.join()


def _end(why: str, output: str, rank: int) -> None:
    file = storage.join(output, manifest.HANGS_FOLDER, f"hang_rank_{rank}.txt")
    message = f"worker {rank} of the training hung ({why}); the stacks of its threads are in {file}"
    with contextlib.suppress(InfillError), tempfile.TemporaryFile() as stacks:
        faulthandler.dump_traceback(stacks)
        stacks.seek(0)
        storage.write_bytes(file, f"{message}\n\n".encode() + stacks.read())
        storage.write_json(storage.join(output, HANG_FILE), {"message": message})
    log.error("%s", message)
    os._exit(HUNG)


def ask() -> None:
    """Ask this process to stop."""
    _stop.set()


def asked() -> bool:
    """Return whether this process was asked to stop."""
    return _stop.is_set()


def obey() -> None:
    """Treat SIGTERM, which announces a preemption, as a request to stop. Only the main thread may call this."""
    signal.signal(signal.SIGTERM, lambda *_: ask())


@contextlib.contextmanager
def obedient() -> Iterator[None]:
    """Treat SIGTERM as a request to stop in the block, as `obey` does; only in the main thread."""
    _stop.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    obey()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
