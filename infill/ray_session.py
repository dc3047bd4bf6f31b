"""The Ray that a stage works on; what a stage does with it is the stage's affair."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import Final

from infill.errors import ServiceError

OBJECT_STORE_BYTES: Final = 200_000_000
"""Ray's shared memory where we start it: what stages send to their workers is small."""


@contextlib.contextmanager
def session() -> Iterator[None]:
    """Connect to the Ray of RAY_ADDRESS, or start one on this machine that ends with the block.

    A process that is connected already stays so. A Ray that merely happens to run on this machine is left alone.
    Raises ServiceError when there is none at RAY_ADDRESS.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            _knock(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                address="local",
                num_cpus=os.cpu_count(),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except OSError as error:
        raise ServiceError(f"there is no Ray at RAY_ADDRESS={address}; unset it") from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError when nobody listens at `host:port`: Ray itself goes on trying for minutes."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def address() -> str:
    """That of the Ray that this process is connected to, for processes that are to use it too."""
    import ray

    return str(ray.get_runtime_context().gcs_address)
