"""How a program of ours ends, whatever its terminal, its disk and its user do."""

import errno
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill import entry
from infill.errors import InputError, StoppedError

ROOT = Path(__file__).parents[2]
SPLIT = [sys.executable, "-m", "infill.cli", "fim", "split", "infill/fim.py", "--n", "50"]


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False, env={**os.environ, **environment})


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of Bash in which `$infill` is the command."""
    command = f"{shlex.quote(sys.executable)} -m infill.cli"
    return run(["bash", "-c", line.replace("$infill", command)], **environment)


@pytest.mark.parametrize("arguments", ["fim split infill/fim.py --n 50", "--help", "run --help"])
def test_a_reader_that_leaves_is_not_an_error(arguments: str) -> None:
    done = shell(f"$infill {arguments} | head -c 1")
    assert done.stderr == b""
    assert len(done.stdout) == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_any_text_can_be_written_to_any_terminal(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "ünï\N{SNOWMAN}.py"
    file.write_text("def f(a):\n    return '→ \N{SNOWMAN}'\n")
    done = run([*SPLIT[:5], str(file)], PYTHONIOENCODING=encoding, LANG="C")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode(encoding).splitlines()[0])["path"] == str(file)
    missing = run([*SPLIT[:5], f"{file}.missing"], PYTHONIOENCODING=encoding, LANG="C")
    assert missing.returncode == 2
    assert missing.stderr.count(b"\n") == 1


def test_a_full_disk_is_one_sentence() -> None:
    done = shell("$infill fim split infill/fim.py > /dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith(b"infill: no space is left on the device; free some space")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(closed: str) -> None:
    assert shell(f"$infill fim split infill/fim.py {closed}").returncode == 0


WORKERS = {
    "infill/stages/rayjob.py",
    "infill/evaluate/jail.py",
    "serving/child.py",
    "benchmarks/torchrun.py",
    "benchmarks/corpus_peers.py",
    "benchmarks/tiktoken_peer.py",
}
"""What our programs start; nobody else does."""


def test_every_program_begins_and_ends_here() -> None:
    folders = ("infill", "serving", "pipelines", "components", "benchmarks", "tools", "deploy", "charts", "images")
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    starts = {file: text.partition('if __name__ == "__main__":')[2] for file in files if (text := file.read_text())}
    others = {str(file.relative_to(ROOT)) for file, start in starts.items() if start and "entry.run(" not in start}
    assert others == WORKERS | {"infill/cli.py"}  # whose `main` calls it, also for the installed command


@pytest.mark.parametrize("name", ["docs", "architecture"])
def test_the_writers_of_pages_take_no_arguments(name: str) -> None:
    done = run([sys.executable, "-m", f"tools.{name}", "--check"])
    assert done.returncode == 2
    assert done.stderr.decode().endswith(f"unrecognized arguments: --check; see python -m tools.{name} --help\n")


def raising(error: BaseException) -> int:
    def body() -> None:
        raise error

    return entry.run("program", body)


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (InputError("wrong"), 2, "program: wrong"),
        (StoppedError("stopped"), 143, "program: stopped"),
        (KeyboardInterrupt(), 130, "program: interrupted; run the same command again to continue"),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "a b"),
            2,
            "cannot use 'a b': there is no such file or folder",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "cannot use 'x': permission denied; change its"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", b"x"), 2, "cannot use 'x': it is a folder; name a file"),
        (
            OSError(errno.EXDEV, "Invalid link", "a", None, "b"),
            2,
            "cannot use 'a' and 'b': it is on another file system",
        ),
        (OSError(errno.EADDRINUSE, "Address in use"), 2, "the port is in use; choose another --port"),
        (OSError(errno.ENOSPC, "No space left"), 2, "no space is left on the device; free some space"),
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
            2,
            "connection refused; check the address",
        ),
        (OSError("something\nodd"), 2, "something odd; INFILL_DEBUG=1 shows the traceback"),
        (TimeoutError(), 2, "TimeoutError; INFILL_DEBUG=1 shows the traceback"),
        (ValueError("odd"), 2, "odd (ValueError in test_entry.py; INFILL_DEBUG=1 shows the traceback)"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 2, "some text is not valid utf-8"),
        (json.JSONDecodeError("Expecting value", "x", 0), 2, "a file is not valid JSON (Expecting value"),
        (MemoryError(), 2, "there is not enough memory"),
        (
            BrokenPipeError(errno.EPIPE, "Broken pipe"),
            2,
            "the other side closed the connection",
        ),  # a server's, not our reader's
    ],
)
def test_an_error_is_its_sentence(
    error: BaseException, code: int, sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(entry.DEBUG, raising=False)
    assert raising(error) == code
    output = capsys.readouterr().err
    assert sentence in output
    assert output.count("\n") == 1


def test_defects_keep_their_traceback_and_developers_see_every_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError):
        raising(KeyError("ours"))
    monkeypatch.setenv(entry.DEBUG, "1")
    with pytest.raises(InputError):
        raising(InputError("theirs"))


UNDECODED = st.text(st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF))
"""As in names of files that are not UTF-8."""


@given(st.text() | UNDECODED, st.sampled_from(["ascii", "utf-8"]))
def test_json_survives_any_encoding(text: str, encoding: str) -> None:
    with open(os.devnull, "w", encoding=encoding) as stream:
        written = entry.dumps({"text": text}, stream).encode(encoding)
    assert json.loads(written) == {"text": text}
