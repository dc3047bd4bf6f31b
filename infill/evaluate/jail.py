"""The inside of the sandbox: a script that isolates itself from the machine and then runs a program.

`sandbox.run` starts it as `python -I -S -B jail.py REQUEST VERDICT` with two file descriptors. Three processes share
the work:

- the *starter* enters the namespaces and waits;
- the *supervisor*, process 1 of the new namespace, holds the nonce and runs the check. When it ends, the kernel kills
  every other process of the namespace;
- the *runner* runs the program, which nobody trusts, and then answers the check's calls. It has no more than two pipes
  to the supervisor: no nonce, no verdict, no check.

The script uses only the standard library, since it may be started by an interpreter without our packages.
"""

import builtins
import contextlib
import ctypes
import fcntl
import json
import os
import resource
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

NOBODY: Final = 65_534
SPARE_USERS: Final = 2_000_000_000
"""From here on, root takes a user of its own for each jail, so that their limits do not add up."""
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x0002_0000, 0x0400_0000, 0x0800_0000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x1000_0000, 0x2000_0000, 0x4000_0000
CLONE_THREAD: Final = 0x0001_0000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4_096, 16_384, 1 << 18
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_SET_NO_NEW_PRIVS = 1, 4, 15, 16, 38
CAPABILITY_VERSION_3: Final = 0x2008_0522
UNAVAILABLE: Final = 90
"""Exit status if this machine does not allow isolating the program."""
GRACE: Final = 10
"""Seconds after the time limit at which the starter ends by itself, if whoever started it did not end it."""
LONGEST_MESSAGE: Final = 16 << 20
SHOWN_BYTES: Final = 2_000
"""Of what a command writes to standard error."""
DESCRIPTORS: Final = 1 << 20
"""Above every number that an open file may have."""

ALLOWED: Final = """
    access alarm arch_prctl brk chdir chmod clock_getres clock_gettime clock_nanosleep close close_range
    copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait
    eventfd eventfd2 exit exit_group faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fcntl
    fdatasync flock fstat fstatfs fsync ftruncate futex get_robust_list getcwd getdents getdents64 getegid geteuid
    getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getrandom getresgid getresuid getrlimit
    getrusage getsid getsockname getsockopt gettid gettimeofday getuid ioctl link linkat lseek lstat madvise
    membarrier mincore mkdir mkdirat mmap mprotect mremap msync munmap nanosleep newfstatat open openat pause pipe
    pipe2 poll ppoll pread64 preadv prlimit64 pselect6 pwrite64 pwritev read readlink readlinkat readv recvfrom
    recvmsg rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_get_priority_max sched_get_priority_min sched_getaffinity
    sched_getparam sched_getscheduler sched_yield select sendfile sendmsg sendto set_robust_list set_tid_address
    setitimer setsockopt shutdown sigaltstack stat statfs statx symlink symlinkat sysinfo timerfd_create
    timerfd_gettime timerfd_settime times truncate umask uname unlink unlinkat utime utimensat utimes wait4 waitid
    write writev
"""
"""System calls of a Python program in one process, with threads, files and pipes. Others do not exist for it."""
OF_TOOLS: Final = "execve fork vfork kill mlock munlock sched_setaffinity setrlimit tgkill tkill"
"""Those that compilers and virtual machines need besides: other processes, in the same namespaces."""
NEW_NAMESPACES: Final = 0x7E02_0080
"""The flags of `clone` that make namespaces."""
DEEP_STACK: Final = 256 << 20
"""Bytes of stack of a compiled program: recursion is usual in contests."""

_libc: Final = ctypes.CDLL(None, use_errno=True)
SCMP_ACT_ALLOW, SCMP_ACT_ERRNO, ENOSYS = 0x7FFF_0000, 0x0005_0000, 38
SCMP_CMP_EQ, SCMP_CMP_MASKED_EQ = 4, 7


class UnavailableError(Exception):
    """A layer of the isolation that this machine does not offer."""


def _call(name: str, *arguments: Any) -> None:
    """Call a function of the C library that returns 0 or sets errno. Raises OSError for the latter."""
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    _call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())


def isolate(root: str, folders: Sequence[str] = ()) -> None:
    """Enter new namespaces without a network, and a root directory: Python, `folders`, `/dev/null`, an empty `/tmp`."""
    user, group = os.getuid(), os.getgid()
    spaces = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    _call("unshare", spaces if user == 0 else spaces | CLONE_NEWUSER)
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{NOBODY} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{NOBODY} {group} 1", encoding="ascii")
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=32m,nr_inodes=4096,mode=755")
    for folder in {"/usr", "/lib", "/lib64", sys.base_prefix, *folders}:
        if os.path.isdir(folder):
            _show(folder, root + folder)
    os.mkdir(root + "/dev")
    Path(root + "/dev/null").touch()
    _mount("/dev/null", root + "/dev/null", "", MS_BIND)  # Java opens it when a program closes its standard input
    os.mkdir(root + "/tmp")
    os.chmod(root + "/tmp", 0o777)
    os.chroot(root)
    os.chdir("/tmp")


def _show(folder: str, target: str) -> None:
    """Mount `folder` read-only at `target`, with its existing restrictions."""
    os.makedirs(target, exist_ok=True)
    _mount(folder, target, "", MS_BIND | MS_REC)
    had = os.statvfs(target).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)
    _mount("none", target, "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | had)


def spare_user() -> int:
    """Return the user that root becomes: one of its own for each jail if this is not itself in a user namespace."""
    try:
        first = Path("/proc/self/uid_map").read_bytes().split()
    except OSError:
        return NOBODY
    return SPARE_USERS + secrets.randbelow(1 << 24) if first == [b"0", b"0", b"4294967295"] else NOBODY


def drop_rights(user: int, *, isolated: bool) -> None:
    """Give up user and capabilities, and the ways to regain them; die with the parent; refuse tracing and core dumps.

    A process in a chroot cannot create user namespaces, so it does not get capabilities that way either.
    """
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(user, user, user)
    if isolated:
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        _call("capset", header, (ctypes.c_uint32 * 6)())
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def limit(seconds: int, memory: int, reserved: int) -> None:
    """Limit processor time in seconds, memory and address space in bytes, files, threads and processes."""
    for name, value in {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_DATA: memory,
        resource.RLIMIT_AS: max(memory, reserved),
        resource.RLIMIT_FSIZE: 16 << 20,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_NPROC: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }.items():
        hard = resource.getrlimit(name)[1]
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (allowed, allowed))


class _Comparison(ctypes.Structure):
    """A condition on an argument of a system call (`struct scmp_arg_cmp`)."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class SystemCalls:
    """A filter of system calls, built by libseccomp: what is not allowed does not exist (ENOSYS)."""

    def __init__(self) -> None:
        """Start with nothing allowed. Raises UnavailableError without libseccomp."""
        try:
            self.library = ctypes.CDLL("libseccomp.so.2")
        except OSError as error:
            raise UnavailableError("libseccomp.so.2 is not installed") from error
        self.library.seccomp_init.restype = ctypes.c_void_p
        self.filter = ctypes.c_void_p(self.library.seccomp_init(SCMP_ACT_ERRNO | ENOSYS))
        if not self.filter:
            raise UnavailableError("libseccomp cannot make a filter for this machine")

    def allow(self, name: str, *conditions: _Comparison) -> None:
        """Allow a system call if its arguments meet all conditions; do nothing if this machine has no such call."""
        number = self.library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            array = (_Comparison * len(conditions))(*conditions)
            self.library.seccomp_rule_add_array(self.filter, SCMP_ACT_ALLOW, number, len(conditions), array)

    def enforce(self) -> None:
        """Hold this process and its threads to the filter forever. Raises UnavailableError if the kernel has none."""
        code = self.library.seccomp_load(self.filter)
        if code:
            raise UnavailableError(f"the kernel takes no filter of system calls ({os.strerror(-code)})")


def filter_system_calls(*, tools: bool = False) -> None:
    """Allow this process only ALLOWED, threads, and signals to itself; with `tools`, other processes and theirs too.

    Raises UnavailableError if it cannot be.
    """
    calls, own = SystemCalls(), os.getpid()
    for name in f"{ALLOWED} {OF_TOOLS if tools else ''}".split():
        calls.allow(name)
    if tools:
        calls.allow("clone", _Comparison(0, SCMP_CMP_MASKED_EQ, NEW_NAMESPACES, 0))
    else:
        calls.allow("clone", _Comparison(0, SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD))
        for name in ("kill", "tgkill"):
            calls.allow(name, _Comparison(0, SCMP_CMP_EQ, own, 0))
    calls.allow("socketpair", _Comparison(0, SCMP_CMP_EQ, 1, 0))  # AF_UNIX: the self-pipe of asyncio
    for option in (PR_SET_NAME, PR_GET_NAME):
        calls.allow("prctl", _Comparison(0, SCMP_CMP_EQ, option, 0))
    calls.enforce()


class Channel:
    """Messages between supervisor and runner: JSON, preceded by its length."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing = reading, writing

    def send(self, value: Any) -> None:
        """Send a value of JSON's types."""
        text = json.dumps(value).encode()
        data = b"%08x" % len(text) + text
        while data:
            data = data[os.write(self.writing, data) :]

    def receive(self) -> Any:
        """Return the next value. Raises EOFError at the end, ValueError when it is not one or is too long."""
        length = int(self._read(8), 16)
        if not 0 <= length <= LONGEST_MESSAGE:
            raise ValueError(f"a message must have at most {LONGEST_MESSAGE} bytes, got {length}")
        return json.loads(self._read(length))

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = os.read(self.reading, min(size - len(data), 1 << 16))
            if not part:
                raise EOFError("the program ended before its check")
            data += part
        return data


class Opaque:
    """A value of a type that does not travel between the processes; it equals nothing else."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<a value of the type {self.kind}>"


MAKERS: Final[dict[str, Callable[[Any], Any]]] = {
    "int": lambda text: int(text, 16),
    "complex": lambda parts: complex(*parts),
    "bytes": bytes.fromhex,
    "tuple": lambda parts: tuple(map(unpack, parts)),
    "set": lambda parts: set(map(unpack, parts)),
    "frozenset": lambda parts: frozenset(map(unpack, parts)),
    "dict": lambda pairs: {unpack(key): unpack(value) for key, value in pairs},
    "range": lambda ends: range(*ends),
    "iterator": lambda parts: iter(list(map(unpack, parts))),
    "object": lambda kind: Opaque(str(kind)),
}
"""The makers of values that JSON does not know, by the name of their type."""


def pack(value: Any) -> Any:
    """Return the value as JSON's types; a subclass counts as its base, and iterators as their values."""
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < 1 << 62 else {"int": hex(value)}
    if isinstance(value, list):
        return [pack(each) for each in value]
    if isinstance(value, dict):
        return {"dict": [[pack(key), pack(each)] for key, each in value.items()]}
    for kind in (tuple, set, frozenset):
        if isinstance(value, kind):
            return {kind.__name__: [pack(each) for each in value]}
    return _pack_rare(value)


def _pack_rare(value: Any) -> Any:
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": value.hex()}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if hasattr(value, "__next__"):
        return {"iterator": [pack(each) for each in value]}
    return {"object": type(value).__name__}


def unpack(value: Any) -> Any:
    """Return the value that `pack` packed. It has only plain types: unpacking runs nobody's code."""
    if isinstance(value, list):
        return [unpack(each) for each in value]
    if isinstance(value, dict):
        ((kind, content),) = value.items()
        return MAKERS[kind](content)
    return value


class RemoteError(Exception):
    """An exception of a type that is not Python's own, raised by the program."""


def remote(channel: Channel, name: str) -> Callable[..., Any]:
    """Return a function that calls the program's function `name` with copies of the arguments."""

    def call(*arguments: Any, **named: Any) -> Any:
        channel.send({"name": name, "arguments": pack(list(arguments)), "named": pack(named)})
        answer = channel.receive()
        if "error" in answer:
            raise _exception(str(answer["error"]))(str(answer["text"]))
        return unpack(answer["value"])

    return call


def _exception(name: str) -> type[Exception]:
    """Return Python's own exception of that name, or RemoteError."""
    kind = getattr(builtins, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else RemoteError


def run(program: str, channel: Channel) -> None:
    """Run the program in this process, then answer calls of its functions until the supervisor ends it."""
    own, names = os.getpid(), dict[str, Any](__name__="__main__")
    exec(compile(program, "program.py", "exec"), names)
    if os.getpid() == own:  # and not in a child of the program
        _serve(names, channel)


def _serve(names: Mapping[str, Callable[..., Any]], channel: Channel) -> None:
    """Say that the program has ended, and answer the check's calls until the supervisor ends this process."""
    with contextlib.suppress(EOFError):
        channel.send({"ended": channel.receive()["question"]})
        while True:
            channel.send(_answer(names, channel.receive()))


def run_tools(program: str, tools: Mapping[str, Any], channel: Channel) -> None:
    """Build `program`, then answer calls of `output`: what it writes if a text is its standard input.

    Raises RuntimeError when it cannot be built.
    """
    Path(tools["file"]).write_text(program, encoding="utf-8")
    variables = {**os.environ, **tools["environment"]}
    _output(tools["build"], "", variables)
    resource.setrlimit(resource.RLIMIT_STACK, (DEEP_STACK, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    _serve({"output": lambda text: _output(tools["start"], text, variables)}, channel)


def _output(command: Sequence[str], text: str, variables: Mapping[str, str]) -> str:
    """Return what a command writes; a file takes it, since files have a limit of size. Raises RuntimeError."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as written, tempfile.TemporaryFile() as errors:
        given.write(text.encode())
        given.seek(0)
        done = subprocess.run(command, stdin=given, stdout=written, stderr=errors, env=variables, check=False)
        written.seek(0)
        errors.seek(0)
        if done.returncode != 0:
            words = errors.read(SHOWN_BYTES) or written.read(SHOWN_BYTES)
            raise RuntimeError(f"exit status {done.returncode}: {words.decode(errors='replace')}")
        return written.read(LONGEST_MESSAGE // 8).decode(errors="replace")


def _answer(names: Mapping[str, Callable[..., Any]], call: dict[str, Any]) -> dict[str, Any]:
    try:
        result = names[call["name"]](*unpack(call["arguments"]), **unpack(call["named"]))
        return {"value": pack(result)}
    except BaseException as error:
        return {"error": type(error).__name__, "text": str(error)}


def check(text: str, channel: Channel) -> None:
    """Run the check, after the program has ended; it calls the program's functions as `remote("name")`.

    Raises whatever the check raises, and EOFError or ValueError if the program did not end properly.
    """
    question = secrets.token_hex(16)
    channel.send({"question": question})
    if channel.receive() != {"ended": question}:
        raise ValueError("the program did not run to its end")
    names = {"__name__": "__main__", "remote": lambda name: remote(channel, name)}
    exec(compile(text, "check.py", "exec"), names)


def supervise(request: dict[str, Any], trusted_part: Channel, verdict: int, starter: int) -> int:
    """Start the runner, run the check, and send the nonce to `verdict` if both ended well; return the exit status.

    Check and nonce are read only when the runner is another process, so they are nowhere in its memory. The first line
    of the verdict names the layers of isolation that this machine does not offer, with the reason.
    """
    tools = request["tools"]
    limit(request["seconds"], tools["memory"] if tools else request["memory"], tools["reserved"] if tools else 0)
    drop_rights(request["user"], isolated=request["isolated"])
    if select.select([starter], [], [], 0)[0]:
        return 1  # the starter died before the kernel knew that this process must die with it
    channel = _start_runner(request["program"], tools)
    trusted = trusted_part.receive()
    try:
        os.write(verdict, json.dumps(channel.receive()).encode() + b"\n")
        check(trusted["check"], channel)
    except (EOFError, BrokenPipeError):
        return 1  # the runner has written why
    except BaseException as error:
        _explain(error)
        return 1
    os.write(verdict, trusted["nonce"].encode())
    return 0


def _explain(error: BaseException) -> None:
    """Write the traceback from where the program or its check begins."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    traceback.print_exception(error.with_traceback(frames))


def _start_runner(program: str, tools: Mapping[str, Any] | None) -> Channel:
    """Run `program` in a child of this process; return the channel to it."""
    (asked, ask), (answers, answer) = os.pipe(), os.pipe()
    if os.fork() == 0:
        try:
            _keep_only(asked, answer)
            _be_runner(program, tools, Channel(3, 4))
        except BaseException as error:
            _explain(error)
        finally:
            os._exit(1)
    os.close(asked)
    os.close(answer)
    return Channel(answers, ask)


def _keep_only(reading: int, writing: int) -> None:
    """Make the two descriptors 3 and 4, and close all others but the standard streams."""
    reading, writing = (fcntl.fcntl(each, fcntl.F_DUPFD, 5) for each in (reading, writing))
    os.dup2(reading, 3)
    os.dup2(writing, 4)
    os.closerange(5, DESCRIPTORS)


def _be_runner(program: str, tools: Mapping[str, Any] | None, channel: Channel) -> None:
    """Give up system calls, say which layers are missing, and run `program`; die with the supervisor."""
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    missing = {}
    try:
        filter_system_calls(tools=tools is not None)
    except UnavailableError as error:
        missing["seccomp"] = str(error)
    channel.send(missing)
    if tools is None:
        run(program, channel)
    else:
        run_tools(program, tools, channel)


def main(request_file: int, verdict_file: int) -> int:
    """Run the requested program in a child; return its exit status."""
    asked = Channel(request_file, -1)
    request = {**asked.receive(), "user": spare_user()}
    try:
        if request["isolated"]:
            isolate(request["root"], (request["tools"] or {}).get("folders", ()))
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return UNAVAILABLE
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    starter, held = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(held)
        os._exit(supervise(request, asked, verdict_file, starter))
    os.close(verdict_file)
    signal.alarm(request["seconds"] + GRACE)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(abs(main(int(sys.argv[1]), int(sys.argv[2]))))
