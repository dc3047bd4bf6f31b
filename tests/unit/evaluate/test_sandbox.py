import collections
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infill.errors import InputError
from infill.evaluate import jail, sandbox


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    sandbox.isolation.cache_clear()


def isolated() -> bool:
    """Whether this machine allows namespaces."""
    try:
        return sandbox.isolation() == "namespaces"
    except InputError:
        return False


needs_namespaces = pytest.mark.skipif(not isolated(), reason="this machine allows no namespaces")


@pytest.fixture
def _waived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no namespaces, the checks that need none still run."""
    if not isolated():
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


def survivors() -> list[Path]:
    """Processes of this tree's jails whose parent is this process or gone, after they had a moment to end."""
    command = f"-B\0{jail.__file__}\0".encode()
    for _ in range(50):
        alive = [path.parent for path in Path("/proc").glob("[0-9]*/cmdline") if command in _read(path)]
        mine = [process for process in alive if _parent(process) in {os.getpid(), 1}]
        if not mine:
            return []
        time.sleep(0.1)
    return mine


@needs_namespaces
def test_the_sandbox_ends_with_the_process_that_asked_for_it() -> None:
    script = "from infill.evaluate import sandbox; sandbox.run('import time; time.sleep(60)', seconds=60)"
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        while not _children(process.pid):
            time.sleep(0.05)
        process.kill()
    assert survivors() == []


def _children(parent: int) -> list[Path]:
    return [path for path in Path("/proc").glob("[0-9]*") if _parent(path) == parent]


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


def test_a_layer_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    missing = {"seccomp": "libseccomp.so.2 is not installed"}

    def start(*_: object, **__: object) -> sandbox.Outcome:
        return sandbox.Outcome(status="passed", detail="", missing=missing)

    monkeypatch.setattr(sandbox, "_start", start)
    sandbox.isolation.cache_clear()
    assert sandbox.layers() == missing
    assert "runs without the layer seccomp, since libseccomp.so.2 is not installed" in caplog.text


def test_without_libseccomp_the_jail_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(jail.UnavailableError, match=r"libseccomp.so.2 is not installed"):
        jail.filter_system_calls()


def test_waived_namespaces_are_named_and_the_filter_still_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sandbox.WEAK, "limits")
    sandbox.isolation.cache_clear()
    assert sandbox.layers()["namespaces"] == "INFILL_SANDBOX=limits waives them"
    if "seccomp" not in sandbox.layers():
        assert not sandbox.run("import socket; socket.socket()").passed
        assert not sandbox.run("import os; os.fork()").passed


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.integers() | st.text(), inner),
    max_leaves=12,
)


@settings(max_examples=50, deadline=None)
@given(values | st.sets(st.integers()) | st.frozensets(st.tuples(st.integers(), st.text())))
def test_plain_values_travel_unchanged(value: object) -> None:
    travelled = jail.unpack(json.loads(json.dumps(jail.pack(value))))
    assert travelled == value
    assert type(travelled) is type(value)


def test_other_values_travel_as_far_as_comparisons_see_them() -> None:
    def travel(value: object) -> object:
        return jail.unpack(json.loads(json.dumps(jail.pack(value))))

    assert travel(collections.Counter("aab")) == {"a": 2, "b": 1}
    assert travel(range(3)) == range(3)
    assert travel(map(str, [1, 2])) != ["1", "2"]
    assert list(travel(map(str, [1, 2]))) == ["1", "2"]  # type: ignore[call-overload]
    assert travel(object()) != travel(object())


def test_the_programs_exceptions_reach_the_check() -> None:
    program = "class Mine(Exception): pass\ndef f(x):\n    raise [ValueError, Mine][x]('no')"
    check = (
        "for number, kind in enumerate(('ValueError', 'RemoteError')):\n"
        "    try: remote('f')(number)\n"
        "    except Exception as error: assert (type(error).__name__, str(error)) == (kind, 'no')\n"
        "    else: assert False"
    )
    outcome = sandbox.run(program, check=check, seconds=20)
    assert outcome.passed, outcome
