"""Measure what typing costs and gets; the last line is one JSON object.

    python -m benchmarks.typing [--quick] [--repo DIR] [--users N] [--pause-s S] [--only PART]

The transformer runs with a workspace of the project, so that a request has only path, caret and one unsaved file; a stub
engine (`stub_engine`) with given delays takes the predictor's place. Sessions are those of `benchmarks.context.replay`,
with slips and corrections (`typed_sessions`).

`layer`: what the transformer adds to a call of the stub with the same prompt, its cache of completions off. `cache`: the
share of moments that the cache answers; the stub's suggestions are right for ten characters on average. `typists`: users
who ask once in `--pause-s` seconds on average. `beyond`: twice as many users as the transformer takes requests, without a
pause, at a slow stub. `abandoned`: time from a client that goes to the end of its request at the stub.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

import infill
from benchmarks.context import projects
from benchmarks.typing import layer, typists
from benchmarks.typing.layer import NAME
from benchmarks.typing.stub_engine import stub
from benchmarks.typing.typed_sessions import TypedSession, sessions
from infill import entry
from infill.cli_options import input_folder, integer
from infill.errors import InputError
from serving import local
from serving.transformer.service import build_packer
from serving.transformer.transformer_config import TransformerConfig, prepare
from tests.builders import tiny_model

CONTEXT_LENGTH: Final = 2_048
MAX_NEW: Final = 64
FIRST_MS, TOKEN_MS = 30.0, 3.0
SLOW_MS: Final = 500.0
SLOTS: Final = 32
PARTS: Final = ("layer", "cache", "typists", "beyond", "abandoned")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = entry.Parser(prog="python -m benchmarks.typing", description="The speed of typing.")
    parser.add_argument("--quick", action="store_true", help="fewer sessions and shorter runs")
    parser.add_argument(
        "--repo", type=input_folder, default=Path(infill.__file__).parent, metavar="DIR", help="the project"
    )
    users = integer("the number of users", 1)
    parser.add_argument("--users", type=users, default=200, metavar="N", help="users who type at once")
    parser.add_argument("--pause-s", type=float, default=1.0, metavar="S", help="seconds between a user's requests")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure only this part; may be repeated")
    options = parser.parse_args(arguments)
    project = dict(projects.files(options.repo))
    typed = sessions(project, 4 if options.quick else 20, options.repo.name)
    if len(typed) < 2:
        raise InputError(f"{options.repo} has no lines to hide that are long enough: give --repo another folder")
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model(Path(folder) / "model", context_length=CONTEXT_LENGTH)
        print(json.dumps(_measured(model, project, typed, options)))


def _measured(
    model: str, project: projects.Project, typed: Sequence[TypedSession], options: argparse.Namespace
) -> dict[str, Any]:
    parts = [*(options.only or PARTS)]
    config = TransformerConfig(model=model, max_new_tokens=MAX_NEW)
    packer = build_packer(config, prepare(config))
    seconds = 5.0 if options.quick else 30.0

    def in_parallel(front: local.Child, users: int, pause_s: float) -> Any:
        return typists.typing(front, typed, users, seconds, pause_s)

    measures: dict[str, tuple[float, list[str], Callable[[local.Child, local.Child], Any]]] = {
        "layer": (FIRST_MS, NO_CACHE, lambda engine, front: layer.overhead(engine, front, packer, typed)),
        "cache": (FIRST_MS, [], lambda engine, front: typists.hits(engine, front, typed)),
        "typists": (FIRST_MS, NO_CACHE, lambda _, front: in_parallel(front, options.users, options.pause_s)),
        "beyond": (SLOW_MS, [*NO_CACHE, *FEW], lambda _, front: in_parallel(front, 2 * SLOTS, 0)),
        "abandoned": (SLOW_MS, NO_CACHE, lambda engine, front: typists.abandoned(engine, front, typed[0], 20)),
    }
    figures: dict[str, Any] = {"files": len(project), "project_bytes": sum(map(len, project.values()))}
    for part in parts:
        first_ms, settings, measure = measures[part]
        with _servers(model, project, first_ms, settings) as both:
            figures[part] = measure(*both)
        _log(f"{part}: {json.dumps(figures[part])}")
    return figures


NO_CACHE: Final[list[str]] = []
FEW: Final = ["--max_requests", str(SLOTS)]


@contextmanager
def _servers(
    model: str, project: projects.Project, first_ms: float, settings: Sequence[str]
) -> Iterator[tuple[local.Child, local.Child]]:
    """Run a stub and a transformer that has the project; yield both."""
    port = local.free_port()
    url = f"http://127.0.0.1:{port}"
    with stub(first_ms, TOKEN_MS, _log) as engine:
        arguments = ["--model", model, "--predictor", engine.url, "--host", "127.0.0.1", "--http_port", str(port)]
        arguments += ["--max_new_tokens", str(MAX_NEW), *settings]
        front = local.start("transformer", "serving.transformer", url, arguments, _log)
        try:
            local.wait_ready([front], 120)
            _send(url, project)
            yield engine, front
        finally:
            local.stop([front])


def _send(url: str, project: projects.Project) -> None:
    """Open the workspace with all files."""
    listed = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in project.items()}
    with httpx.Client(timeout=300, trust_env=False) as client:
        body = {"files": listed, "texts": project}
        client.put(f"{url}/v1/workspaces/{NAME}", json=body).raise_for_status()


def _log(line: str) -> None:
    if "kserve" not in line and "uvicorn" not in line:
        print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.typing", main))
