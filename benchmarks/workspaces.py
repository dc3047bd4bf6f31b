"""Measure the synchronisation of a large workspace with the transformer, and completions meanwhile.

    python -m benchmarks.workspaces [--quick] [--files N]

Both servers run on this machine with a tiny model. A project of generated files, the same in each run, is listed and
sent in batches while another client asks for completions in it. Then single files are saved. `sync_s` is the time from
the list to the last text, `saved_ms` the time of a delta with its text, `during_ms` and `after_ms` that of a completion
while the project is sent and afterwards. `counted_bytes` is what the server counts against its cap, `resident_bytes` by
how much its memory has grown.

Then the language server's own client (`infill.editor.mirror`) does the same from a folder with these files, with no
completions meanwhile: `client_sync_s` is the time until the server has all of it, of which `client_scan_s` is spent on
reading and hashing the files, `client_again_s` the time of the next start, when the server has everything,
`client_saved_ms` the time from a file on disk to its acknowledgement, `client_bytes` the memory that it takes. Figures
in `processor_s` are processor time of the server or the client, on which other processes have less influence.
"""

import hashlib
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from infill import entry
from infill.cli_options import integer
from infill.editor.local_files import LocalFiles
from infill.editor.mirror import Mirror
from infill.editor.workspace_client import WorkspaceTarget
from infill.text import read_text, split_lines
from serving import local
from tests.builders import tiny_model

FILES: Final = 100_000
QUICK: Final = 3_000
LINES: Final = 40
WORDS: Final = 60_000
BATCH_BYTES: Final = 1_000_000
SAVES: Final = 50
CAP: Final = 4_000_000_000
NAME: Final = "benchmark"
PATH: Final = f"/v1/workspaces/{NAME}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = entry.Parser(prog="python -m benchmarks.workspaces", description="Synchronisation of workspaces.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK:,} files")
    count = integer("the number of files", 1)
    parser.add_argument("--files", type=count, default=FILES, metavar="N", help="files of the project")
    options = parser.parse_args(arguments)
    files = dict(generated(QUICK if options.quick else options.files))
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model(Path(folder) / "model", context_length=2_048)
        cap = ["--max_new_tokens", "8", "--workspace_bytes", str(CAP), "--completion_cache_bytes", "0"]
        with local.servers(model, transformer=cap, echo=_log) as (_, front):
            figures = measured(front, files)
            _log(json.dumps(figures))
            project = Path(folder) / "project"
            write(project, files)
            figures |= measured_client(front, project, min(files))
    print(json.dumps(figures))


def generated(count: int) -> Iterator[tuple[str, str]]:
    """Yield path and text of `count` source files of about 1.5 KB, the same ones each time."""
    chance = random.Random(0)
    words = [f"{chance.choice('abcdefghijklm')}{number:x}_{chance.choice('nopqrstuvwxyz')}" for number in range(WORDS)]
    for number in range(count):
        names = [words[int(chance.paretovariate(0.3)) % WORDS] for _ in range(3 * LINES)]
        lines = [f"    {a} = self.{b}({c}, {number})\n" for a, b, c in zip(*[iter(names)] * 3, strict=True)]
        yield f"package{number % 997}/module{number}.py", f"def run_{number}(self, value):\n{''.join(lines)}"


def measured(front: local.Child, files: Mapping[str, str]) -> dict[str, Any]:
    """Return all figures for one project."""
    during: list[float] = []
    over = threading.Event()
    asking = threading.Thread(target=_ask_until, args=(front.url, over, during))
    with httpx.Client(base_url=front.url, timeout=120, trust_env=False) as client:
        resident, processor = _resident(front.process.pid), _processor_s(front)
        client.put(PATH, json={"files": {}}).raise_for_status()
        _complete(client)  # the first one compiles
        asking.start()
        started = time.perf_counter()
        report = _sent(client, "PUT", {"files": {path: _digest(text) for path, text in files.items()}})
        listed = time.perf_counter()
        for texts in batches((path, files[path]) for path in report["missing"]):
            _sent(client, "PATCH", {"texts": texts})
        sync = time.perf_counter() - started
        processor = _processor_s(front) - processor
        over.set()
        asking.join()
        editor = Editor(client, *next(iter(files.items())))
        saved = [_timed(editor.save) for _ in range(SAVES)]
        after = [_timed(_complete, client) for _ in range(SAVES)]
        state = client.get(PATH).raise_for_status().json()
    return {
        "files": len(files),
        "text_bytes": sum(map(len, files.values())),
        "sync_s": round(sync, 2),
        "list_s": round(listed - started, 2),
        "server_processor_s": round(processor, 2),
        "saved_ms_p50": _percentile(saved, 50),
        "saved_ms_p95": _percentile(saved, 95),
        "during_ms_p50": _percentile(during, 50),
        "during_ms_p95": _percentile(during, 95),
        "during_ms_most": round(max(during), 2),
        "after_ms_p50": _percentile(after, 50),
        "indexed": state["indexed"],
        "counted_bytes": state["bytes"],
        "resident_bytes": _resident(front.process.pid) - resident,
    }


def write(root: Path, files: Mapping[str, str]) -> None:
    """Write the project to a folder."""
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())


def measured_client(front: local.Child, root: Path, path: str) -> dict[str, Any]:
    """Return the figures of the language server's client."""
    resident, client, server = _resident(os.getpid()), time.process_time(), _processor_s(front)
    with mirroring(front.url, root) as (mirror, sync):
        client, server = time.process_time() - client, _processor_s(front) - server
        taken = _resident(os.getpid()) - resident
        saved = [_timed(_save, mirror, root, path) for _ in range(SAVES)]
    with mirroring(front.url, root) as (_, again):
        pass
    scan = _timed(lambda: [*LocalFiles(root).scan()])
    return {
        "client_sync_s": round(sync, 2),
        "client_processor_s": round(client, 2),
        "client_server_processor_s": round(server, 2),
        "client_scan_s": round(scan / 1_000, 2),
        "client_again_s": round(again, 2),
        "client_saved_ms_p50": _percentile(saved, 50),
        "client_saved_ms_p95": _percentile(saved, 95),
        "client_bytes": taken,
    }


class Watched(Mirror):
    """A mirror whose completed work can be waited for."""

    def __init__(self, url: str, root: Path) -> None:
        self.complete = threading.Event()
        super().__init__(root, WorkspaceTarget(url=url), progress=self._note)

    def _note(self, count: int | None) -> None:
        if count is None:
            self.complete.set()

    def wait(self) -> None:
        """Wait until the server has everything. Raises ValueError if it has not."""
        self.complete.wait()
        self.complete.clear()
        if self.problem or self.waiting or self.left_out:
            raise ValueError(self.state())


@contextmanager
def mirroring(url: str, root: Path) -> Iterator[tuple[Watched, float]]:
    """Yield a mirror whose first synchronisation is complete, and its seconds."""
    mirror = Watched(url, root)
    started = time.perf_counter()
    mirror.start()
    mirror.wait()
    yield mirror, time.perf_counter() - started
    mirror.close()


def _save(mirror: Watched, root: Path, path: str) -> None:
    """Change a file, and wait until the server has it."""
    with (root / path).open("a") as file:
        file.write("    saved = 1\n")
    mirror.look([path])
    mirror.wait()


def batches(texts: Iterator[tuple[str, str]]) -> Iterator[dict[str, str]]:
    """Yield the texts in batches of about BATCH_BYTES."""
    batch: dict[str, str] = {}
    size = 0
    for path, text in texts:
        batch[path] = text
        size += len(text)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = {}, 0
    if batch:
        yield batch


def _sent(client: httpx.Client, method: str, body: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = client.request(method, PATH, json=body).raise_for_status().json()
    if answer["refused"] or answer["left_out"]:
        raise ValueError(f"the server did not take {[*answer['refused'], *answer['left_out']][:3]}")
    return answer


class Editor:
    """An editor that saves one file again and again."""

    def __init__(self, client: httpx.Client, path: str, text: str) -> None:
        self._client, self._path, self._text = client, path, text
        self._revision = client.get(PATH).raise_for_status().json()["revision"]

    def save(self) -> None:
        """Send the new hash of the file and its text in one request."""
        self._text += "    saved = 1\n"
        files = {self._path: _digest(self._text)}
        body = {"revision": self._revision, "files": files, "texts": {self._path: self._text}}
        self._revision = _sent(self._client, "PATCH", body)["revision"]


def _complete(client: httpx.Client) -> None:
    body = {"prompt": "def run(self):\n    b1_n = self.", "path": "main.py", "max_tokens": 1, "workspace": NAME}
    client.post("/v1/completions", json=body).raise_for_status()


def _ask_until(url: str, over: threading.Event, times: list[float]) -> None:
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        while not over.wait(0.02):
            times.append(_timed(_complete, client))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _timed(call: Any, *arguments: Any) -> float:
    """Return the milliseconds that a call takes."""
    started = time.perf_counter()
    call(*arguments)
    return (time.perf_counter() - started) * 1_000


def _percentile(values: Sequence[float], percent: int) -> float:
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 2)


def _resident(process: int) -> int:
    """Return the bytes of memory that a process has."""
    lines = split_lines(read_text(f"/proc/{process}/status"))
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


def _processor_s(child: local.Child) -> float:
    """Return the seconds that a server's process has run."""
    fields = read_text(f"/proc/{child.process.pid}/stat").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _log(line: str) -> None:
    if "kserve" not in line and "uvicorn" not in line:
        print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.workspaces", main))
