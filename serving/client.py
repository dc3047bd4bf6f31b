"""Ask a transformer for completions: `infill complete` for one caret, `smoke` for a new deployment."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infill import proxies, storage
from infill.api_key import api_key, headers
from infill.artifacts.examples import split_file
from infill.context.caret import CHARACTERS, Unit, read_source, split_at
from infill.context.files import IndexLimits, LeftOut, read, sources
from infill.context.identity import Current, within
from infill.context.project_paths import ProjectPaths
from infill.errors import InputError
from infill.release.smoke import ask
from serving import local

MAX_CONTEXT_BYTES: Final = 8_000_000
"""Bytes of other files in one request: half of the transformer's limit, since JSON escapes line breaks and quotes."""
MAX_CURRENT_CHARS: Final = 1_000_000
"""Characters of the current file that are sent on each side of the caret; no prompt holds more."""
LIMITS: Final = IndexLimits(files=10_000, file_bytes=500_000)


def complete(
    url: str,
    repo: str,
    path: str,
    line: int,
    column: int,
    *,
    max_tokens: int = 64,
    temperature: float = 0.0,
    timeout_s: float = 120.0,
    unit: Unit = CHARACTERS,
) -> dict[str, Any]:
    """Return the completion at `line` and `column` (from 1, the column in `unit`) of the file `path` in `repo`.

    The result holds `text`, `latency_ms` (of the whole request), `prompt_tokens`, and `context`: the parts of the
    project in the prompt (`path`, `lines` as first and last, `score`, `strategy`). Raises InputError for a file or
    caret that does not exist, ServiceError when the server is unreachable, too slow or refuses the request.
    """
    root = Path(repo)
    text, path = read_source(root / path), within(root, path)
    prefix, suffix = split_at(text, line, column, unit)
    body = {
        "path": path,
        "prompt": prefix[-MAX_CURRENT_CHARS:],
        "suffix": suffix[:MAX_CURRENT_CHARS],
        "context": project_files(root, path, text),
        "max_tokens": max_tokens,
        "temperature": temperature,
        "session": str(root.resolve()),
    }
    with proxies.client(url, timeout=timeout_s, headers=headers(api_key())) as client:
        return ask(client, body)


def project_files(root: Path, path: str, text: str = "") -> list[dict[str, str]]:
    """Return the path and text of the project's other files, nearest first, as many as fit into a request.

    `path` is the current file, relative to `root`; `text` is its text.
    """
    current = Current(path, text)
    others = list(sources(root, LIMITS, LeftOut()))
    same = current.named_in(source.path for source in others)
    files: list[dict[str, str]] = []
    room = MAX_CONTEXT_BYTES
    hops = ProjectPaths([each.path for each in others]).distances(path).tolist()
    for _, source in sorted(zip(hops, others, strict=True)):
        if source.path in same or source.stamp.size > room or len(files) == LIMITS.files:
            continue
        content = read(root, source, LIMITS)
        if isinstance(content, str):  # a string says why the file is skipped
            continue
        if not current.has_text(content[0]):
            files.append({"path": source.path, "text": content[0].decode()})
            room -= len(content[0])
    return files


def smoke(deployment_uri: str, examples_uri: str, n: int = 3) -> dict[str, Any]:
    """Serve a deployment, complete at `n` carets in held-out files of different repositories, and print a table.

    The result holds `completions` (repo, path, text, expected, latency_ms, prompt_tokens, context) and `latency_ms`
    (the largest). Raises InputError when there is no held-out example, ServiceError when a completion fails.
    """
    rows = held_out(examples_uri, n)
    with local.running(deployment_uri) as url:
        return complete_rows(url, rows)


def complete_rows(url: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Complete the holes of examples with the transformer at `url` and print a table to stderr; return as `smoke`."""
    with proxies.client(url, timeout=120, headers=headers(api_key())) as client:
        answers = [ask(client, request_of(row)) for row in rows]
    completions = [
        {"repo": row["repo"], "path": row["path"], "expected": row["middle"], **answer}
        for row, answer in zip(rows, answers, strict=True)
    ]
    Console(stderr=True).print(table(completions))
    return {"completions": completions, "latency_ms": max(answer["latency_ms"] for answer in answers)}


def held_out(examples_uri: str, n: int) -> list[dict[str, Any]]:
    """Return `n` test examples: one of each repository before a second, those with context first, then by id.

    Raises InputError when there is none.
    """

    columns = ["id", "repo", "path", "prefix", "middle", "suffix", "context"]
    rows = storage.read_table(split_file(examples_uri, "test"), columns).to_pylist()
    if not rows:
        raise InputError(f"{examples_uri} has no test examples; add repositories to the corpus")
    rows.sort(key=lambda row: (not row["context"], row["id"]))
    seen: dict[str, int] = {}
    rounds = []
    for row in rows:
        seen[row["repo"]] = seen.get(row["repo"], 0) + 1
        rounds.append(seen[row["repo"]])
    order = sorted(range(len(rows)), key=lambda place: rounds[place])
    return [rows[place] for place in order[:n]]


def request_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request for an example: its caret, and as other files the parts that its context items hold."""
    files: dict[str, list[str]] = {}
    for item in row["context"] or ():
        files.setdefault(item["path"], []).append(item["text"])
    context = [{"path": path, "text": "\n".join(parts)} for path, parts in files.items()]
    return {"path": row["path"], "prompt": row["prefix"], "suffix": row["suffix"], "context": context}


def table(completions: Sequence[Mapping[str, Any]]) -> Table:
    """Return the completions as a table to print."""
    shown = Table(title="Completions in held-out files", show_lines=True, expand=True)
    for heading in ("caret", "completion", "expected"):
        shown.add_column(heading, overflow="fold", ratio=1)
    for each in completions:
        items = [f"{item['path']}:{item['lines'][0]}-{item['lines'][1]}" for item in each["context"]]
        figures = f"{each['prompt_tokens']} tokens, {each['latency_ms']:.0f} ms"
        caret = [f"{each['repo']}/{each['path']}", figures, *(["context:", *items] if items else ["no context"])]
        shown.add_row(*map(_plain, ("\n".join(caret), each["text"], each["expected"])))
    return shown


def _plain(text: str) -> Text:
    """Return `text` with U+FFFD for every character that a terminal might interpret."""
    return Text("".join(each if each.isprintable() or each == "\n" else "�" for each in text.expandtabs()))
