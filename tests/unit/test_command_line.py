"""Every command and option with values that a user may give by mistake: one sentence each, and no traceback."""

import argparse
import importlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from infill import cli, entry

NUMBERS = ("-1", "nan", "inf", "1e400", "x", "", "1.5.2")
"""No option that is a number takes one of these. (0 is right for some.)"""
PATHS = (
    "",
    "missing/deeper",
    "file/inside",
    "link",
    "notes",
    "broken.json",
    "array.json",
    "dir.json",
    "a" * 300,
    "x\0y",
)
"""Below the test's folder, see `places`. No option that reads an artifact takes one of these."""
LEFT_OUT = {
    *(("keys add", "--file", path) for path in ("missing/deeper", "link")),  # is written
    ("context query", "--path", "array.json"),  # any text is a current file
    *(("context query", "--recent", path) for path in PATHS),  # what is not in the index is not recent
    *(("corpus build", "--base-model", path) for path in PATHS),  # concerns other stages
    *(("pipeline compile", "--values", path) for path in PATHS),  # read once a process
    *(("pipeline submit", "--values", path) for path in PATHS),
    *(("pipeline schedule set", "--values", path) for path in PATHS),
    *((f"pipeline {name}", "", path) for name in ("status", "logs", "cancel") for path in PATHS[1:]),  # a run's id
}
REQUIRED = {
    "run": "--out out",
    "loop": "--out out",
    "corpus build": "--output out",
    "corpus explain": "x.py --corpus a",
    "corpus diff": "a a",
    "corpus remove": "--repository x --opt-out new.toml --corpus a",
    "model explain": "a",
    "tokenizer train": "--corpus a --output out",
    "examples build": "--corpus a --tokenizer a --output out",
    "train pretrain": "--corpus a --tokenizer a --output out",
    "train sft": "--examples a --model a --output out",
    "train dpo": "--preferences a --model a --output out",
    "train status": "a",
    "preferences build": "--examples a --model a --output out",
    "evaluate": "--examples a --model a --output out",
    "register": "--examples a --model-base a --model-sft a --model-dpo a --evaluation-base a --evaluation-sft a "
    "--evaluation-dpo a --output out",
    "deploy": "--decision a --output out",
    "report": "--corpus a --tokenizer a --base a --examples a --sft a --preferences a --dpo a --evaluation-base a "
    "--evaluation-sft a --evaluation-dpo a --decision a --output out",
    "benchmark build": "--source git:a --after 2025-01-01 --output out",
    "benchmark show": "a",
    "experiment context-budget": "--examples a --model a --output out",
    "experiment embeddings": "--repo . --model a --output out",
    "experiment monorepo": "--repo . --model a --output out",
    "experiment typists": "--repo . --model a --output out",
    "experiment fim-split": "--run . --output out",
    "experiment dpo-objectives": "--run . --output out",
    "experiment dpo-languages": "--run . --language go --output out",
    "experiment preference-sources": "--run . --output out",
    "rate build": "--preferences a --output out",
    "rate serve": "a --rater ada",
    "rate show": "a",
    "fim split": "code.py",
    "context query": "--repo . --path code.py --line 1 --column 1",
    "export gguf": "a --to out.gguf",
    "export adapter": "a --to out",
    "keys add": "--file keys.json --tenant a",
    "keys list": "--file code.py",
    "keys revoke": "id --file code.py",
    "canary show": "",
    "canary decide": "--url http://127.0.0.1:9",
    "gate explain": "a",
    "gate sign": "a --key code.py",
    "export base": "a --to out",
    "lsp": "",
    "serve": "--model a",
    "complete": "--url http://127.0.0.1:9 --repo . --path code.py --line 1 --column 1",
    "smoke": "--out a",
    "rollback": "--out a",
    "pipeline compile": "--to out.yaml",
    "pipeline submit": "--host http://127.0.0.1:9 --store s3://bucket/x",
    "pipeline schedule set": "--every 12h --host http://127.0.0.1:9 --store s3://bucket/x",
    "pipeline schedule list": "--host http://127.0.0.1:9",
    "pipeline schedule disable": "nightly --host http://127.0.0.1:9",
    "pipeline schedule enable": "nightly --host http://127.0.0.1:9",
    "pipeline schedule delete": "nightly --host http://127.0.0.1:9",
    "pipeline status": "run --host http://127.0.0.1:9",
    "pipeline logs": "run corpus --host http://127.0.0.1:9",
    "pipeline cancel": "run --host http://127.0.0.1:9",
}
"""Command -> arguments with which it can be parsed."""


def leaves(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command with its parser."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield " ".join(words), parser
    for name, inner in itertools.chain.from_iterable(group.choices.items() for group in groups):
        yield from leaves(inner, (*words, name))


PARSER = cli._parser()
PARSERS = dict(leaves(PARSER))


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what PATHS names and an empty folder `a`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_parser", lambda: PARSER)  # made once: a thousand times it takes longer than all commands
    for name in ("MLFLOW_TRACKING_URI", "KFP_HOST", entry.DEBUG):
        monkeypatch.delenv(name, raising=False)
    for name in ("INFILL_IMAGES", "INFILL_VALUES"):  # which commands set
        monkeypatch.setenv(name, "")
    for name in ("a", "dir.json", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "notes" / "manifest.json").write_text("{")
    (tmp_path / "broken.json").write_bytes(b"\xff\xfe{")
    (tmp_path / "array.json").write_text("[1]")
    (tmp_path / "code.py").write_text("def f():\n    return 1\n")
    return tmp_path


def assert_one_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = cli.main(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else -1
    captured = capsys.readouterr()
    assert code == 2, (arguments, code, captured)
    assert captured.err.startswith("infill"), (arguments, captured)
    assert captured.err.count("\n") == 1, (arguments, captured)


def test_all_commands_are_in_the_table() -> None:
    assert set(PARSERS) == set(REQUIRED)


def options(command: str) -> Iterator[tuple[str, argparse.Action]]:
    for action in PARSERS[command]._actions:
        if action.nargs is None and not action.choices:
            yield (action.option_strings or [""])[-1], action


def is_number(action: argparse.Action) -> bool:
    return getattr(action.type, "__name__", "") == "read"


def with_value(command: str, flag: str, value: str) -> list[str]:
    """The command with `value` for the option `flag`, or for its first positional argument where that is empty."""
    words = REQUIRED[command].split()
    if not flag:
        return [*command.split(), value, *words[1:]]
    if flag in words:
        words[words.index(flag) + 1] = value
        return [*command.split(), *words]
    return [*command.split(), *words, f"{flag}={value}"]


@pytest.mark.parametrize("command", REQUIRED)
def test_a_number_that_is_wrong_is_one_sentence(command: str, places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flag, action in options(command):
        for value in NUMBERS if is_number(action) else ():
            assert_one_sentence([*command.split(), *REQUIRED[command].split(), f"{flag}={value}"], capsys)


NAMES = {
    "--rater",
    "--pattern",
    "--repository",
    "--reason",
    "--tenant",
    "--expires",
    "--note",
    "--store",
    "--output",
    "--set",
    "--name",
    "--release",
    "--namespace",
    "--service-account",
    "--strategy",
    "--type",
    "--languages",
}
WRITTEN = {"--out", "--to", "--output"}


@pytest.mark.parametrize("command", [name for name in REQUIRED if name not in ("run", "loop")])
def test_a_path_that_cannot_be_read_is_one_sentence(
    command: str, places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag, action in options(command):
        for value in () if is_number(action) or flag in NAMES | WRITTEN else PATHS:
            if (command, flag, value) not in LEFT_OUT:
                assert_one_sentence(with_value(command, flag, value), capsys)


@pytest.mark.parametrize("command", [name for name in REQUIRED if "--output" in REQUIRED[name]])
@pytest.mark.parametrize("flag", ["--output", "--store"])
def test_a_folder_that_cannot_be_written_is_one_sentence(
    command: str, flag: str, places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in ("", "file", "file/inside", "circle", "a" * 300, "/proc/inside", "x\0y"):
        assert_one_sentence(
            [*command.split(), *REQUIRED[command].replace("--output out", f"{flag} ").split(), value], capsys
        )


@pytest.mark.parametrize(
    "command", ["run --out", "export gguf a --to", "export adapter a --to", "pipeline compile --to"]
)
def test_a_target_that_cannot_be_written_is_reported_before_the_work(
    command: str, places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in ("", "file/inside", "circle", "a" * 300, "/proc/inside", "x\0y"):
        assert_one_sentence([*command.split(), value], capsys)
    assert_one_sentence([*command.split(), "file" if command.startswith("run") else "a"], capsys)


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "8080.5", ""])
def test_a_port_is_between_1_and_65535(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["serve", "--model", "m", f"--port={port}"])
    assert end.value.code == 2
    assert "argument --port: port must be " in capsys.readouterr().err


BENCHMARKS: list[tuple[str, list[str]]] = [
    ("fim", ["--repo", "missing"]),
    ("fim", ["--repo", "a"]),
    ("humaneval", ["--model", "missing"]),
    ("humaneval", ["--model", "a", "--limit", "-1"]),
    ("humaneval", ["--model", "a", "--max-new-tokens", "0"]),
    ("serving", ["--repo", "file"]),
    ("serving", ["--model", "missing"]),
    ("context", ["--repo", "missing"]),
    ("context", ["--chunks", "-1"]),
    ("context_model", ["--out", "a"]),
    ("context_model", ["--out", "a", "--holes", "0"]),
    ("corpus", ["--megabytes", "0"]),
]


@pytest.mark.parametrize(("name", "arguments"), BENCHMARKS)
def test_benchmarks_tell_mistakes_alike(
    name: str, arguments: list[str], places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = importlib.import_module(f"benchmarks.{name}{'.__main__' if name == 'context' else ''}").main
    try:
        code = entry.run("benchmark", lambda: main(arguments))
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    assert capsys.readouterr().err.count("\n") == 1
