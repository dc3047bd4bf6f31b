"""Paths that a user gives: `~`, `file:` URIs and relative paths mean the same in every option, setting and process."""

import argparse
import contextlib
import dataclasses
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill import cli, config, storage, tracking
from infill.cli_options import settings_of
from infill.errors import InfillError, InputError

PROGRAMS: Final = (
    "benchmarks.context.__main__",
    "benchmarks.context_model",
    "benchmarks.fim",
    "benchmarks.humaneval",
    "benchmarks.serving",
    "benchmarks.training",
    "images.pipeline",
    "serving.predictor.__main__",
    "serving.transformer.__main__",
)
"""Modules with a command line of their own."""

NO_PATHS: Final = {
    "--after",
    "--before",
    "--budgets",
    "--typists",
    "--champion",
    "--candidate_name",
    "--candidate_predictor",
    "--reason",
    "--repository",
    "PATH|SHA256",
    "--pattern",
    "--cors",
    "--cron",
    "--every",
    "--cors_origins",
    "--host",
    "--language",
    "--languages",
    "--name",
    "--namespace",
    "--predictor",
    "--predictor_host",
    "--release",
    "--service-account",
    "--expires",
    "--note",
    "--oidc_audience",
    "--oidc_issuer",
    "--oidc_tenant",
    "--telemetry",
    "--rater",
    "--tenant",
    "ID",
    "--set",  # tried by itself, below
    "--type",
    "--upstream_name",
    "--url",
    "--workers",
    "--device",
    "--engine",
    "--gguf-type",
    "--healing",
    "--strategy",
    "--model_name",
    "NAME",
    "RUN",
    "STEP",
}
"""Options whose value is a text but not a path. An option that stands neither here nor expands `~` fails the test."""

NO_LOCATIONS: Final = {
    "corpus.columns",
    "corpus.languages",
    "dpo.train.lora_modules",
    "pretrain.train.lora_modules",
    "sft.train.lora_modules",
    "corpus.licences",
    "corpus.redact",
    "corpus.runtime",
    "deploy.release",
    "examples.evaluation_strategy",
    "examples.split.end",
    "examples.split.start",
    "examples.strategies",
    "preferences.judge",
    "register.latency_machine",
    "preferences.judge_model",
    "pretrain.licence",
    "pretrain.mixture",
    "register.ceilings",
    "register.floors",
    "register.metric",
    "register.name",
    "report.title",
    *(f"{stage}.train.{name}" for stage in ("pretrain", "sft", "dpo") for name in ("precision", "launcher")),
}
"""Settings that hold texts but no paths."""


class CapturedError(Exception):
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def parser_of(module: str) -> argparse.ArgumentParser:
    """The parser that the `main` of a module makes: taken at the moment when it would parse."""

    def capture(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise CapturedError(parser)

    main = importlib.import_module(module).main
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", capture)
        with pytest.raises(CapturedError) as captured:
            main()
    return captured.value.parser


def below(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """Command and option, for all commands below `parser`."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from below(child)
        else:
            yield parser.prog, action


def text_options() -> list[tuple[str, argparse.Action]]:
    """All options of all commands whose value is a text of the user's choice."""
    parsers = [cli._parser(), *map(parser_of, PROGRAMS)]
    return [
        (prog, action)
        for parser in parsers
        for prog, action in below(parser)
        if action.nargs != 0 and action.choices is None and not is_number(action)
    ]


def is_number(action: argparse.Action) -> bool:
    artifact_of = getattr(action.type, "__qualname__", "").partition(".")[0]
    return action.type in (int, float) or artifact_of in ("integer", "number")


def name_of(action: argparse.Action) -> str:
    return action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)


def values_of(action: argparse.Action, text: str, place: Path) -> set[str]:
    """What `text` is read as while `place` does not exist, is a folder, and is a file: an option may ask for either."""
    assert callable(action.type), f"{name_of(action)} takes its text as it is: give it type=absolute_uri"
    values = set()
    for make, remove in ((None, None), (Path.mkdir, Path.rmdir), (Path.touch, Path.unlink)):
        if make:
            make(place)
        with contextlib.suppress(argparse.ArgumentTypeError):
            values.add(str(action.type(text)))
        if remove:
            remove(place)
    return values


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / "home")


def test_every_option_that_is_a_path_expands(home: str) -> None:
    tried = 0
    for prog, action in text_options():
        if name_of(action) in NO_PATHS:
            continue
        kind = "dir:" if name_of(action) == "--source" else ""
        for written in ("~/my code", f"file://{home}/my%20code", f"file://localhost{home}/my%20code"):
            values = values_of(action, kind + written, Path(home) / "my code")
            assert values == {f"{kind}{home}/my code"}, (prog, name_of(action), written)
        tried += 1
    assert tried > 60


def test_no_option_is_listed_that_does_not_exist() -> None:
    assert {name_of(action) for _, action in text_options()} >= NO_PATHS


@pytest.mark.parametrize("written", ["code", "./code", "a/../code"])
def test_relative_paths_are_the_users(written: str, home: str, tmp_path: Path) -> None:
    options = cli._parser().parse_args(["run", "--out", written, "--source", f"dir:{written}", "--base-model", written])
    assert str(options.out) == f"{tmp_path}/code"
    assert settings_of(options) == {"sources": [f"dir:{tmp_path}/code"], "base_model": f"{tmp_path}/code"}


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("~", "{home}"),
        ("~/a", "{home}/a"),
        ("~root", "/root"),
        ("~root/a", "/root/a"),
        ("./~/a", "{cwd}/~/a"),
        ("a~/b", "{cwd}/a~/b"),
        ("a%20b", "{cwd}/a%20b"),
        ("/a://b", "/a:/b"),
        ("file:///a%20b", "/a b"),
        ("FILE:///a%25", "/a%"),
        ("file:/a", "/a"),
        ("file://localhost/a", "/a"),
        ("file:///~/a", "{home}/a"),
        ("file://~/a", "{home}/a"),
        ("file:///a#b?c", "/a#b?c"),
        ("file:///%C3%A9", "/é"),
    ],
)
def test_local_uris(written: str, path: str, home: str, tmp_path: Path) -> None:
    expected = path.format(home=home, cwd=tmp_path)
    assert storage.is_local(written)
    assert storage.absolute(written) == expected
    assert storage.filesystem(written)[1] == expected
    assert str(storage.local_path(written)) == expected


@pytest.mark.parametrize("uri", ["s3://bucket/~/a%20b", "memory://x", "gs://b", "simplecache::s3://b/a", "S3://b"])
def test_remote_uris_are_left_alone(uri: str) -> None:
    assert not storage.is_local(uri)
    assert storage.absolute(uri) == uri


@given(st.text(st.characters(exclude_characters="\0/", codec="utf-8"), min_size=1).filter(lambda n: n not in "..~"))
def test_any_name_survives_its_uri(name: str) -> None:
    path = Path("/no/such") / name
    assert storage.absolute(path.as_uri()) == storage.absolute(str(path)) == str(path)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("~no-such-user/a", "no home directory for ~no-such-user; write ./~no-such-user"),
        ("file://elsewhere/a", "names the host elsewhere; write file:///path"),
        ("file:///a%00b", "contains a null character"),
    ],
)
def test_mistakes_are_reported(written: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=sentence):
        storage.absolute(written)
    with pytest.raises(SystemExit):
        cli.main(["run", "--out", written])
    assert sentence in capsys.readouterr().err
    assert cli.main(["run", "--out", "x", "--set", f'sources=["dir:{written}"]']) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--out", "--source", "--base-model"])
def test_local_places_must_be_local(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    if option == "--out":
        with pytest.raises(SystemExit):
            cli.main(["run", "--out", "s3://bucket/run"])
        assert "s3://bucket/run is not on this machine" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["run", "--out", "", option, ""])
    assert "must not be empty" in capsys.readouterr().err


def texts(settings: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """Name and field of all settings that hold texts."""
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if dataclasses.is_dataclass(value):
            yield from texts(value, f"{prefix}{item.name}.")
        elif "str" in str(item.type):
            yield f"{prefix}{item.name}", item


def test_every_setting_that_is_a_path_says_so() -> None:
    for preset in config.PRESETS.values():
        marked = {name for name, item in texts(preset()) if "location" in item.metadata}
        assert marked == {name for name, _ in texts(preset())} - NO_LOCATIONS
        assert marked


@pytest.mark.parametrize(
    ("setting", "name", "expected"),
    [
        ("base_model=~/m", "base_model", "{home}/m"),
        ("tokenizer.base_model=file://~/m", "tokenizer.base_model", "{home}/m"),
        ("pretrain.base_model=m", "pretrain.base_model", "{cwd}/m"),
        ("pretrain.base_model=s3://b/m", "pretrain.base_model", "s3://b/m"),
        ('sources=["dir:~/a", "packages:"]', "sources", ["dir:{home}/a", "packages:"]),
        ('corpus.sources=["dir:a b"]', "corpus.sources", ["dir:{cwd}/a b"]),
        ('sources=["git:~/a b", "git:.@v1.0"]', "sources", ["git:{home}/a b", "git:{cwd}@v1.0"]),
        ('sources=["archive:~/a b.tgz", "archive:a"]', "sources", ["archive:{home}/a b.tgz", "archive:{cwd}/a"]),
        ('sources=["parquet:s3://b/t", "parquet:a b"]', "sources", ["parquet:s3://b/t", "parquet:{cwd}/a b"]),
        ('sources=["git:file://~/a@HEAD~1", "git:a@b/c"]', "sources", ["git:{home}/a@HEAD~1", "git:{cwd}/a@b/c"]),
        ("corpus.sources=3", "corpus.sources", 3),
        ('corpus.earlier=["~/a b", "c", "s3://b/m"]', "corpus.earlier", ["{home}/a b", "{cwd}/c", "s3://b/m"]),
        ('corpus.benchmarks=["~/a b"]', "corpus.benchmarks", ["{home}/a b"]),
        ("report.title=~/m", "report.title", "~/m"),
    ],
)
def test_settings_that_are_paths_expand(setting: str, name: str, expected: Any, home: str, tmp_path: Path) -> None:
    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [filled(item) for item in value]
        return value.format(home=home, cwd=tmp_path) if isinstance(value, str) else value

    options = cli._parser().parse_args(["run", "--out", "x", "--set", setting])
    assert settings_of(options) == {name: filled(expected)}


def test_tracking_uri_of_a_database_is_absolute(home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for written, expected in {
        "sqlite:///~/m.db": f"sqlite:///{home}/m.db",
        "sqlite:///m.db": f"sqlite:///{tmp_path}/m.db",
        "sqlite:////a/m.db": "sqlite:////a/m.db",
        "sqlite:///:memory:": "sqlite:///:memory:",
        "http://mlflow": "http://mlflow",
        "": "",
    }.items():
        monkeypatch.setenv("MLFLOW_TRACKING_URI", written)
        assert tracking.tracking_uri() == expected


def run(arguments: Sequence[str]) -> int:
    try:
        return cli.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


def test_query_finds_the_file_of_a_project_in_the_home(home: str, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(home) / "proj").mkdir()
    (Path(home) / "proj" / "a.py").write_text("x = 1\n")
    (Path(home) / "proj" / "b.py").write_text("x = 1\ny = x\n")
    caret = ["--line", "1", "--column", "1", "--json"]
    for path in ("a.py", "~/proj/a.py"):
        assert run(["context", "query", "--repo", "~/proj", "--path", path, *caret]) == 0
    assert run(["fim", "split", "~/proj/b.py"]) == 0
    with pytest.raises(InfillError):
        storage.local_path("s3://b")
    assert "Traceback" not in capsys.readouterr().err
