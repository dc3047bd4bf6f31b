"""The VS Code extension: its manifest, and the whole of it in code-server, which is VS Code in a browser."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from infill.editor import user_settings
from infill.editor.user_settings import UserSettings
from serving.local import free_port
from serving.transformer import keys
from tests.editor.conftest import ROOT, Backend, serving_text, write

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


@pytest.fixture
def place(extension: Path, code_server: Path, tmp_path: Path) -> Callable[[str, str], list[str]]:
    """The command that drives a script's extension at a server's URL, in a project and a scratch folder of its own."""
    project, scratch, program = tmp_path / "my project", tmp_path / "scratch", tmp_path / "infill"
    write(project, PROJECT)
    scratch.mkdir()
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} -m infill.cli "$@"\n'
    )
    program.chmod(0o755)
    vsix = next((extension.parents[1] / "dist").glob("*.vsix"))
    return lambda script, url: [*map(str, ("node", f"test/{script}", vsix, program, url, SUGGESTION, project, scratch))]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_extension_completes_in_vscode(
    extension: Path, code_server: Path, backend: Backend, place: Callable[[str, str], list[str]]
) -> None:
    backend.answer(SUGGESTION)
    command = place("browser.mjs", backend.url)
    _run(command, extension, 600, CHROMIUM=str(CHROMIUM), INFILL_CODE_SERVER=str(code_server))
    assert all(request["max_tokens"] == UserSettings().max_tokens for request in backend.asked)
    prompts = [backend.encoder.decode(request["prompt"]) for request in backend.asked]
    assert any("def net_price" in prompt for prompt in prompts)
    keys = ["s3cret" in head for head, _ in backend.predictor.requests]
    assert sorted(keys) == keys, "the key is sent once one has signed in"
    assert any(keys)


class Operator:
    """Stops and starts a transformer at one address, and looks into its workspaces."""

    def __init__(self, model: Path, keys: Path) -> None:
        self._model, self._keys = model, keys
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._backend: Backend | None = None
        self._running = contextlib.ExitStack()

    def start(self, **settings: str) -> None:
        self._backend = self._running.enter_context(serving_text(self._model, SUGGESTION, port=self._port, **settings))

    def stop(self) -> None:
        self._running.close()

    close = stop

    def lock(self) -> str:
        self.stop()
        key = keys.add(self._keys, "team-a")
        self.start(keys=str(self._keys))
        return key

    def _files(self) -> dict[str, str]:
        assert self._backend
        workspaces = self._backend.service.workspaces._open.values()
        return {path: file.data.decode() for each in workspaces for path, file in each._index.files.items()}

    def answer(self, what: str) -> object:
        """Do what the script in the browser asks for."""
        match what:
            case "files":
                return sorted(self._files())
            case "text":
                return self._files()["helper.py"]
            case "prompt":
                assert self._backend
                return self._backend.prompt
        return getattr(self, what)()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_extension_keeps_a_project_on_the_server(
    extension: Path, code_server: Path, model: Path, place: Callable[[str, str], list[str]], tmp_path: Path
) -> None:
    operator = Operator(model, tmp_path / "keys.json")
    operator.start()
    process = subprocess.Popen(
        place("server-mode.mjs", operator.url),
        cwd=extension,
        env=os.environ | {"CHROMIUM": str(CHROMIUM), "INFILL_CODE_SERVER": str(code_server)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(400, process.kill)
    watchdog.start()
    with process, contextlib.closing(operator):
        assert process.stdin
        assert process.stdout
        output = []
        for line in process.stdout:
            output.append(line)
            if line.startswith("? "):
                process.stdin.write(json.dumps(operator.answer(line[2:].strip())) + "\n")
                process.stdin.flush()
    watchdog.cancel()
    assert process.returncode == 0, "".join(output[-100:])
    assert sum(line.startswith("ok ") for line in output) == 6
