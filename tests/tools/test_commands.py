"""Every command that the documentation, the help texts and the Makefile give is one that our programs take."""

import argparse
import contextlib
import importlib
import itertools
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infill import cli
from tests.unit.test_command_line import leaves

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("charts/*/README.md"))]
PARSER = cli._parser()
PARSERS = dict(leaves(PARSER))
VARIABLE = re.compile(r"^(export +)?[A-Z_]+=\S+ +")


def blocks(text: str) -> Iterator[str]:
    """The blocks of code of a Markdown text, fenced for a shell or indented."""
    yield from re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    yield from re.findall(r"(?:^ {4}\S.*\n(?: {4}.*\n|\n(?= {4}))*)", text, re.MULTILINE)


def commands(block: str) -> Iterator[str]:
    """The commands of a block, one a line, without comments and variables set in front of them."""
    text = block.replace("\\\n", " ")
    for line in itertools.chain.from_iterable(re.split(r"; |&&", line) for line in text.splitlines()):
        command = re.sub(r"(^|\s)#.*|\s[|>] .*", "", line).strip()
        while VARIABLE.match(command):
            command = VARIABLE.sub("", command)
        if command.startswith(("infill ", "python -m benchmarks", "python -m deploy", "python -m tools")):
            yield command


def epilogs() -> Iterator[str]:
    for parser in PARSERS.values():
        if parser.epilog:
            yield parser.epilog.removeprefix("example: ")
    yield from re.findall(r"infill [a-z].*?(?=, then|\. |$)", str(PARSER.epilog))


def docstrings() -> Iterator[str]:
    """The usage of each benchmark, its options in brackets included."""
    for file in sorted((ROOT / "benchmarks").rglob("*.py")):
        for line in re.findall(r"^ {4}(?:[A-Z_]+=\S+ )?(python -m benchmarks.*)$", file.read_text(), re.MULTILINE):
            yield re.sub(r" \.\.\.|\[|\]", "", line.partition("#")[0])


MAKE = "OUT=out/demo BASE=m KFP_HOST=http://k STORE=s3://b PRESET=small PARAMETERS=run.yaml VALUES=platform.yaml"


def makefile() -> Iterator[str]:
    """The commands that the targets run."""
    targets = ("demo", "base", "serve", "pipeline-compile", "pipeline-submit")
    done = subprocess.run(["make", "-n", *targets, *MAKE.split()], cwd=ROOT, capture_output=True, text=True, check=True)
    for command in re.findall(r"^\.venv/bin/(infill .*)$", done.stdout.replace("\\\n", " "), re.MULTILINE):
        yield re.sub(r"--images \S+", "", command)  # there where the images have been built


def written() -> list[tuple[str, str]]:
    """Where each command stands, and the command."""
    entries = [
        (file.name, line) for file in DOCUMENTS for block in blocks(file.read_text()) for line in commands(block)
    ]
    entries += [("--help", line) for line in epilogs()]
    entries += [("benchmarks", line) for line in docstrings()]
    return entries + [("Makefile", line) for line in makefile()]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "infill").symlink_to(ROOT / "infill")
    for folder in ("out/demo", "dist", "DIR"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("platform.yaml", "run.yaml", "dist/images.json", "keys.json", "gate.key", "x"):
        (tmp_path / file).touch()
    return tmp_path


PACKAGES = ("benchmarks.context", "benchmarks.keystrokes")


def parse(command: str) -> argparse.Namespace:
    """Parse a command with the parser of its program, without running it. Raises SystemExit where that refuses it."""
    words = shlex.split(command)
    if words[0] == "infill":
        return PARSER.parse_args(words[1:])
    values: list[argparse.Namespace] = []
    original = argparse.ArgumentParser.parse_args

    def capture(parser: argparse.ArgumentParser, arguments: list[str] | None = None) -> argparse.Namespace:
        values.append(original(parser, arguments))
        raise KeyboardInterrupt

    module = importlib.import_module(words[2] + (".__main__" if words[2] in PACKAGES else ""))
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(argparse.ArgumentParser, "parse_args", capture)
        module.main(words[3:])
    return values[0]


@pytest.mark.parametrize(("source", "command"), sorted(set(written())))
def test_a_command_that_is_written_down_can_be_parsed(
    source: str, command: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        parse(re.sub(r"\bN\b", "3", command).replace("--only NAME", "--only data_wait").replace("NAME", "small"))
    except SystemExit:
        pytest.fail(f"{source}: {command}: {capsys.readouterr().err}")


def test_all_sources_have_commands() -> None:
    assert {source for source, _ in written()} >= {
        *("README.md", "context.md", "operator-guide.md", "--help", "benchmarks", "Makefile")
    }


def test_a_block_that_speaks_to_kfp_names_its_address() -> None:
    for file in DOCUMENTS:
        for block in blocks(file.read_text()):
            if any(re.match(r"infill pipeline (status|logs|cancel|submit)", each) for each in commands(block)):
                assert "--host" in block or "KFP_HOST" in block, (file.name, block)


def test_commands_in_running_text_exist() -> None:
    words = {tuple(command.split()[: len(command.split())]) for command in PARSERS}
    starts = {command[:length] for command in words for length in range(1, 3)}
    for file in DOCUMENTS:
        for mention in re.findall(r"`infill ((?:[a-z]+ ?){1,2})[^`]*`", file.read_text()):
            named = tuple(mention.split())
            assert named in starts or named[:1] in starts, (file.name, mention)


EVERYWHERE = [
    command for _, command in sorted(set(written())) if re.match(r"infill (fim split|context query) ", command)
]


@pytest.mark.parametrize("command", sorted(set(EVERYWHERE)))
def test_commands_that_need_nothing_work(command: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(shlex.split(command)[1:]) == 0
    assert capsys.readouterr().out
