"""The packages that clients use, pointed at the transformer; those of npm where Node and its registry are available."""

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import ollama
import pytest
from mistralai.client import Mistral
from mistralai.client.errors import SDKError

from tests.serving.conftest import chunk, say, strange_predictor, transforming

NODE = Path(__file__).parent / "node"
TEXT = "return max(circles)\n"
CARET = {"prompt": "def largest(circles):\n    ", "suffix": "\n"}


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    """A transformer before a predictor that always writes TEXT."""
    events = [chunk("return max"), chunk("(circles)\n", "stop"), "data: [DONE]\n\n"]
    with (
        strange_predictor(say("200 OK", "".join(events), "text/event-stream")) as (predictor, _),
        transforming(model, predictor) as (url, _),
    ):
        yield url


def test_the_mistralai_package_works_whole_and_streaming(url: str) -> None:
    with Mistral(api_key="secret", server_url=url) as client:
        whole = client.fim.complete(model="codestral-latest", **CARET, max_tokens=16, random_seed=3)
        assert whole.choices[0].message is not None
        assert whole.choices[0].message.content == TEXT
        chunks = [event.data for event in client.fim.stream(model="codestral-latest", **CARET)]
        assert "".join(str(each.choices[0].delta.content) for each in chunks) == TEXT
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert chunks[-1].usage is not None
        with pytest.raises(SDKError, match="'top_p' must be between"):
            client.fim.complete(model="codestral-latest", **CARET, top_p=7)


def test_the_ollama_package_works_whole_and_streaming(url: str) -> None:
    with ollama.Client(host=url) as client:
        (model,) = client.list().models
        assert model.model is not None
        assert "insert" in (client.show(model.model).capabilities or ())
        assert client.generate(model=model.model, **CARET, options={"num_predict": 16}).response == TEXT
        parts = list(client.generate(model=model.model, **CARET, stream=True))
        assert "".join(part.response or "" for part in parts) == TEXT
        assert parts[-1].done
        assert client.generate(model=model.model).done_reason == "load"
        with pytest.raises(ollama.ResponseError, match="'temperature' must be between"):
            client.generate(model=model.model, **CARET, options={"temperature": -1})


def run(*command: str, folder: Path, **more: str) -> str:
    """Return what a command prints."""
    done = subprocess.run(command, cwd=folder, env=os.environ | more, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.long
@pytest.mark.timeout(1_200)
def test_the_clients_of_npm_work(url: str, tmp_path: Path) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node and npm are not installed")
    for file in NODE.iterdir():
        shutil.copy(file, tmp_path)
    installed = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"npm cannot install the clients: {installed.stderr.decode()[-300:]}")
    printed = run("node", "clients.mjs", folder=tmp_path, INFILL_URL=url, NO_PROXY="*", HOME=str(tmp_path))
    got = json.loads(printed.strip().splitlines()[-1])
    assert got.pop("tabby") == [TEXT.strip()], "tabby-agent trims the text itself"
    assert got == {name: [TEXT] * (1 if name.startswith("continue") else 2) for name in got}
    assert len(got) == 6


VIMRC = """
set nocompatible noswapfile viminfo= nomore
let g:llama_config = {'endpoint_fim': $INFILL_URL .. '/infill', 'ring_update_ms': 200}
set runtimepath+=$LLAMA_VIM
"""


@pytest.mark.long
def test_llama_vim_completes_while_one_types(url: str, tmp_path: Path) -> None:
    plugin = os.environ.get("LLAMA_VIM", "")
    if not plugin or shutil.which("vim") is None:
        pytest.skip("LLAMA_VIM names no checkout of llama.vim, or Vim is not installed")
    file = tmp_path / "use.py"
    file.write_text("import shapes\n\n\ndef largest(circles):\n    \n")
    (tmp_path / "vimrc").write_text(VIMRC)
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(INFILL_URL=url, TERM="xterm", HOME=str(tmp_path), NO_PROXY="*", no_proxy="*")
        os.execvp("vim", ["vim", "-Nu", str(tmp_path / "vimrc"), "+call llama#init()", "+5", str(file)])
    try:
        for keys, seconds in ((b"", 3.0), (b"A", 0.5), (b"best = ", 4.0), (b"\t", 1.0), (b"\x1b:w\r", 1.0)):
            os.write(terminal, keys)
            drain(terminal, seconds)
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)
    assert file.read_text().splitlines()[4].endswith(TEXT.strip())


def drain(terminal: int, seconds: float) -> None:
    """Read what the terminal shows, so that the program in it does not wait."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 65_536)
