"""The client that VS Code is built on, from npm, against a real `infill lsp`."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.editor.conftest import PROGRAM, ROOT, Backend, write

CLIENT = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script next to its package."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    shutil.copytree(CLIENT, folder, dirs_exist_ok=True)
    install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install the client: {done.stderr.strip().splitlines()[-1:]}")
    return folder / "client.cjs"


@pytest.mark.long
def test_the_client_of_vscode_gets_completions(client: Path, backend: Backend, tmp_path: Path) -> None:
    write(tmp_path, {"main.py": "x = 1\n", "helper.py": "def helper():\n    return 1\n"})
    command = [*PROGRAM, "lsp", "--url", backend.url, "--stdio"]
    text = "# 🌍\nx = helper"
    arguments = [(tmp_path / "main.py").as_uri(), text, "1", "10", *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["node", client, *arguments], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    summary = json.loads(done.stdout)
    assert summary["capabilities"]["inlineCompletionProvider"] is not None
    assert summary["cancelled"] == -32800
    assert summary["completion"]["items"][0]["insertText"] == "answer"
    assert summary["list"] is None
    assert (summary["status"]["shown"], summary["status"]["accepted"]) == (1, 1)
    assert "workspace/didChangeWatchedFiles" in summary["registered"]
    assert (summary["messages"], summary["exit"]) == ([], 0)
    assert backend.asked[-1]["max_tokens"] == 5
    assert backend.prompt.rstrip().endswith("x = helper")
