"""The Ray session of a stage: a cluster at RAY_ADDRESS, or a Ray on this machine."""

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
"""Ray's shared memory when we start it; stages send little data to their workers."""
USUAL: Final = ("/tmp", "/var/tmp", "/dev/shm")
LONGEST: Final = 38
"""Maximum bytes of a path to which Ray appends `/ray/session_<time>_<pid>/sockets/plasma_store`: a socket's path has at
most 107 (`sun_path` of unix(7))."""
_PLAIN: Final = re.compile(r"/[\w./+-]*", re.ASCII)


@contextlib.contextmanager
def session() -> Iterator[None]:
    """Connect to the Ray at RAY_ADDRESS, or start one on this machine that ends with the block.

    A process that is already connected stays connected. Another Ray on this machine is not used. Raises ServiceError
    when there is no Ray at RAY_ADDRESS, or when it cannot be started.
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
            raise ServiceError(f"there is no Ray at RAY_ADDRESS={address}; start it, or unset RAY_ADDRESS") from error
        raise ServiceError(f"Ray cannot be started on this machine ({error})") from error
    except Exception as error:
        if "timed out during startup" not in str(error):  # Ray has no exception type for this
            raise
        raise ServiceError("Ray did not start within a minute: this machine is too busy; try again") from error
    try:
        yield
    finally:
        ray.shutdown()


def temp_folder() -> str:
    """Return the folder for the sockets and logs of a Ray on this machine.

    It is the first of RAY_TMPDIR or TMPDIR and the usual ones that is writable and has a short, plain path. Raises
    InputError when there is none.
    """
    wanted = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    for folder in (wanted, *USUAL):
        if _PLAIN.fullmatch(folder) and len(folder) <= LONGEST and os.access(folder, os.W_OK | os.X_OK):
            return os.path.join(folder, "ray")
    raise InputError(
        f"Ray has no folder for its sockets: none of {', '.join((wanted, *USUAL))} is writable and has a path of at "
        f"most {LONGEST} letters, digits, dots, dashes and slashes; set RAY_TMPDIR to a folder like that"
    )


def interpreter() -> dict[str, str] | None:
    """Return the runtime environment that workers need if the interpreter's path has blanks or quotes; else None.

    Ray starts some workers by a shell, which would fail with such a path. None starts workers faster.
    """
    quoted = shlex.quote(sys.executable)
    return None if quoted == sys.executable else {"py_executable": quoted}


def _knock(address: str) -> None:
    """Raise OSError if no server listens at `host:port`; Ray itself keeps trying for minutes."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def address() -> str:
    """Return the address of the Ray that this process is connected to, for other processes that use it."""
    import ray

    return str(ray.get_runtime_context().gcs_address)
