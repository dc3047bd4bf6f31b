"""The boundary to other people's files: whatever they hold costs that file, never the run.

`read_bytes` opens nothing that could block or lead elsewhere; `parse` turns everything that a parser raises into one
error with a reason. Text is decoded by `infill.text`, ignore rules are read by `infill.gitignore`.
"""

import os
import stat
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class UnreadableError(ValueError):
    """A file that someone else wrote cannot be used; the message is the reason, without the file's name."""


class NotRegularError(UnreadableError):
    """A folder, a pipe, a socket or a device stands where a file is expected."""


class Contents(NamedTuple):
    data: bytes
    status: os.stat_result
    """From before the reading."""


def read_bytes(path: str | os.PathLike[str], limit: int = -1, *, follow_links: bool = False) -> Contents:
    """Return the bytes of a regular file, at most the first `limit` where one is given.

    Never waits for a pipe, and follows a symbolic link at `path` only when told to. Raises UnreadableError for whatever
    cannot be read.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise NotRegularError("cannot be read: not a regular file")
            return Contents(file.read(limit), status)
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}") from error


def parse(parser: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
    """Return what `parser` makes of a foreign text. Raises UnreadableError for whatever the parser raises.

    Parsers of other projects raise more on hostile text than they document (RecursionError on deep nesting, KeyError,
    IndexError, AssertionError, UnicodeDecodeError), so every Exception counts as the text's fault here. Hand over the
    parser alone, not code of ours, whose defects would be hidden.
    """
    try:
        return parser(*args, **kwargs)
    except Exception as error:
        message = str(error).partition("\n")[0]
        raise UnreadableError(f"not valid: {type(error).__name__}{': ' * bool(message)}{message}") from error
