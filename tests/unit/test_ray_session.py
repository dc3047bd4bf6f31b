"""The Ray that stages work on."""

from typing import Any

import pytest

from infill import ray_session
from infill.errors import ServiceError


def test_a_ray_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def refuse(**_: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ServiceError, match="there is no Ray at RAY_ADDRESS"), ray_session.session():
        pass
