"""Start and end of our programs: streams that accept any text, one sentence for an error, an exit code.

This module imports only the standard library, so that programs start quickly.
"""

import argparse
import errno
import io
import json
import os
import select
import sys
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final, NoReturn, TextIO

from infill.errors import InfillError

DEBUG: Final = "INFILL_DEBUG"
"""Environment variable: "1" shows the traceback of every error."""
INTERRUPTED: Final = 128 + 2
"""Exit code of a process that Ctrl-C has ended."""
READER_GONE: Final = 128 + 13
"""Exit code of a process that SIGPIPE has ended."""

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

CAUSES: Final[Mapping[int, tuple[str, str]]] = {
    errno.ENOENT: ("there is no such file or folder", "check the path"),
    errno.EISDIR: ("it is a folder", "name a file"),
    errno.ENOTDIR: ("a part of the path is a file", "name a folder"),
    errno.EEXIST: ("something else exists there", "choose another path"),
    errno.ENOTEMPTY: ("the folder is not empty", "choose another path"),
    errno.EACCES: ("permission denied", "change its permissions, or choose another path"),
    errno.EPERM: ("permission denied", "change its permissions, or choose another path"),
    errno.EROFS: ("the file system is read-only", "choose another path"),
    errno.ENOSPC: ("no space is left on the device", "free some space (the folder of TMPDIR included) and run again"),
    errno.EDQUOT: ("the disk quota is exceeded", "free some space (the folder of TMPDIR included) and run again"),
    errno.EFBIG: ("the file would be too large", "choose another file system, or raise ulimit -f"),
    errno.EIO: ("the device failed", "check the disk or the network drive"),
    errno.ELOOP: ("its symbolic links are circular", "correct the link"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter path"),
    errno.EXDEV: ("it is on another file system", "choose a path on the same one"),
    errno.EMFILE: ("too many files are open", "raise ulimit -n"),
    errno.ENFILE: ("too many files are open on this machine", "end other programs"),
    errno.ENOMEM: ("there is not enough memory", "end other programs, or choose a smaller preset"),
    errno.EADDRINUSE: ("the port is in use", "choose another --port"),
    errno.EADDRNOTAVAIL: ("this machine does not have that address", "check the host"),
    errno.ECONNREFUSED: ("connection refused", "check the address, and that the server runs"),
    errno.EPIPE: ("the other side closed the connection", "look at its log, then run again"),
    errno.ECONNRESET: ("the server closed the connection", "look at its log, then run again"),
    errno.EHOSTUNREACH: ("the host cannot be reached", "check the address and the network"),
    errno.ENETUNREACH: ("the network cannot be reached", "check the address and the network"),
    errno.ETIMEDOUT: ("the server does not answer", "check the address, and that the server runs"),
}
"""Cause and remedy of each system error, by its number."""


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a mistake as one sentence."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and the sentence."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")

    def add_subparsers(self, **settings: Any) -> Any:
        """Return argparse's action for subcommands, each of which reports its own mistakes."""
        return super().add_subparsers(**({"parser_class": _Subparser} | settings))


class _Subparser(Parser):
    """The parser of a subcommand, which reports unknown arguments itself.

    argparse leaves them to the program's parser, whose message does not name the subcommand.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown


def explain(error: BaseException) -> str | None:
    """Return one sentence about an error that the user or the machine may have caused; None for other errors."""
    if isinstance(error, InfillError):
        return str(error)
    if isinstance(error, OSError):
        return _system_error(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory: end other programs, or choose a smaller preset"
    if isinstance(error, UnicodeError):
        return f"some text is not valid {getattr(error, 'encoding', 'Unicode')} ({error}): convert the file to UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"a file is not valid JSON ({error}): write it again"
    if isinstance(error, ValueError):
        return f"{_one_line(error)} ({_place(error)}; {DEBUG}=1 shows the traceback)"
    return None


def _system_error(error: OSError) -> str:
    """Return the file, the cause and the remedy of an OSError."""
    files = " and ".join(repr(os.fsdecode(name)) for name in (error.filename, error.filename2) if _is_path(name))
    cause, remedy = CAUSES.get(error.errno or 0, (error.strerror or _one_line(error), f"{DEBUG}=1 shows the traceback"))
    return f"cannot use {files}: {cause}; {remedy}" if files else f"{cause}; {remedy}"


def _is_path(name: object) -> bool:
    return isinstance(name, str | bytes) and bool(name)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _place(error: BaseException) -> str:
    """Return an error's type and the file that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} in {os.path.basename(frames[-1].filename)}" if frames else type(error).__name__


def exit_code(error: BaseException) -> int:
    """Return the exit code of a process that ends because of `error`."""
    return error.exit_code if isinstance(error, InfillError) else InfillError.exit_code


def run(name: str, body: Callable[[], int | None]) -> int:
    """Run a program's `body`; return its exit code, by default 0.

    An error that the user can act on, or an interruption, writes one sentence to stderr that begins with `name`, and
    gives its exit code. Characters outside the terminal's encoding are written as escapes. If the reader of our output
    has gone, as in `infill ... | head -1`, the program ends silently.
    """
    _prepare_streams()
    spare_loopback(os.environ)
    try:
        code = body() or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _report(f"{name}: interrupted; run the same command again to continue", INTERRUPTED)
    except SystemExit:
        _drop_output() if _reader_is_gone() else sys.stdout.flush()
        raise
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            _drop_output()
            return READER_GONE
        sentence = explain(error)
        if sentence is None or os.environ.get(DEBUG) == "1":
            raise
        return _report(f"{name}: {sentence}", exit_code(error))
    return code


def spare_loopback(environment: MutableMapping[str, str]) -> None:
    """Add this machine to NO_PROXY, for libraries and child processes that follow the environment.

    MLflow, Kubeflow Pipelines, Ray and object stores have their own clients and may run on this machine.
    """
    no_proxy = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    names = [name.strip() for name in no_proxy.split(",") if name.strip()]
    if "*" not in names:
        environment["no_proxy"] = environment["NO_PROXY"] = ",".join(dict.fromkeys([*names, *LOOPBACK]))


def dumps(value: Any, stream: TextIO) -> str:
    """Return `value` as one line of JSON that the encoding of `stream` can represent."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def _prepare_streams() -> None:
    if sys.stdout is None:  # closed by the caller, as by >&-
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")


def _report(sentence: str, code: int) -> int:
    try:
        sys.stderr.write(f"{sentence}\n")
        sys.stderr.flush()
    except OSError:  # stderr cannot be written either
        _drop_output()
    return code


def _reader_is_gone() -> bool:
    """Return whether a pipe that we write to has lost its reader; BrokenPipeError may also come from a socket."""
    for stream in (sys.stdout, sys.stderr):
        poll = select.poll()
        try:
            poll.register(stream, 0)
        except (OSError, ValueError, TypeError):  # not a file descriptor
            continue
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            return True
    return False


def _drop_output() -> None:
    """Discard buffered output; otherwise the interpreter complains about it at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            descriptor = stream.fileno()
        except (OSError, ValueError):
            continue
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
