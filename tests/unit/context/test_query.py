"""`infill context query` on a folder."""

import json
from pathlib import Path

import pytest

from infill.context.caret import read_source, split_at
from infill.context.query import query_repository
from infill.errors import InputError
from tests import golden
from tests.builders import tiny_repositories


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    for path, text in tiny_repositories(1)["repo_0"].items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "picture.png").write_bytes(b"\0")
    return tmp_path


def ask(repo: Path, path: str, line: int, column: int, *, as_json: bool = True, tokenizer: str | None = None) -> None:
    query_repository(
        str(repo), path, line, column, strategy="infill", budget=1_024, as_json=as_json, tokenizer=tokenizer
    )


@pytest.mark.parametrize("tokenizer", [None, str(golden.FOLDER)])
def test_one_json_object_with_times_and_provenance(
    repo: Path, capsys: pytest.CaptureFixture[str], tokenizer: str | None
) -> None:
    ask(repo, "package/module_0.py", 15, 9, tokenizer=tokenizer)
    summary = json.loads(capsys.readouterr().out)
    assert 0 < summary["tokens"]["prompt"] <= 1_024
    assert summary["tokens"]["estimated"] == (tokenizer is None)
    assert summary["index"] == {"files": 3, "blocks": summary["index"]["blocks"], "left_out": {"binary": 1}}
    assert set(summary["ms"]) == {"index", "rank", "pack"}
    for item in summary["items"]:
        lines = (repo / item["path"]).read_text().split("\n")[item["first_line"] - 1 : item["last_line"]]
        assert item["text"].removesuffix("\n") == "\n".join(lines)
        assert item["strategy"] == "infill"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_mark_is_not_a_column(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.py").write_bytes("alpha = beta\r\n".encode(encoding))
    assert split_at(read_source(tmp_path / "a.py"), 1, 6) == ("alpha", " = beta\r\n")


def test_a_table_for_people(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(repo, "package/module_0.py", 15, 9, as_json=False)
    out = capsys.readouterr().out
    assert "tokens" in out
    assert "picture.png" in out


def test_an_empty_context_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "only.py").write_text("alpha = 1\n")
    ask(tmp_path, "only.py", 1, 1, as_json=False)
    assert "no candidates" in capsys.readouterr().out


def test_a_missing_file_and_one_that_is_not_text_are_errors(repo: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        ask(repo, "none.py", 1, 1)
    (repo / "latin.py").write_bytes(b"\xff\n")
    with pytest.raises(InputError, match="not UTF-8"):
        ask(repo, "latin.py", 1, 1)
