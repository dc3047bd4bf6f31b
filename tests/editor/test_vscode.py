"""The VS Code extension: its manifest, and the whole of it in code-server, which is VS Code in a browser."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infill.editor import user_settings
from infill.editor.user_settings import UserSettings
from tests.editor.conftest import ROOT, Backend, write

EXTENSION = ROOT / "editors/vscode"
SUGGESTION = "net_price(order, rate)"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROJECT = {
    "helper.py": "def net_price(order, rate):\n    return order.total / (1 + rate)\n",
    "main.py": "from helper import net_price\n\ndef invoice(order, rate):\n    price ",
}


def _properties() -> dict[str, dict[str, object]]:
    manifest = json.loads((EXTENSION / "package.json").read_text())
    properties: dict[str, dict[str, object]] = manifest["contributes"]["configuration"]["properties"]
    return properties


def test_the_settings_are_those_of_the_language_server_with_its_defaults_and_bounds() -> None:
    properties = {name.removeprefix("infill."): value for name, value in _properties().items()}
    del properties["path"]
    ours = {user_settings.camel(name): value for name, value in vars(UserSettings()).items() if name != "fallback"}
    assert {name: value["default"] for name, value in properties.items()} == ours | {"languages": []}
    for name, bounds in user_settings.BOUNDS.items():
        value = properties[user_settings.camel(name)]
        assert (value["minimum"], value["maximum"]) == bounds


def test_a_folder_that_is_opened_can_name_neither_the_program_nor_the_server() -> None:
    properties = _properties()
    assert {properties[name]["scope"] for name in ("infill.path", "infill.url")} == {"machine"}
    assert properties["infill.telemetry"]["scope"] == "application"


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the extension with its npm packages, and the packaged extension in it."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("repository") / "editors/vscode"
    shutil.copytree(EXTENSION, folder, ignore=shutil.ignore_patterns("dist", "node_modules"))
    shutil.copy(ROOT / "LICENSE", folder.parents[1])
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"npm cannot install the extension's packages: {done.stderr.strip().splitlines()[-1:]}")
    (folder.parents[1] / "dist").mkdir()
    _run(["npm", "run", "package"], folder, 300)
    return folder


def _run(command: list[str], folder: Path, timeout_s: float, **variables: str) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-3_000:]


@pytest.fixture(scope="module")
def code_server() -> Path:
    """The folder of code-server, where `editors/vscode/test/code-server.sh` has put it: that takes minutes."""
    if not CHROMIUM:
        pytest.skip("Chromium is not installed")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = re.search(r"^VERSION=(\S+)", (EXTENSION / "test/code-server.sh").read_text(), re.MULTILINE)
    assert version
    folder = Path(os.environ.get("INFILL_CODE_SERVER") or cache / f"infill/code-server-{version[1]}")
    if not (folder / ".ready").exists():
        pytest.skip("code-server is not installed: run editors/vscode/test/code-server.sh once")
    return folder


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_modules_of_the_extension(extension: Path) -> None:
    _run(["npm", "test"], extension, 300)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_extension_completes_in_vscode(
    extension: Path, code_server: Path, backend: Backend, tmp_path: Path
) -> None:
    backend.answer(SUGGESTION)
    project, scratch = tmp_path / "my project", tmp_path / "scratch"
    write(project, PROJECT)
    scratch.mkdir()
    program = tmp_path / "infill"
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} -m infill.cli "$@"\n'
    )
    program.chmod(0o755)
    vsix = next((extension.parents[1] / "dist").glob("*.vsix"))
    command = ["node", "test/browser.mjs", vsix, program, backend.url, SUGGESTION, project, scratch]
    _run([*map(str, command)], extension, 600, CHROMIUM=str(CHROMIUM), INFILL_CODE_SERVER=str(code_server))
    assert all(request["max_tokens"] == UserSettings().max_tokens for request in backend.asked)
    prompts = [backend.encoder.decode(request["prompt"]) for request in backend.asked]
    assert any("def net_price" in prompt for prompt in prompts)
    keys = ["s3cret" in head for head, _ in backend.predictor.requests]
    assert sorted(keys) == keys, "the key is sent once one has signed in"
    assert any(keys)
