"""Safe access to files from others: a bad file is skipped with a reason and never ends the run.

`read_bytes` opens only regular files, so it never blocks; `parse` turns any exception of a parser into one error with a
reason. `infill.text` decodes text, `infill.gitignore` reads ignore rules.
"""

import os
import stat
import tomllib
from collections.abc import Callable
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from infill.text import split_lines

MAX_DOTS: Final = 1_000
"""The most dots in a line of TOML: the standard parser's time grows with the square of the parts of a dotted key."""
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class UnreadableError(ValueError):
    """A file from others that cannot be used; the message is the reason, without the file's name."""


class NotRegularError(UnreadableError):
    """A folder, a pipe, a socket or a device in the place of a file."""


class FileContents(NamedTuple):
    data: bytes
    status: os.stat_result
    """The file's status before it was read."""


def read_bytes(path: str | os.PathLike[str], limit: int = -1, *, follow_links: bool = False) -> FileContents:
    """Return the bytes of a regular file, at most the first `limit` if that is not negative.

    Never waits for a pipe, and follows a symbolic link at `path` only with `follow_links`. Raises UnreadableError when
    the file cannot be read.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise NotRegularError("cannot be read: not a regular file")
            return FileContents(file.read(limit), status)
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}") from error


def parse(parser: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
    """Return the result of `parser` for a foreign text. Raises UnreadableError when the parser raises anything.

    On hostile text, parsers of other projects raise more than they document (RecursionError on deep nesting, KeyError,
    IndexError, AssertionError, UnicodeDecodeError), so every Exception counts as the text's fault. Pass the parser
    itself, not code of ours, whose defects would be hidden.
    """
    try:
        return parser(*args, **kwargs)
    except Exception as error:
        message = str(error).partition("\n")[0]
        raise UnreadableError(f"not valid: {type(error).__name__}{': ' * bool(message)}{message}") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Return the table in a foreign TOML file. Raises UnreadableError where it is not one, or a key is hostile."""
    if any(line.count(".") > MAX_DOTS for line in split_lines(text)):
        raise UnreadableError(f"a line has more than {MAX_DOTS} dots")
    return parse(tomllib.loads, text)
