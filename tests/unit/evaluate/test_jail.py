"""Attempts to escape from the sandbox, to abuse it and to forge a success; each ends well only if it succeeds."""

import os
import platform
import socket
import time
from pathlib import Path

import pytest

from infill.evaluate import sandbox
from tests.unit.evaluate.test_sandbox import isolated, survivors

pytestmark = pytest.mark.skipif(
    not isolated() or platform.machine() != "x86_64", reason="needs namespaces; the numbers are x86-64's system calls"
)

CALL = """
import ctypes, os, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
"""
ESCAPES = {
    # processes
    "fork": "os.fork()",
    "vfork by its number": "call(58)",
    "clone without a thread": "call(56, 17, 0, 0, 0, 0)",
    "clone3": "call(435, ctypes.create_string_buffer(88), 88)",
    "a subprocess": "import subprocess; subprocess.run([sys.executable, '-c', 'pass'], check=True)",
    "another program": "os.execv(sys.executable, [sys.executable, '-c', 'pass'])",
    "a new session": "os.setsid()",
    # signals and other processes
    "a signal to the parent": "os.kill(os.getppid(), signal.SIGTERM)",
    "killing the supervisor": "os.kill(1, signal.SIGKILL)",
    "a signal to everybody": "os.kill(-1, signal.SIGKILL)",
    "a signal to the group": "os.killpg(0, signal.SIGTERM)",
    "tkill of the supervisor": "call(200, 1, 9)",
    "pidfd_open of the supervisor": "os.pidfd_open(1)",
    "ptrace of the supervisor": "call(101, 16, 1, 0, 0)",
    "being traced": "call(101, 0, 0, 0, 0)",
    "process_vm_readv": "call(310, 1, ctypes.create_string_buffer(16), 1, ctypes.create_string_buffer(16), 1, 0)",
    "process_vm_writev": "call(311, 1, ctypes.create_string_buffer(16), 1, ctypes.create_string_buffer(16), 1, 0)",
    "kcmp": "call(312, 1, 2, 0, 0, 0)",
    "the supervisor's memory": "open('/proc/1/mem', 'rb')",
    "the parent's environment": "open(f'/proc/{os.getppid()}/environ', 'rb')",
    "its own environment in /proc": "open('/proc/self/environ', 'rb')",
    "the list of processes": "assert os.listdir('/proc')",
    "a secret in the environment": "assert any('SECRET' in name for name in os.environ)",
    # files
    "the users of the machine": "open('/etc/passwd')",
    "people's homes": "os.listdir('/home')",
    "this repository": f"os.listdir({str(Path(__file__).parent)!r})",
    "a file in the system": "open('/usr/planted', 'w')",
    "a file in the root": "open('/planted', 'w')",
    "Python's own files": "open(os.__file__, 'a')",
    "deleting Python's files": "os.unlink(os.__file__)",
    "a symlink out": "os.symlink('/etc/passwd', 'link'); open('link')",
    "a symlink up": "os.symlink('../' * 20 + 'etc/passwd', 'up'); open('up')",
    "a hard link to Python": "os.link(os.__file__, 'hard')",
    "parents of the root": "os.chdir('../' * 50); open('etc/passwd')",
    "chroot": "os.mkdir('d'); os.chroot('d')",
    "mount": "call(165, b'none', b'/tmp', b'tmpfs', 0, 0)",
    "remounting writable": "call(165, b'none', b'/usr', b'', 32 | 4096, 0)",
    "unmounting": "call(166, b'/usr', 2)",
    "open_tree": "call(428, -100, b'/', 1)",
    "pivot_root": "call(155, b'/', b'/tmp')",
    "a device": "os.mknod('sda', 0o60600, os.makedev(8, 0))",
    "a handle instead of a name": "call(303, -100, b'/', *(ctypes.create_string_buffer(64) for _ in 'ab'), 0)",
    "shared memory in /dev": "open('/dev/shm/x', 'w')",
    "a large file": "open('big', 'wb').write(bytes(20 << 20))",
    "a hole of a terabyte": "os.truncate(open('hole', 'wb').name, 1 << 40)",
    # memory
    "memory by mmap": "import mmap; mmap.mmap(-1, 3 << 30)",
    "memory in files without a name": "os.memfd_create('x')",
    "System V shared memory": "call(29, 0, 1 << 30, 0o1600)",
    "locked memory": "call(151, 1)",
    # network
    "an IPv4 socket": "socket.socket(socket.AF_INET)",
    "an IPv6 socket": "socket.socket(socket.AF_INET6)",
    "a raw socket": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "an abstract Unix socket": "socket.socket(socket.AF_UNIX).connect('\\0infill-PID')",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "a packet socket": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "vsock": "socket.socket(socket.AF_VSOCK)",
    "a pair of Internet sockets": "socket.socketpair(socket.AF_INET)",
    "the server of the test": "socket.create_connection(('127.0.0.1', PORT), 2)",
    "a name in the network": "socket.getaddrinfo('example.org', 80)",
    # rights
    "setuid": "os.setuid(0)",
    "setgid": "os.setgid(0)",
    "setgroups": "os.setgroups([0])",
    "being root": "assert os.getuid() == 0",
    "unshare": "call(272, 0x10000000)",
    "entering a namespace": "call(308, 0, 0)",
    "capset": "call(126, ctypes.create_string_buffer(8), ctypes.create_string_buffer(24))",
    "a raised limit": "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (9999, 9999))",
    "outliving the parent": "call(157, 1, 0, 0, 0, 0)",
    "being dumpable": "call(157, 4, 1, 0, 0, 0)",
    "another filter": "call(317, 1, 0, ctypes.create_string_buffer(16))",
    "the host's name": "socket.sethostname('x')",
    "the clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0)",
    # parts of the kernel
    "a key in the kernel": "call(248, b'user', b'x', b'y', 1, -5)",
    "reading a keyring": "call(250, 0, -5, 1)",
    "perf_event_open": "call(298, ctypes.create_string_buffer(128), 0, -1, -1, 0)",
    "io_uring": "call(425, 8, ctypes.create_string_buffer(120))",
    "bpf": "call(321, 0, ctypes.create_string_buffer(128), 128)",
    "userfaultfd": "call(323, 0)",
    "fanotify": "call(300, 0, 0)",
    "a kernel module": "call(175, ctypes.create_string_buffer(16), 16, b'')",
    "kexec": "call(246, 0, 0, 0, 0)",
    "the kernel's log": "call(103, 3, ctypes.create_string_buffer(16), 16)",
    "quotas": "call(179, 0, 0, 0, 0)",
}


ALONE = {
    "a fork bomb": "while True: os.fork()",
    "a thread bomb": (
        "import threading, time\n"
        "for _ in range(1000): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()"
    ),
    "a full disk": "for n in range(9): open(str(n), 'wb').write(bytes(15 << 20))",
    "many files": "for n in range(100_000): os.mkdir(str(n))",
    "much memory": "x = bytearray(3 << 30)",
    "many open files": "files = [open('x', 'w') for _ in range(100)]",
    "a core dump": "os.abort()",
    "a crash": "ctypes.string_at(0)",
    "32-bit system calls": (
        "import mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(bytes.fromhex('b814000000cd80c3'))\n"
        "f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\nassert f() > 0"
    ),
    "filling stderr": "while True: sys.stderr.write('x' * 100_000)",
}
"""Attempts that use up what others need, or end the process."""

HARNESS = """
attempts, ends = {attempts!r}, {{}}
for name, text in attempts.items():
    try:
        exec(text, globals())
        ends[name] = 'SUCCESS'
    except BaseException as error:
        ends[name] = type(error).__name__
odd = {{name: end for name, end in ends.items() if end not in ('OSError', 'PermissionError', 'FileNotFoundError',
    'ProcessLookupError', 'AssertionError', 'MemoryError', 'gaierror', 'ValueError')}}
assert not odd, odd
"""
"""Runs all attempts in one sandbox, and names those that did not end as the sandbox ends them."""


@pytest.fixture(scope="module")
def together() -> sandbox.Outcome:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0infill-{os.getpid()}")
        abstract.listen()
        port = str(server.getsockname()[1])
        attempts = {name: text.replace("PORT", port).replace("PID", str(os.getpid())) for name, text in ESCAPES.items()}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("INFILL_SECRET", "x")
            return sandbox.run(CALL + HARNESS.format(attempts=attempts), seconds=30)


@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_escapes(together: sandbox.Outcome, name: str) -> None:
    assert repr(name) not in together.detail


def test_all_attempts_were_made(together: sandbox.Outcome) -> None:
    assert (together.status, together.detail) == ("passed", "")


@pytest.mark.parametrize("name", ALONE)
def test_nothing_takes_more_than_its_share(name: str) -> None:
    outcome = sandbox.run(CALL + ALONE[name], seconds=20)
    assert outcome.status == "failed", outcome
    assert not any(fault in outcome.detail for fault in ("SyntaxError", "NameError", "TypeError", "AttributeError"))


CHECK = "assert remote('answer')(20) == 42"
FORGERIES = {
    "printing": "print('passed', flush=True)",
    "exit": "sys.exit(0)",
    "_exit": "os._exit(0)",
    "the system call": "call(231, 0)",
    "SystemExit later": "def answer(x): raise SystemExit(0)",
    "_exit later": "def answer(x): os._exit(0)",
    "atexit": "import atexit; atexit.register(lambda: os._exit(0)); sys.exit(1)",
    "another sys.exit": "sys.exit = os._exit = lambda status=0: None",
    "another assert": "import builtins; builtins.AssertionError = type('Quiet', (SystemExit,), {})",
    "an answer equal to everything": (
        "class Equal(int):\n    def __eq__(self, other): return True\n    __hash__ = None\n"
        "    def __ne__(self, other): return False\ndef answer(x): return Equal(1)"
    ),
    "an object equal to everything": (
        "class Equal:\n    def __eq__(self, other): return True\ndef answer(x): return Equal()"
    ),
    "an answer that runs code": (
        "class Evil:\n    def __reduce__(self): return (os._exit, (0,))\ndef answer(x): return Evil()"
    ),
    "a trace that skips": "sys.settrace(lambda *a: None)\ndef answer(x): return 0",
    "writing to every file": (
        "for fd in range(64):\n    try: os.write(fd, b'0' * 32)\n    except OSError: pass\nos._exit(0)"
    ),
    "returning what can be read": (
        "os.set_blocking(3, False)\nseen = []\nfor fd in range(64):\n    try: seen.append(os.read(fd, 9999))\n"
        "    except OSError: pass\nfor fd in range(64):\n    for text in seen:\n"
        "        try: os.write(fd, text)\n        except OSError: pass\nos._exit(0)"
    ),
    "claims on the channel": (
        "import json\nfor value in ({'ended': ''}, {'ended': True}, {'value': 42}):\n"
        "    text = json.dumps(value).encode(); os.write(4, b'%08x' % len(text) + text)\nos._exit(0)"
    ),
    "answering the question and no more": (
        "import json\ndef get():\n    return json.loads(os.read(3, int(os.read(3, 8), 16)))\n"
        "def put(value):\n    text = json.dumps(value).encode(); os.write(4, b'%08x' % len(text) + text)\n"
        "put({'ended': get()['question']}); os._exit(0)"
    ),
    "an answer of an unknown kind": (
        "f = sys._getframe(1)\nwhile f and 'MAKERS' not in f.f_globals: f = f.f_back\n"
        "f.f_globals['pack'] = lambda value: {'__import__': 'os'}\ndef answer(x): return 0"
    ),
    "patching the frames of the jail": (
        "f = sys._getframe()\nwhile f:\n    for name in list(f.f_globals):\n"
        "        if name in ('check', 'supervise', '_explain'): f.f_globals[name] = lambda *a: 0\n    f = f.f_back"
    ),
    "the nonce in the frames": (
        "import re\nf, seen = sys._getframe(1), ''\nwhile f:\n    seen += repr(f.f_locals); f = f.f_back\n"
        "assert re.search('[0-9a-f]{32}', seen)\ndef answer(x): return 42"
    ),
    "the nonce in memory": (
        "import gc\nassert any(isinstance(o, dict) and 'nonce' in o for o in gc.get_objects())\n"
        "def answer(x): return 42"
    ),
    "the nonce in a file": (
        "seen = b''\nfor fd in range(64):\n    if fd == 3: continue\n    try: seen += os.pread(fd, 9999, 0)\n"
        "    except OSError: pass\nassert b'nonce' in seen\ndef answer(x): return 42"
    ),
    "arguments": "assert any('remote(' in each for each in sys.argv)\ndef answer(x): return 42",
    "too long a message": "os.write(4, b'ffffffff')\ndef answer(x): return 42",
    "no message": "os.write(4, b'zzzzzzzz')\ndef answer(x): return 42",
    "closing everything": "os.closerange(0, 99)\ndef answer(x): return 42",
}


@pytest.fixture(scope="module")
def forgeries() -> dict[str, sandbox.Outcome]:
    programs = [f"{CALL}\n{program}\n" for program in FORGERIES.values()]
    return dict(zip(FORGERIES, sandbox.run_all(programs, checks=[CHECK] * len(programs), seconds=20), strict=True))


@pytest.mark.parametrize("name", FORGERIES)
def test_no_success_is_forged(forgeries: dict[str, sandbox.Outcome], name: str) -> None:
    assert forgeries[name].status == "failed", forgeries[name]


def test_the_right_answer_passes() -> None:
    assert sandbox.run("def answer(x): return 2 * x + 2", check=CHECK).passed
    assert not sandbox.run("def answer(x): return 2 * x + 1", check=CHECK).passed
    assert "NameError: name 'CHECK'" in sandbox.run("def answer(x): return CHECK", check=CHECK).detail


BOMBS = {
    "sleeping": "import time; time.sleep(99)",
    "stopping itself": "os.kill(os.getpid(), signal.SIGSTOP)",
    "blocking all signals": "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); signal.pause()",
    "ignoring signals": "for n in (2, 15, 24): signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
    "sleeping threads": (
        "import threading, time\nfor _ in range(9): threading.Thread(target=time.sleep, args=(99,)).start()\n"
        "threading.Event().wait()"
    ),
}


@pytest.mark.parametrize(
    ("program", "check"),
    [(program, "") for program in BOMBS.values()]
    + [
        ("def answer(x):\n    while True: pass", CHECK),
        ("def answer(x): return iter(int, 1)", CHECK),
    ],
)
def test_nothing_outlives_its_time(program: str, check: str) -> None:
    start = time.monotonic()
    outcome = sandbox.run(CALL + program, check=check, seconds=0.7)
    assert outcome.status in {"timeout", "failed"}
    assert time.monotonic() - start < 15
    assert survivors() == []
