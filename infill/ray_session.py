"""The Ray that a stage works on; what a stage does with it is the stage's affair."""

import contextlib
import logging
import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from typing import Final

from infill.errors import InputError, ServiceError

OBJECT_STORE_BYTES: Final = 200_000_000
"""Ray's shared memory where we start it: what stages send to their workers is small."""
USUAL: Final = ("/tmp", "/var/tmp", "/dev/shm")
LONGEST: Final = 38
"""Bytes of a path below which Ray puts `/ray/session_<time>_<pid>/sockets/plasma_store`: a socket's path has at most
107 (`sun_path` of unix(7))."""
_PLAIN: Final = re.compile(r"/[\w./+-]*", re.ASCII)


@contextlib.contextmanager
def session() -> Iterator[None]:
    """Connect to the Ray of RAY_ADDRESS, or start one on this machine that ends with the block.

    A process that is connected already stays so. A Ray that merely happens to run on this machine is left alone.
    Raises ServiceError when there is none at RAY_ADDRESS, or when none can be started.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            _knock(address)
            ray.init(address=address, runtime_env=interpreter(), log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                address="local",
                _temp_dir=temp_folder(),
                runtime_env=interpreter(),
                num_cpus=os.cpu_count(),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except OSError as error:
        if address:
            raise ServiceError(f"there is no Ray at RAY_ADDRESS={address}; unset it") from error
        raise ServiceError(f"Ray cannot be started on this machine ({error})") from error
    except Exception as error:
        if "timed out during startup" not in str(error):  # for which Ray has no type of its own
            raise
        raise ServiceError("Ray has not started within a minute: this machine is too busy; try again") from error
    try:
        yield
    finally:
        ray.shutdown()


def temp_folder() -> str:
    """Return the folder for the sockets and logs of a Ray that is started here: of RAY_TMPDIR, TMPDIR and the usual
    ones the first that may be written and whose path is short and plain enough.

    Raises InputError when there is none.
    """
    wanted = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    for folder in (wanted, *USUAL):
        if _PLAIN.fullmatch(folder) and len(folder) <= LONGEST and os.access(folder, os.W_OK | os.X_OK):
            return os.path.join(folder, "ray")
    raise InputError(
        f"Ray has no folder for its sockets: of {', '.join((wanted, *USUAL))} none may be written and has a path of at "
        f"most {LONGEST} letters, digits, dots, dashes and slashes; set RAY_TMPDIR to one that has"
    )


def interpreter() -> dict[str, str] | None:
    """Return the runtime environment that workers need where the interpreter's path has blanks or quotes: Ray starts
    some of them by a shell, and they would never come up. Elsewhere None, which starts workers sooner."""
    quoted = shlex.quote(sys.executable)
    return None if quoted == sys.executable else {"py_executable": quoted}


def _knock(address: str) -> None:
    """Raise OSError when nobody listens at `host:port`: Ray itself goes on trying for minutes."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def address() -> str:
    """That of the Ray that this process is connected to, for processes that are to use it too."""
    import ray

    return str(ray.get_runtime_context().gcs_address)
