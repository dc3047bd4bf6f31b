"""The list of what its owners asked to be left out: which files it covers, and what a list that is wrong says."""

import json
from pathlib import Path

import pytest

from infill import storage
from infill.config import CorpusConfig
from infill.corpus import opt_out
from infill.errors import InputError
from tests.builders import run_stage
from tests.unit.corpus.folders import write_repositories


def listed(folder: Path, text: str | bytes) -> str:
    file = folder / "opt out.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(file)


@pytest.mark.parametrize(
    ("repository", "path", "covered"),
    [
        ("widgets", None, {"widgets/a.py", "widgets/src/b.py", "widgets~2/a.py", "host/acme/widgets/a.py"}),
        ("acme/widgets", None, {"host/acme/widgets/a.py"}),
        ("acme/*", None, {"host/acme/widgets/a.py"}),
        ("ACME", None, {"host/acme/widgets/a.py"}),
        ("widget", None, set()),
        ("widg?ts", "src/", {"widgets/src/b.py"}),
        ("widgets", "*.py", {"widgets/a.py", "widgets/src/b.py", "widgets~2/a.py", "host/acme/widgets/a.py"}),
        ("widgets", "/a.py", {"widgets/a.py", "widgets~2/a.py", "host/acme/widgets/a.py"}),
        ("*", "**/b.*", {"widgets/src/b.py", "other/b.py"}),
    ],
)
def test_what_an_entry_covers(tmp_path: Path, repository: str, path: str | None, covered: set[str]) -> None:
    files = [("widgets", "a.py"), ("widgets", "src/b.py"), ("widgets~2", "a.py"), ("host/acme/widgets", "a.py")]
    files.append(("other", "b.py"))
    entry = f"[[opt_out]]\nrepository = {json.dumps(repository)}\n" + (f"path = {json.dumps(path)}\n" if path else "")
    entries = opt_out.load(listed(tmp_path, entry))
    assert {f"{name}/{file}" for name, file in files if entries.of(name, file)} == covered


@pytest.mark.parametrize(
    "text",
    [
        "[[opt_out",
        b"\xff\xfe\xfa",
        "repository = 'x'",
        "opt_out = 'x'",
        "[[opt_out]]\npath = 'x'",
        "[[opt_out]]\nrepository = ''",
        "[[opt_out]]\nrepository = 7",
        "[[opt_out]]\nrepositry = 'x'",
    ],
)
def test_a_list_that_is_wrong_is_refused(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(InputError, match="opt"):
        opt_out.load(listed(tmp_path, text))


def test_a_missing_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml"):
        opt_out.load(str(tmp_path / "none.toml"))


def test_what_is_opted_out_is_in_the_report_with_its_reason(tmp_path: Path) -> None:
    source, output = write_repositories(tmp_path / "code", 4), tmp_path / "out"
    before = run_stage("corpus", CorpusConfig(sources=(f"dir:{source}",)), str(output))
    uri = listed(tmp_path, b"\xef\xbb\xbf[[opt_out]]\nrepository = 'repo_1'\nreason = 'asked by Ada'\n")
    output = tmp_path / "second"
    metrics = run_stage("corpus", CorpusConfig(sources=(f"dir:{source}",), opt_out=uri), str(output))
    removed = [row for row in storage.read_table(str(output / "removed")).to_pylist() if row["reason"] == "opted_out"]
    documents = storage.read_table(str(output / "documents"), ["repo"]).to_pylist()
    assert {row["repo"] for row in documents} == {"repo_0", "repo_2", "repo_3"}
    assert {row["detail"] for row in removed} == {"repo_1 (asked by Ada)"}
    assert metrics["removed_opted_out"] == len(removed) == len(list((source / "repo_1").rglob("*.*"))) + 1
    assert metrics["documents_kept"] < before["documents_kept"]
