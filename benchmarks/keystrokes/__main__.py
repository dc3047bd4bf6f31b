"""Measure what typing costs and gets; the last line is one JSON object.

    python -m benchmarks.keystrokes [--quick] [--repo DIR] [--users N] [--pause-s N] [--model URI]

The transformer has the project as a workspace, so that a request has only path, caret and one unsaved file. A stub
engine (`stub_engine`) with given delays takes the predictor's place. Sessions are those of
`benchmarks.context.replay`, with slips and corrections (`infill.experiments.typed_sessions`).

Its parts, each of which `--only` measures alone:

- `layer`: what the transformer adds to a call of the stub with the same prompt, without its cache of completions.
- `cache`: the share of moments that the cache answers; the stub's suggestions are right for ten characters on average.
- `typists`: users who ask once in `--pause-s` seconds on average.
- `beyond`: twice as many users as the transformer takes requests, without a pause, at a slow stub.
- `abandoned`: the time from a client that goes to the end of its request at the stub.

With a real model on the CPU, and only where `--only` names them:

- `trigger`: what the rules of the language server spare and lose (`trigger_loss`).
- `drafts`: the tokens per second of llama.cpp, or `--engine transformers`, with drafts from the prompt and without
  (`draft_gain`).
- `warm`: the time to the first event after another file was saved, with the prompt computed in advance and without
  (`warm_gain`).
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import infill
from benchmarks.context import projects
from benchmarks.keystrokes import draft_gain, layer, trigger_loss, typists, warm_gain
from benchmarks.keystrokes.layer import open_workspace
from benchmarks.keystrokes.stub_engine import stub
from infill import entry, storage
from infill.cli_options import absolute_uri, input_folder, integer
from infill.errors import InputError
from infill.experiments.typed_sessions import TypedSession, sessions
from serving import local
from serving.transformer.service import build_packer
from serving.transformer.transformer_config import TransformerConfig, prepare
from tests.builders import tiny_model

CONTEXT_LENGTH: Final = 2_048
MAX_NEW: Final = 64
SLOTS: Final = 32
REAL_TOKENS: Final = 384
"""Budget of the prompts of a real model."""
THINKING_S: Final = 6.0
"""Seconds from a saved file to the next request."""
WARMED: Final = 10
"""Sessions whose prompts are warmed, and to whose prompts drafts are made."""
DRAFTS: Final = (4, 6, 8)
"""Tokens of a draft; llama.cpp makes none of fewer than three."""
PARTS: Final = ("layer", "cache", "typists", "beyond", "abandoned")
REAL_PARTS: Final = ("trigger", "drafts", "warm")
NO_CACHE: Final = ("--completion_cache_bytes", "0")
FEW: Final = ("--max_requests", str(SLOTS))


class Delays(NamedTuple):
    """The delays of the stub, in milliseconds."""

    first_ms: float
    token_ms: float


USUAL, SLOW = Delays(30, 3), Delays(500, 100)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = entry.Parser(prog="python -m benchmarks.keystrokes", description="The speed of typing.")
    parser.add_argument("--quick", action="store_true", help="fewer sessions and shorter runs")
    parser.add_argument(
        "--repo", type=input_folder, default=Path(infill.__file__).parent, metavar="DIR", help="the project"
    )
    users = integer("the number of users", 1)
    parser.add_argument("--users", type=users, default=200, metavar="N", help="users who type at once")
    parser.add_argument("--pause-s", type=float, default=1.0, metavar="N", help="seconds between a user's requests")
    parser.add_argument("--only", action="append", choices=PARTS + REAL_PARTS, help="only this part; may be repeated")
    parser.add_argument("--model", type=absolute_uri, metavar="URI", help="a real model for the parts that need one")
    parser.add_argument("--engine", default="auto", help="engine of the real model (default: %(default)s)")
    options = parser.parse_args(arguments)
    parts = options.only or PARTS
    if not options.model and set(parts) & set(REAL_PARTS):
        parser.error(f"{', '.join(REAL_PARTS)} need --model URI")
    project = dict(projects.files(options.repo))
    typed = sessions(project, 4 if options.quick else 20, options.repo.name)
    if len(typed) < 2:
        raise InputError(f"{options.repo} has no lines to hide that are long enough: give --repo another folder")
    figures = {"files": len(project), "project_bytes": sum(map(len, project.values()))}
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model(Path(folder) / "model", context_length=CONTEXT_LENGTH)
        for part, measure in _measures(model, project, typed, options).items():
            if part in parts:
                figures[part] = measure()
                _log(f"{part}: {json.dumps(figures[part])}")
    print(json.dumps(figures))


def _measures(
    model: str, project: projects.Project, typed: Sequence[TypedSession], options: argparse.Namespace
) -> dict[str, Callable[[], Any]]:
    """Return for each part what measures it."""
    config = TransformerConfig(model=model, max_new_tokens=MAX_NEW)
    seconds = 5.0 if options.quick else 30.0

    def at_stub(delays: Delays, measure: Callable[[local.Child, local.Child], Any], *settings: str) -> Any:
        with _servers(model, project, delays, settings) as both:
            return measure(*both)

    def in_parallel(users: int, pause_s: float) -> Callable[[local.Child, local.Child], Any]:
        return lambda _, front: typists.typing(front, typed, users, seconds, pause_s)

    def cost(engine: local.Child, front: local.Child) -> Any:
        return layer.overhead(engine, front, build_packer(config, prepare(config)), typed)

    def abandoned(engine: local.Child, front: local.Child) -> Any:
        return typists.abandoned(engine, front, typed[0], 20)

    return {
        "layer": lambda: at_stub(USUAL, cost, *NO_CACHE),
        "cache": lambda: at_stub(USUAL, lambda engine, front: typists.hits(engine, front, typed)),
        "typists": lambda: at_stub(USUAL, in_parallel(options.users, options.pause_s)),
        "beyond": lambda: at_stub(SLOW, in_parallel(2 * SLOTS, 0), *NO_CACHE, *FEW),
        "abandoned": lambda: at_stub(SLOW, abandoned, *NO_CACHE),
        "trigger": lambda: _trigger(options, typed),
        "drafts": lambda: _drafts(options, project, typed),
        "warm": lambda: _warm(options, project, typed),
    }


def _trigger(options: argparse.Namespace, typed: Sequence[TypedSession]) -> Any:
    with _real(options) as front:
        return trigger_loss.measured(front.url, typed)


def _drafts(options: argparse.Namespace, project: projects.Project, typed: Sequence[TypedSession]) -> dict[str, Any]:
    folder = storage.fetch(options.model)
    config = TransformerConfig(model=str(folder), max_prompt_tokens=REAL_TOKENS, max_new_tokens=MAX_NEW)
    packer = build_packer(config, prepare(config))
    return draft_gain.measured(folder, packer, project, typed[:WARMED], DRAFTS, options.engine)


def _warm(options: argparse.Namespace, project: projects.Project, typed: Sequence[TypedSession]) -> dict[str, Any]:
    figures: dict[str, Any] = {"engine": options.engine, "thinking_s": THINKING_S}
    for name, warm_s in (("without", 0.0), ("with", 0.05)):
        with _real(options, *NO_CACHE, "--warm_s", str(warm_s)) as front:
            open_workspace(front.url, project)
            figures[name] = warm_gain.figures(warm_gain.first_events(front.url, project, typed[:WARMED], THINKING_S))
    return figures


@contextmanager
def _real(options: argparse.Namespace, *settings: str) -> Iterator[local.Child]:
    """Serve the real model."""
    predictor = ["--engine", options.engine]
    with local.servers(
        options.model, transformer=settings, predictor=predictor, max_prompt_tokens=REAL_TOKENS, echo=_log
    ) as (_, front):
        yield front


@contextmanager
def _servers(
    model: str, project: projects.Project, delays: Delays, settings: Sequence[str]
) -> Iterator[tuple[local.Child, local.Child]]:
    """Run a stub and a transformer that has the project; yield both."""
    settings = ("--max_new_tokens", str(MAX_NEW), *settings)
    with stub(*delays, _log) as engine, layer.transformer(model, engine.url, project, settings, _log) as front:
        yield engine, front


def _log(line: str) -> None:
    if "kserve" not in line and "uvicorn" not in line:
        print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.keystrokes", main))
