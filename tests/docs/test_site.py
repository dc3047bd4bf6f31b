"""The documentation: generated pages equal the code, the site builds without a dead link, the examples run."""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infill import cli
from tests import builders
from tests.e2e.test_run import MIT
from tests.unit.edits import histories
from tools import architecture, docs

EXAMPLES = docs.ROOT / "examples"
GENERATED = docs.pages()


@pytest.mark.parametrize("page", list(GENERATED), ids=lambda page: page.name)
def test_generated_pages_are_those_of_the_code(page: Path) -> None:
    assert GENERATED[page] == page.read_text(encoding="utf-8"), "run: python -m tools.docs"


def test_the_picture_is_that_of_its_source() -> None:
    assert architecture.draw() == architecture.FILE.read_text(encoding="utf-8"), "run: python -m tools.architecture"


def test_each_setting_is_documented() -> None:
    undocumented = [row for row in docs.all_settings().splitlines() if row.startswith("| `") and row.endswith("|  |")]
    assert not undocumented, "\n".join(undocumented)


def test_the_site_builds_without_a_dead_link(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    with caplog.at_level(logging.WARNING, "mkdocs"):
        build(load_config(str(docs.ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=False))
    assert not [record.getMessage() for record in caplog.records if record.name.startswith("mkdocs")]
    assert (tmp_path / "site" / "reference" / "settings.html").is_file()


def example(name: str, *arguments: object) -> str:
    """Return what an example prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(docs.ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_context_engine_is_asked_from_python() -> None:
    printed = example("query_context.py", "--repo", docs.ROOT / "infill", "--path", "prompt.py", "--line", 120)
    assert printed.count("--- ") >= 1
    assert "--- prompt.py" not in printed


@pytest.mark.long
@pytest.mark.timeout(1_200)
def test_a_folder_is_trained_on_and_served(tmp_path: Path) -> None:
    code, out = tmp_path / "my code", tmp_path / "out"
    for repo, files in builders.tiny_repositories(count=7, files=4, unlike=True).items():
        for path, text in {"LICENSE": MIT, **files}.items():
            (code / repo / path).parent.mkdir(parents=True, exist_ok=True)
            (code / repo / path).write_text(text if path == "LICENSE" else f"# {repo}\n{text}", encoding="utf-8")
    assert "the winner is" in example("train_on_a_folder.py", code, out)
    assert "tokens in the prompt" in example("serve_and_complete.py", out)


def test_the_page_on_measuring_gives_a_table_of_ones_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INFILL_BENCH_DIR", raising=False)
    histories.build(tmp_path / "widgets")
    builders.tiny_model(tmp_path / "model")
    page = (docs.DOCS / "how-to" / "measure.md").read_text(encoding="utf-8")
    commands = re.findall(r"^infill (?!.*--train)(.*)$", page, re.MULTILINE)  # the history begins with the benchmark's
    assert [words.split()[0] for words in commands] == ["benchmark", "evaluate", "benchmark"]
    small = {"evaluate": ["--set", "evaluate.max_new_tokens=4", "--set", "evaluate.max_prompt_tokens=128"]}
    for words in commands:
        monkeypatch.setattr("infill.edits.benchmark_command.as_json", lambda _: False)
        assert cli.main([*words.split(), *small.get(words.split()[0], [])]) == 0
    printed = capsys.readouterr().out
    assert "| language: go |" in printed
    assert "| unit: function |" in printed


def test_make_targets_that_are_written_down_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (docs.ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = [docs.ROOT / "README.md", docs.ROOT / "CONTRIBUTING.md", *docs.DOCS.rglob("*.md")]
    named = {name for page in pages for name in re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8"))}
    assert named
    assert named <= targets
