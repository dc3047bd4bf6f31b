import json
import subprocess
import sys
from pathlib import Path

import pytest

from infill import cli, cli_options
from tests.builders import tiny_repositories, write_documents
from tests.unit.corpus.folders import write_repositories

COMMANDS = [
    "run",
    "corpus build",
    "tokenizer train",
    "examples build",
    "train pretrain",
    "train sft",
    "train dpo",
    "train status",
    "preferences build",
    "evaluate",
    "register",
    "deploy",
    "report",
    "fim split",
    "context query",
    "serve",
    "complete",
    "smoke",
    "rollback",
    "pipeline compile",
    "pipeline submit",
    "pipeline status",
    "pipeline logs",
    "pipeline cancel",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([*command.split(), "--help"])
    assert end.value.code == 0
    assert "usage: infill" in capsys.readouterr().out


def test_user_mistake_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["corpus", "build", "--set", "corpus.colour=1", "--output", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("infill: unknown setting 'corpus.colour'")
    assert captured.err.count("\n") == 1


def test_stage_prints_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write_documents(tmp_path / "corpus", tiny_repositories())
    size = ["--set", "tokenizer.vocab_size=400", "--preset", "debug"]
    command = ["tokenizer", "train", *size, "--corpus", corpus, "--output", str(tmp_path / "tokenizer")]
    assert cli.main(command) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["uri"] == str(tmp_path / "tokenizer")
    assert printed["metrics"]["round_trip"] == 1.0


def test_a_stage_tells_how_far_it_is(tmp_path: Path) -> None:
    source = json.dumps([f"dir:{write_repositories(tmp_path / 'code')}"])
    command = [sys.executable, "-m", "infill.cli", "corpus", "build", "--preset", "debug"]
    command += ["--set", f"corpus.sources={source}", "--output", str(tmp_path / "corpus")]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert "corpus: reading, 1 of 1 shards\n" in done.stderr
    assert json.loads(done.stdout)["uri"] == str(tmp_path / "corpus")


def test_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = cli._parser().parse_args(
        ["run", "--out", "x", "--source", "dir:code", "--source", "packages:", "--base-model", "m", "--seed", "3"]
    )
    assert cli_options.settings_of(options) == {
        "sources": [f"dir:{tmp_path}/code", "packages:"],
        "base_model": f"{tmp_path}/m",
        "seed": 3,
    }


def test_submit_needs_a_store_that_a_cluster_can_reach(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pipeline", "submit", "--host", "http://127.0.0.1:9", "--store", "/tmp/store"]) == 2
    assert "store must be the URI of an object store" in capsys.readouterr().err


def test_unreachable_kfp_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pipeline", "status", "run", "--host", "http://127.0.0.1:9"]) == 2
    assert "Kubeflow Pipelines at http://127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--add-fim", "--adapter=a"])
def test_what_changes_a_base_needs_one(tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--out", str(tmp_path), option]) == 2
    assert "name one with --base-model" in capsys.readouterr().err


def test_a_base_that_is_not_there_cannot_be_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--base-model", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err.splitlines()[-1]


def test_run_without_deployment_cannot_be_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--out", str(tmp_path)]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "program"),
    [
        (["--bogus", "fim", "split", __file__], "infill"),
        (["fim", "split", __file__, "--holes", "5"], "infill fim split"),
        (["serve", "--model", "a", "b"], "infill serve"),
    ],
)
def test_an_unknown_argument_is_reported_with_its_command(
    arguments: list[str], program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(arguments)
    output = capsys.readouterr().err
    assert output.startswith(f"{program}: unrecognized arguments: ")
    assert output.endswith(f"; see {program} --help\n")
