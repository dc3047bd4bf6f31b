"""Pages in a real Chromium, driven by the scripts in `web/test`."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).resolve().parents[1] / "web"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def drive(script: str, folder: Path, *arguments: str) -> None:
    """Run a script of `web/test` in a copy of `web` in `folder`; skip the test where its packages cannot be had."""
    if not CHROMIUM or not shutil.which("npm"):
        pytest.skip("Chromium or npm is not installed")
    web = folder / "web"
    shutil.copytree(WEB, web)
    if not (web / "node_modules").exists():
        done = _run(["npm", "ci", "--no-audit", "--no-fund"], web)
        if done.returncode:
            pytest.skip(f"npm cannot install the page's packages: {done.stderr.strip().splitlines()[-1:]}")
    done = _run(["node", f"test/{script}", *arguments], web)
    assert done.returncode == 0, done.stdout + done.stderr


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CHROMIUM": str(CHROMIUM)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
