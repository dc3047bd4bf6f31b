"""The Ray that stages work on."""

import socket

import pytest

from infill import ray_session
from infill.errors import ServiceError


def test_a_ray_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # another test of this process may be connected
    with pytest.raises(ServiceError, match=f"there is no Ray at RAY_ADDRESS=127.0.0.1:{port}"), ray_session.session():
        pass
