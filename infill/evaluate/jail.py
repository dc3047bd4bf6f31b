"""The inside of the sandbox: a script that isolates itself from the machine and then runs a program.

`sandbox.run` starts it as `python -I -S -B jail.py REQUEST VERDICT` with two file descriptors. REQUEST has a line of
JSON, followed by a nonce that is read and sent to VERDICT only when the program has run to its end. The script uses
only the standard library, since it may be started by an interpreter without our packages.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, Final

NOBODY: Final = 65_534
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x0002_0000, 0x0400_0000, 0x0800_0000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x1000_0000, 0x2000_0000, 0x4000_0000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4_096, 16_384, 1 << 18
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CAPABILITY_VERSION_3: Final = 0x2008_0522
UNAVAILABLE: Final = 90
"""Exit status if this machine does not allow isolating the program."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: Any) -> None:
    """Call a function of the C library that returns 0 or sets errno. Raises OSError for the latter."""
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    _call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())


def isolate(root: str) -> None:
    """Enter new namespaces without a network, and a root directory with only Python and an empty `/tmp`."""
    user, group = os.getuid(), os.getgid()
    spaces = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    _call("unshare", spaces if user == 0 else spaces | CLONE_NEWUSER)
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{NOBODY} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{NOBODY} {group} 1", encoding="ascii")
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=32m,mode=755")
    for folder in {"/usr", "/lib", "/lib64", sys.base_prefix}:
        if os.path.isdir(folder):
            _show(folder, root + folder)
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


def drop_rights(*, isolated: bool) -> None:
    """Give up user and capabilities, and the ways to regain them; die with the parent."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    if isolated:
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        _call("capset", header, (ctypes.c_uint32 * 6)())
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def limit(seconds: int, memory: int) -> None:
    """Limit processor time in seconds, memory in bytes, files and processes."""
    for name, value in {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: 16 << 20,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_NPROC: 64,
        resource.RLIMIT_CORE: 0,
    }.items():
        hard = resource.getrlimit(name)[1]
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (allowed, allowed))


def main(request_file: int, verdict_file: int) -> int:
    """Run the requested program in a child; return its exit status."""
    with os.fdopen(os.dup(request_file), "rb", closefd=True) as file:
        request = json.loads(file.readline())
        position = file.tell()
    try:
        if request["isolated"]:
            isolate(request["root"])
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return UNAVAILABLE
    child = os.fork()
    if child == 0:
        limit(request["seconds"], request["memory"])
        drop_rights(isolated=request["isolated"])
        exec(compile(request["program"], "program.py", "exec"), {"__name__": "__main__"})
        os.lseek(request_file, position, os.SEEK_SET)
        os.write(verdict_file, os.read(request_file, 64))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(abs(main(int(sys.argv[1]), int(sys.argv[2]))))
