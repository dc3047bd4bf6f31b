"""What a reviewer asks of a corpus: where a file came from, what changed, the page and the bill."""

import ast
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from infill import cli, storage
from infill.artifacts.corpus import BILL_FILE
from infill.config import CorpusConfig
from infill.corpus import bill, explain
from infill.corpus.reasons import MEANING
from infill.errors import InputError
from tests.builders import once, run_stage
from tests.unit.corpus.folders import MIT, write_files, write_repositories

ROOT = Path(__file__).parents[3]
MAIL = 'CONTACT = "ada.lovelace@gmail.com"\n'


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_repositories(tmp_path_factory.mktemp("the code"), 4)
    text = (folder / "repo_1/package/module_0.py").read_text()
    write_files(
        folder / "repo_0",
        {
            "x/y/a copy.py": text + "\n\n",
            "x/y/near.py": text.replace("size", "width", 1),
            "with mail.py": MAIL + "def add(left, right):\n    return left + right\n",
            "node_modules/x.js": "let x;\n",
            "é<b>.xyz": "?",
        },
    )
    return folder


@pytest.fixture(scope="module")
def corpus(source: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = str(tmp_path_factory.mktemp("out") / "first corpus")
    run_stage("corpus", CorpusConfig(sources=(f"dir:{source}",)), output)
    return output


@pytest.fixture(scope="module")
def changed(source: Path, corpus: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The corpus of the same sources after some changes."""
    new = tmp_path_factory.mktemp("new")
    code = write_repositories(new / "code", 4)
    (code / "repo_2/package/module_0.py").unlink()
    write_files(code / "repo_2", {"package/module_9.py": "def nine(value):\n    return value * 9\n"})
    write_files(
        code / "repo_3", {"LICENSE": MIT.replace("MIT License", "The MIT License (MIT)"), "big.py": "x" * 2_000}
    )
    with (code / "repo_3/package/module_1.py").open("a") as file:
        file.write("# SPDX-License-Identifier: Apache-2.0\n")
    output = str(new / "second")
    run_stage("corpus", CorpusConfig(sources=(f"dir:{code}",)), output)
    return output


@pytest.mark.parametrize(
    "wanted",
    ["repo_1/package/module_0.py", "/somewhere/else/repo_1/package/module_0.py", "./repo_1/package/module_0.py"],
)
def test_a_document_tells_where_it_came_from(corpus: str, source: Path, wanted: str) -> None:
    (entry,) = explain.explain(corpus, wanted)
    assert (entry["kept"], entry["repo"], entry["path"]) == (True, "repo_1", "package/module_0.py")
    assert (entry["source"], entry["licence"], entry["licence_evidence"]) == (f"dir:{source}", "MIT", "LICENSE")
    assert {each["name"]: each["reason"] for each in entry["copies"]} == {
        "repo_0/x/y/a copy.py": "duplicate",
        "repo_0/x/y/near.py": "near_duplicate",
    }


def test_a_copy_tells_what_it_is_a_copy_of(corpus: str) -> None:
    entries = [explain.explain(corpus, name)[0] for name in ("a copy.py", "near.py")]
    assert {entry["copy_of"] for entry in entries} == {"repo_1/package/module_0.py"}
    assert [entry["kept"] for entry in entries] == [False, False]


def test_a_document_is_found_by_its_hash_and_tells_what_was_replaced(corpus: str) -> None:
    (entry,) = explain.explain(corpus, "repo_0/with mail.py")
    assert [(place["kind"], place["line"]) for place in entry["redactions"]] == [("email", 1)]
    assert explain.explain(corpus, entry["sha256"]) == explain.explain(corpus, entry["sha256"][:9].upper()) == [entry]
    text = next(
        row["content"] for row in storage.read_table(f"{corpus}/documents").to_pylist() if row["path"] == "with mail.py"
    )
    assert hashlib.sha256(text.encode()).hexdigest() == entry["sha256"]
    assert "ada" not in text


def test_a_removed_folder_shows_the_files_in_it(corpus: str) -> None:
    (entry,) = explain.explain(corpus, "repo_0/node_modules/deep/x.js")
    assert (entry["kept"], entry["reason"], entry["path"]) == (False, "vendored", "node_modules/")


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ("repo_1/package/modul_0.py", "did you mean repo_./package/module_0.py"),
        ("repo_7/near.py", "did you mean repo_0/x/y/near.py"),
        ("0123456789abcdef", "no document .* has the SHA-256"),
        ("qqqqqqq", "check the path"),
    ],
)
def test_a_wrong_name_is_reported_with_the_nearest(corpus: str, wanted: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        explain.explain(corpus, wanted)


def test_a_name_of_many_files_must_be_more_exact(corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "MOST", 2)
    with pytest.raises(InputError, match=r"4 files are called module_2\.py: repo_0/package/module_2\.py, "):
        explain.explain(corpus, "module_2.py")


def test_what_is_not_a_corpus_is_refused(tmp_path: Path, corpus: str) -> None:
    once(stage="examples", output=str(tmp_path / "x"), body=dict)
    with pytest.raises(InputError, match="is not a corpus but the result of examples"):
        explain.compare(corpus, str(tmp_path / "x"))


# Two corpora


def test_what_changed_between_two_corpora_is_reported(
    corpus: str, changed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["corpus", "diff", corpus, changed, "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    names = {kind: {f"{row['repo']}/{row['path']}" for row in result[kind]} for kind in ("in", "out", "licence")}
    assert names["in"] == {"repo_2/package/module_9.py"}
    assert names["licence"] == {"repo_3/package/module_1.py"}
    (licence,) = result["licence"]
    assert licence["before"] == "MIT"
    assert "Apache-2.0" in licence["after"]
    reasons = {f"{row['repo']}/{row['path']}": row["reason"] for row in result["out"]}
    assert reasons["repo_2/package/module_0.py"] == reasons["repo_0/with mail.py"] == "not in the sources"
    assert result["counts"]["content"] == 1


def test_equal_corpora_differ_in_nothing(corpus: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["corpus", "diff", corpus, corpus]) == 0
    assert set(json.loads(capsys.readouterr().out)["counts"].values()) == {0}


def test_what_the_new_corpus_removed_has_its_reason(corpus: str, source: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.toml"
    listed.write_text('[[opt_out]]\nrepository = "repo_3"\n')
    config = CorpusConfig(sources=(f"dir:{source}",), opt_out=str(listed))
    run_stage("corpus", config, str(tmp_path / "strict"))
    result = explain.compare(corpus, str(tmp_path / "strict"))
    assert {row["reason"] for row in result["out"]} == {"opted_out"}
    assert {row["repo"] for row in result["out"]} == {"repo_3"}


# The page and the bill


class Page(HTMLParser):
    """Reads the page; collects what it would fetch, and its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [f"{tag} {name}" for name, value in attrs if name in ("src", "href") or "url(" in (value or "")]
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_needs_nothing_else_and_has_counts_examples_and_a_search_box(corpus: str) -> None:
    html = (Path(corpus) / "DATASHEET.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(html)
    assert (page.open, page.fetched) == ([], [])
    assert not re.search(r"https?://|@import|url\(", html)
    text = "|".join(part for part in page.text if part.strip())
    for part in ("|MIT|", "|python|", "|vendored|", "|node_modules/|", "|é<b>.xyz|", "|email|", "|repo_3|"):
        assert part in text, part
    assert '<input type="search"' in html


def test_the_bill_is_valid_and_names_each_repository(corpus: str) -> None:
    text = (Path(corpus) / BILL_FILE).read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    value = json.loads(text)
    assert [each["name"] for each in value["components"]] == [f"repo_{number}" for number in range(4)]
    assert {row["repository"]: row["licences"] for row in bill.repositories(value)} == {
        f"repo_{number}": ["MIT"] for number in range(4)
    }
    assert "/the code" not in text.replace("dir:the code", "")  # paths of this machine are private


@pytest.mark.parametrize(
    "licences", [["MIT", "Apache-2.0 OR MIT"], ["GPL-2.0-only WITH Classpath-exception-2.0"], ["LicenseRef-Acme"], []]
)
def test_a_bill_with_any_licences_and_names_is_valid_and_the_same_again(licences: list[str]) -> None:
    entry = {"documents": 1, "bytes": 2, "licences": licences, "splits": ["train"], "sources": ["git:/x@main"]}
    commits = [["a" * 40], ["a" * 40, "b" * 40], []]
    repositories = {f"größe/{number} <&>": {**entry, "commits": each} for number, each in enumerate(commits)}
    report = {
        "by_repository": repositories,
        "commits": {"größe/0 <&>": {"commit": "a" * 40, "date": "2024-02-29T12:00:00Z"}},
        **dict.fromkeys(("documents_kept", "documents_removed", "bytes_kept", "repositories"), 3),
    }
    text = bill.render(report)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert text == bill.render(report)
    assert json.loads(text)["metadata"]["timestamp"].startswith("2024-02-29T12:00:00")


def test_every_reason_has_a_meaning() -> None:
    reasons = set()
    for file in (ROOT / "infill/corpus").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Removal" and node.args:
                first = node.args[0]
                reasons |= {each.value for each in ast.walk(first) if isinstance(each, ast.Constant)}
            if isinstance(node, ast.keyword) and node.arg == "trouble" and isinstance(node.value, ast.Constant):
                reasons.add(node.value.value)
    assert {reason for reason in reasons if reason} <= set(MEANING)
