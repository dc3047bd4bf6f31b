"""The page in a real Chromium, before the real transformer and a predictor that always answers the same."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.transformer.packer import warm_up
from tests import chromium
from tests.serving.conftest import chunk, strange_predictor, transforming

SUGGESTION = "with_vat(net)"


def _stream(text: str) -> Callable[[socket.socket], None]:
    """A behaviour: the text in two pieces, as vLLM streams it."""
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    pieces = chunk(text[:4]) + chunk(text[4:], "stop") + "data: [DONE]\n\n"
    return lambda connection: connection.sendall((head + pieces).encode())


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_page_works_in_chromium(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "project" / "src"
    source.mkdir(parents=True)
    (source / "<img src=x onerror=alert(1)>.py").write_text("value = 1\n")
    (source / "plain.py").write_text("def plain(): ...\n")
    (source / "picture.png").write_bytes(b"\x89PNG\0\0")
    with strange_predictor(_stream(SUGGESTION)) as (predictor, _), transforming(model, predictor) as (url, service):
        warm_up(service.packer)
        chromium.drive("browser.mjs", tmp_path, f"{url}/", SUGGESTION, str(tmp_path / "project"))
