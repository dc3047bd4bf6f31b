"""Both servers on one machine: `serve` for `infill serve`, and `running` for a test or a smoke run.

Neither is restarted: when one ends, the other is stopped and the error quotes the last lines of its output.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Final

from infill import machine, manifest, storage
from infill.artifacts import deployment
from infill.errors import InputError, ServiceError
from serving.transformer import keys as key_file
from serving.transformer.transformer_config import TransformerConfig, prepare

CPU_PROMPT_TOKENS: Final = 1_024
"""Prompt budget on a CPU without a deployment record: a core reads 100 to 350 tokens/s with 135M parameters
(docs/log.md), so no client would wait for a prompt that filled a context of 8,192 tokens."""
POLL_S: Final = 0.1
STOP_S: Final = 10.0
"""Seconds after SIGTERM until a server that still runs is killed."""
TAIL_LINES: Final = 30
DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""An opener that uses no proxy, since the servers run on this machine."""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """The model folder to serve, and the deployment record that names it, if any."""

    model: str
    deployment: str = ""


def resolve(uri: str) -> ServedModel:
    """Return the target at `uri`: a model folder, a deployment record, or a folder that holds one.

    Raises InputError for a record that is missing or damaged, or whose model is missing.
    """
    record = uri if uri.endswith(".json") else deployment.file(uri)
    if not storage.exists(record):
        if record == uri:
            raise InputError(f"there is no deployment record at {uri}; run the deploy stage first")
        return ServedModel(model=uri)
    value = storage.read_json(record)
    if not isinstance(value, dict) or not value.get("model_uri"):
        raise InputError(f"{record} is not a deployment record: it names no model_uri")
    model = manifest.follow(value, "model", storage.parent(record))
    if not storage.exists(model):
        raise InputError(f"the model that {record} names is gone: there is nothing at {model}; copy or run it again")
    return ServedModel(model=model, deployment=record)


@dataclass(kw_only=True)
class Child:
    """A server process and the last lines of its output."""

    name: str
    url: str
    process: subprocess.Popen[str]
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    reader: threading.Thread | None = None

    def ready(self) -> bool:
        """Return whether the server answers that it is ready."""
        try:
            with DIRECT.open(f"{self.url}/v2/health/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def check(self) -> None:
        """Raise ServiceError if the process has ended."""
        code = self.process.poll()
        if code is None:
            return
        if self.reader:
            self.reader.join(2)
        output = "\n".join(self.tail) or "(no output)"
        raise ServiceError(f"the {self.name} has ended with exit code {code}; its last lines:\n{output}")


def start(name: str, module: str, url: str, arguments: Sequence[str], echo: Callable[[str], None]) -> Child:
    """Start a server that ends with this process; pass each line that it writes to `echo`."""
    root = str(Path(__file__).resolve().parent.parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "serving.child", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,  # Ctrl-C reaches only us, and we stop the servers in order
    )
    child = Child(name=name, url=url, process=process)

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            child.tail.append(line.rstrip())
            with contextlib.suppress(OSError):  # the reader has gone, but the server must not block on a full pipe
                echo(f"{name} | {line.rstrip()}")

    child.reader = threading.Thread(target=read, name=name, daemon=True)
    child.reader.start()
    return child


def wait_ready(children: Sequence[Child], timeout_s: float) -> None:
    """Wait until all servers are ready. Raises ServiceError when one ends or the time is up."""
    deadline = time.monotonic() + timeout_s
    waiting = list(children)
    while waiting:
        for child in children:
            child.check()
        waiting = [child for child in waiting if not child.ready()]
        if waiting and time.monotonic() > deadline:
            output = "\n".join(waiting[0].tail)
            raise ServiceError(f"the {waiting[0].name} was not ready within {timeout_s:g} s; its last lines:\n{output}")
        if waiting:
            time.sleep(POLL_S)


def stop(children: Sequence[Child]) -> None:
    """End all servers with SIGTERM; kill those that still run after STOP_S seconds."""
    for child in children:
        if child.process.poll() is None:
            child.process.terminate()
    deadline = time.monotonic() + STOP_S
    try:
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(deadline - time.monotonic(), 0))
    finally:
        for child in children:
            child.process.kill()
            child.process.wait()
            for pipe in (child.process.stdin, child.process.stdout):
                if child.reader and pipe is child.process.stdout:
                    child.reader.join(2)
                if pipe:
                    pipe.close()


@contextlib.contextmanager
def server(
    name: str, module: str, url: str, arguments: Sequence[str], echo: Callable[[str], None], timeout_s: float = 120.0
) -> Iterator[Child]:
    """Run one server; yield it when it is ready. Raises ServiceError when it does not start."""
    child = start(name, module, url, arguments, echo)
    try:
        wait_ready([child], timeout_s)
        yield child
    finally:
        stop([child])


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _require_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServiceError(f"cannot listen on {host}:{port} ({error.strerror}); choose another --port") from error


def _url(host: str, port: int) -> str:
    """Return the URL at which this machine reaches a server that listens at `host`."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


@contextlib.contextmanager
def servers(
    uri: str,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    timeout_s: float = 300.0,
    predictor: Sequence[str] = (),
    transformer: Sequence[str] = (),
    max_prompt_tokens: int = 0,
    candidate: str = "",
    echo: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[Child, ...]]:
    """Run predictor and transformer for the model or deployment at `uri`; yield them when they are ready.

    With `candidate`, a model folder or deployment, a second predictor runs that model and comes last. `predictor` and
    `transformer` are further command-line arguments of the servers; port 0 takes a free one, and 0 `max_prompt_tokens`
    leaves the budget to the deployment or the model's context.
    Raises InputError when the model cannot be served, ServiceError when a server does not start.
    """
    target = resolve(uri)
    if artifact := manifest.find(target.model):
        manifest.check(artifact)
    inner, port = free_port(), port or free_port()
    _require_free(host, port)
    rival = resolve(candidate).model if candidate else ""
    config = TransformerConfig(model=target.model, deployment=target.deployment, max_prompt_tokens=max_prompt_tokens)
    for each in (config, *([replace(config, model=rival, deployment="")] if rival else [])):
        prepare(each)  # a bad model folder is reported here, in one sentence
    what = ["--model", target.model, "--deployment", target.deployment]
    upstream = f"http://127.0.0.1:{inner}"
    outer = _url(host, port)
    children: list[Child] = []
    try:
        arguments = [*what, "--port", str(inner), *predictor]
        children.append(start("predictor", "serving.predictor", upstream, arguments, echo))
        arguments = [*what, "--predictor", upstream, "--host", host, "--http_port", str(port)]
        arguments += ["--max_prompt_tokens", str(max_prompt_tokens), *transformer]
        second = _url("127.0.0.1", free_port())
        if rival:
            arguments += ["--candidate_predictor", second, "--candidate_model", rival]
        children.append(start("transformer", "serving.transformer", outer, arguments, echo))
        if rival:
            arguments = ["--model", rival, "--port", second.rpartition(":")[2], *predictor]
            children.append(start("candidate", "serving.predictor", second, arguments, echo))
        wait_ready(children, timeout_s)
        yield tuple(children)
    finally:
        stop(children)


def cpu_budget(uri: str) -> int:
    """Return the prompt budget for `uri` on a machine without a GPU; 0 where deployment or context limits it."""
    target = resolve(uri)
    if target.deployment or machine.has_gpu():
        return 0
    most = prepare(TransformerConfig(model=target.model)).max_prompt_tokens
    return CPU_PROMPT_TOKENS if most > CPU_PROMPT_TOKENS else 0


@contextlib.contextmanager
def running(uri: str, *, predictor: Sequence[str] = (), transformer: Sequence[str] = ()) -> Iterator[str]:
    """Serve `uri` on free ports of this machine; yield the transformer's base URL."""
    with servers(uri, predictor=predictor, transformer=transformer) as children:
        yield children[1].url


def serve(
    uri: str,
    *,
    port: int = 8_080,
    host: str = "127.0.0.1",
    cors_origins: str = "",
    engine: str = "auto",
    keys: str = "",
    max_prompt_tokens: int = 0,
    telemetry: str = "",
    feedback: str = "",
    candidate: str = "",
    canary_weight: float = 0.0,
    shadow_requests: int = 0,
    timeout_s: float = 900.0,
) -> None:
    """Serve the model or deployment at `uri` until Ctrl-C or SIGTERM; with `keys`, a file, to those who have one.

    `max_prompt_tokens` limits the prompts; 0 takes the deployment's limit, or without one the model's context, on a
    CPU at most CPU_PROMPT_TOKENS. `candidate` is another model, which answers `canary_weight` per cent of the users, or
    `shadow_requests` at once unseen. `telemetry` and `feedback` are those of TransformerConfig.

    Raises InputError when the model cannot be served, ServiceError when one of the two servers ends on its own.
    """
    if keys:
        key_file.load(Path(keys))  # what is wrong with it is said here, in one sentence
    with until_interrupted():
        budget = max_prompt_tokens or cpu_budget(uri)
        if budget != max_prompt_tokens:
            say(f"infill: a prompt has at most {budget:,} tokens on a CPU; --max-prompt-tokens changes that")
        named = (
            ("--cors_origins", cors_origins),
            ("--keys", keys),
            ("--telemetry", telemetry),
            ("--feedback", feedback),
            ("--canary_weight", f"{canary_weight:g}" if canary_weight else ""),
            ("--shadow_requests", str(shadow_requests) if shadow_requests else ""),
        )
        with servers(
            uri,
            host=host,
            port=port,
            timeout_s=timeout_s,
            predictor=("--engine", engine),
            transformer=[part for option, value in named if value for part in (option, value)],
            max_prompt_tokens=budget,
            candidate=candidate,
            echo=say,
        ) as children:
            url = children[1].url
            say(f"infill: ready at {url}/v1/completions; try it in a browser at {url}/ (Ctrl-C ends it)")
            while True:
                for child in children:
                    child.check()
                time.sleep(POLL_S)


def say(line: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def until_interrupted() -> Iterator[None]:
    """Run the block until SIGTERM or SIGINT, which a shell's background job would otherwise ignore."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except KeyboardInterrupt:
        say("infill: stopped")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
