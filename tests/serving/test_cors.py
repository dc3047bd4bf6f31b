"""Web pages may ask only where the operator lets their origin."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from serving.transformer.routes import allow_origins


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        ("https://editor.example", "https://editor.example", True),
        ("https://a.example, https://b.example", "https://b.example", True),
        ("https://editor.example", "https://other.example", False),
        ("*", "https://any.example", True),
    ],
)
def test_a_page_asks_only_from_an_allowed_origin(origins: str, origin: str, allowed: bool) -> None:
    app = allow_origins(FastAPI(), origins)
    asked = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    }
    answer = TestClient(app).options("/v1/completions", headers=asked)
    assert (answer.status_code == 200) is allowed
    assert ("access-control-allow-origin" in answer.headers) is allowed
