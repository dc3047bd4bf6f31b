import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infill.errors import InputError
from infill.evaluate import sandbox


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    sandbox.isolation.cache_clear()


def _isolated() -> bool:
    try:
        return sandbox.isolation() == "namespaces"
    except InputError:
        return False


needs_namespaces = pytest.mark.skipif(not _isolated(), reason="this machine allows no namespaces")


@pytest.fixture
def _waived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no namespaces, the checks that need none still run."""
    if not _isolated():
        monkeypatch.setenv(sandbox.WEAK, "limits")
        sandbox.isolation.cache_clear()


@pytest.mark.usefixtures("_waived")
@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("assert 1 + 1 == 2", "passed"),
        ("assert 1 + 1 == 3", "failed"),
        ("def f(:", "failed"),
        ("import sys; sys.exit(0)", "failed"),
        ("import os; os._exit(0)", "failed"),
        ("raise SystemExit", "failed"),
        ("import ctypes; ctypes.string_at(0)", "failed"),
        ("x = bytearray(3 << 30)", "failed"),
        ("open('big', 'wb').write(bytes(100 << 20))", "failed"),
        ("import sys\nwhile True: sys.stderr.write('x' * 100_000)", "failed"),
        ("while True: pass", "timeout"),
    ],
)
def test_only_a_program_that_runs_to_its_end_passes(program: str, status: str) -> None:
    assert sandbox.run(program, seconds=20 if status != "timeout" else 0.7).status == status


@pytest.mark.usefixtures("_waived")
def test_the_error_is_reported() -> None:
    outcome = sandbox.run("print('noise')\nassert False, 'what went wrong'")
    assert outcome.detail.strip().endswith("AssertionError: what went wrong")


@needs_namespaces
@pytest.mark.parametrize(
    "program",
    [
        "open('/etc/passwd')",
        "open('/proc/self/environ')",
        "open('/usr/planted', 'w')",
        "import socket; socket.create_connection(('127.0.0.1', PORT), 2)",
        "import socket; socket.getaddrinfo('example.org', 80)",
        "import os; os.kill(os.getppid() or -1, 9)",
        "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
        "import os; os.setuid(0)",
    ],
)
def test_files_network_and_other_processes_are_out_of_reach(program: str) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        outcome = sandbox.run(program.replace("PORT", str(server.getsockname()[1])), seconds=20)
    assert outcome.status == "failed"
    assert outcome.detail


@needs_namespaces
def test_a_program_sees_an_empty_folder_of_its_own_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    program = "import os\nassert os.listdir('.') == [] and 'SECRET' not in os.environ\nopen('mine', 'w').write('x')"
    assert [outcome.status for outcome in sandbox.run_all([program] * 2)] == ["passed", "passed"]


@needs_namespaces
def test_nothing_outlives_a_timeout() -> None:
    marker = f"infill-{os.getpid()}-{time.monotonic_ns()}"
    program = f"import os, time\nname = '{marker}'\nos.fork() or os.setsid()\nwhile True: time.sleep(1)"
    assert sandbox.run(program, seconds=0.5).status == "timeout"
    time.sleep(0.2)
    alive = [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"jail.py" in _read(path)]
    mine = [path for path in alive if _parent(path.parent) in {os.getpid(), 1}]
    assert mine == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_without_isolation_nothing_runs_until_that_is_waived(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, isolated: bool, **__: object) -> sandbox.Outcome:
        if isolated:
            raise InputError("unshare: Operation not permitted")
        return sandbox.Outcome(status="passed", detail="")

    monkeypatch.setattr(sandbox, "_start", refused)
    monkeypatch.delenv(sandbox.WEAK, raising=False)
    sandbox.isolation.cache_clear()
    with pytest.raises(InputError, match=r"cannot be isolated .*not permitted.* INFILL_SANDBOX=limits"):
        sandbox.run("pass")
    monkeypatch.setenv(sandbox.WEAK, "limits")
    assert sandbox.isolation() == "limits"
