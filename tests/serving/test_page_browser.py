"""The page in a real Chromium, before the real transformer and a predictor that always answers the same."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.transformer.packer import warm_up
from tests.serving.conftest import chunk, strange_predictor, transforming

WEB = Path(__file__).resolve().parents[2] / "web"
SUGGESTION = "with_vat(net)"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def _stream(text: str) -> Callable[[socket.socket], None]:
    """A behaviour: the text in two pieces, as vLLM streams it."""
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    pieces = chunk(text[:4]) + chunk(text[4:], "stop") + "data: [DONE]\n\n"
    return lambda connection: connection.sendall((head + pieces).encode())


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")
@pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed")
def test_the_page_works_in_chromium(model: Path, tmp_path: Path) -> None:
    assert CHROMIUM
    shutil.copytree(WEB, tmp_path / "web")
    if not (tmp_path / "web" / "node_modules").exists():
        install = ["npm", "ci", "--no-audit", "--no-fund"]
        done = subprocess.run(install, cwd=tmp_path / "web", capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            pytest.skip(f"npm cannot install the page's packages: {done.stderr.strip().splitlines()[-1:]}")
    source = tmp_path / "project" / "src"
    source.mkdir(parents=True)
    (source / "<img src=x onerror=alert(1)>.py").write_text("value = 1\n")
    (source / "plain.py").write_text("def plain(): ...\n")
    (source / "picture.png").write_bytes(b"\x89PNG\0\0")
    with strange_predictor(_stream(SUGGESTION)) as (predictor, _), transforming(model, predictor) as (url, service):
        warm_up(service.packer)
        done = subprocess.run(
            ["node", "test/browser.mjs", f"{url}/", SUGGESTION, str(tmp_path / "project")],
            cwd=tmp_path / "web",
            env=os.environ | {"CHROMIUM": CHROMIUM},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
