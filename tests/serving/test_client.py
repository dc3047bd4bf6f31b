"""`infill complete` and the smoke run: carets, the project's files, and every way a server can disappoint."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from infill import storage
from infill.errors import InputError, ServiceError
from infill.release.smoke import ask
from serving.client import complete, complete_rows, held_out, project_files
from serving.local import free_port
from serving.predictor.transformers_engine import TransformersEngine
from tests.serving.conftest import predicting, say, strange_predictor, transforming


def test_the_projects_files_are_sent_the_nearest_first(tmp_path: Path) -> None:
    files = ["src/a.py", "src/b.py", "lib/deep/c.py", "lib/d.go", ".git/e.py", "photo.png", "out/f.py", "src/data.py"]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0" if "data" in name else b"x = 1\n")
    (tmp_path / ".gitignore").write_text("out/\n")
    (tmp_path / "src/link.py").symlink_to(tmp_path / "src/b.py")
    (tmp_path / "src/huge.py").write_text("x = 1\n" * 100_000)
    entries = [file["path"] for file in project_files(tmp_path, "src/a.py")]
    assert entries[0] == "src/b.py"
    assert sorted(entries) == [".gitignore", "lib/d.go", "lib/deep/c.py", "src/b.py"]


def test_files_that_cannot_be_completed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        complete("http://127.0.0.1:1", str(tmp_path), "none.py", 1, 1)
    (tmp_path / "a.py").write_text("abc\n")
    with pytest.raises(InputError, match="no line 3"):
        complete("http://127.0.0.1:1", str(tmp_path), "a.py", 3, 1)
    (tmp_path / "a.py").write_bytes(b"\xff")
    with pytest.raises(InputError, match="UTF-8"):
        complete("http://127.0.0.1:1", str(tmp_path), "a.py", 1, 1)


def _sleep(connection: socket.socket) -> None:
    time.sleep(2)


DISAPPOINTING: dict[str, tuple[Any, str]] = {
    "slow": (_sleep, "did not answer within 0.3 s"),
    "closing": (lambda _: None, "no server answers"),
    "an error": (say("503 Service Unavailable", '{"error": {"message": "gone fishing"}}'), "503: gone fishing"),
    "a page": (say("200 OK", "<html>", "text/html"), "not like an Infill transformer"),
    "another server": (say("200 OK", json.dumps({"choices": [{"text": "a"}]})), "not like an Infill transformer"),
    "an odd error": (say("404 Not Found", '{"detail": "Not Found"}'), "answered 404, but not like"),
}


@pytest.mark.parametrize("case", DISAPPOINTING)
def test_a_server_that_disappoints_gives_a_clear_error(case: str) -> None:
    behaviour, message = DISAPPOINTING[case]
    with strange_predictor(behaviour) as (url, _):
        client = httpx.Client(base_url=url, timeout=0.3)
        with client, pytest.raises(ServiceError, match=message):
            ask(client, {"prompt": "a"})


def test_a_server_that_is_not_there_gives_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a")
    with pytest.raises(ServiceError, match="infill serve"):
        complete(f"http://127.0.0.1:{free_port()}", str(tmp_path), "a.py", 1, 1)
    with pytest.raises(ServiceError, match="infill serve"):
        complete("localhost:8080", str(tmp_path), "a.py", 1, 1)


def example(number: int, repo: str, context: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"{number:03}",
        "repo": repo,
        "path": "a.py",
        "prefix": "def f(x):\n    return ",
        "middle": "[bold]x\t\x1b",
        "suffix": "\n",
        "context": context,
    }


ITEM = {"path": "b.py", "text": "def helper(x):\n    return x\n"}


@pytest.fixture
def examples(tmp_path: Path) -> str:
    """An examples stage folder with the test split only."""
    repos = ["one", "one", "two", "one", "two", "three"]
    rows = [example(number, repo, [] if number == 0 else [ITEM]) for number, repo in enumerate(repos)]
    storage.write_table(str(tmp_path / "examples" / "test.parquet"), pa.Table.from_pylist(rows))
    return str(tmp_path)


def test_held_out_examples_come_from_different_repositories(examples: str) -> None:
    assert [row["id"] for row in held_out(examples, 3)] == ["001", "002", "005"]
    assert [row["id"] for row in held_out(examples, 9)] == ["001", "002", "005", "003", "004", "000"]


def test_examples_without_a_test_split_are_refused(tmp_path: Path) -> None:
    rows = [example(0, "one", [ITEM])]
    storage.write_table(str(tmp_path / "examples" / "test.parquet"), pa.Table.from_pylist(rows).slice(0, 0))
    with pytest.raises(InputError, match="no test example"):
        held_out(str(tmp_path), 3)


def test_the_smoke_run_completes_and_shows(
    model: Path, engine: TransformersEngine, examples: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"max_prompt_tokens": 256, "max_new_tokens": 16}
    with predicting(model, engine) as predictor, transforming(model, predictor, **settings) as (url, _):
        figures = complete_rows(url, held_out(examples, 3))
    assert [each["repo"] for each in figures["completions"]] == ["one", "two", "three"]
    assert figures["latency_ms"] == max(each["latency_ms"] for each in figures["completions"])
    assert figures["completions"][0]["context"][0]["path"] == "b.py"
    shown = capsys.readouterr().err
    assert "[bold]x" in shown  # no markup
    assert "\x1b" not in shown
