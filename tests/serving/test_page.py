"""The page at `/`: what it is served with, and that the committed bundle was built from the sources next to it."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient

from serving.transformer.web_page import FOLDER, add_page, files

WEB = Path(__file__).resolve().parents[2] / "web"


@pytest.fixture
def client() -> Iterator[TestClient]:
    app, router = FastAPI(), APIRouter()
    add_page(router)
    app.include_router(router)
    with TestClient(app) as client:
        yield client


def test_the_bundle_was_built_from_these_sources_and_is_small() -> None:
    names = ["build.mjs", "package.json", "package-lock.json"]
    names += [path.relative_to(WEB).as_posix() for path in (WEB / "src").iterdir()]
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name}\0".encode() + (WEB / name).read_bytes() + b"\0")
    bundle = (FOLDER / "page.js").read_text()
    assert f"sha256:{digest.hexdigest()} " in bundle, "the page's sources have changed: run make page"
    assert len(bundle.encode()) < 400_000


def test_the_page_loads_its_own_files_only_and_has_nothing_inline(client: TestClient) -> None:
    page = client.get("/").text
    assert not re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", page)
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(addresses) == 3
    for address in addresses:
        assert client.get(f"/{address}").status_code == 200
    assert client.get("/static/none.js").status_code == 404
    assert client.get("/static/..%2fpage.py").status_code == 404


@pytest.mark.parametrize("path", ["/", *(f"/static/{name}" for name in sorted(files()))])
def test_every_file_has_a_policy_and_travels_small_and_once(client: TestClient, path: str) -> None:
    whole = client.get(path, headers={"accept-encoding": "identity"})
    small = client.get(path, headers={"accept-encoding": "gzip"})
    assert small.content == whole.content
    assert small.headers["content-encoding"] == "gzip"
    policy = whole.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert whole.headers["x-content-type-options"] == "nosniff"
    kept = client.get(path, headers={"if-none-match": whole.headers["etag"]})
    assert (kept.status_code, kept.content) == (httpx.codes.NOT_MODIFIED, b"")


def test_a_browser_learns_what_each_file_is(client: TestClient) -> None:
    kinds = {name: client.get(f"/static/{name}").headers["content-type"] for name in files()}
    assert kinds == {
        "icon.svg": "image/svg+xml",
        "index.html": "text/html; charset=utf-8",
        "licences.txt": "text/plain; charset=utf-8",
        "page.css": "text/css; charset=utf-8",
        "page.js": "text/javascript; charset=utf-8",
    }
