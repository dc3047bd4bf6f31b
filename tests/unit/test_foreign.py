"""Whatever a foreign file is or holds becomes its contents or one error with a reason."""

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from infill.foreign import NotRegularError, UnreadableError, parse, read_bytes


def test_regular_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abcdef")
    contents = read_bytes(tmp_path / "a", 4)
    assert contents.data == b"abcd"
    assert contents.status.st_size == 6
    assert read_bytes(tmp_path / "a").data == b"abcdef"


def test_links_are_followed_on_request_only(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "loop").symlink_to("loop")
    assert read_bytes(tmp_path / "link", follow_links=True).data == b"abc"
    for name, follow in (("link", False), ("loop", False), ("loop", True)):
        with pytest.raises(UnreadableError, match="cannot be read: Too many levels of symbolic links"):
            read_bytes(tmp_path / name, follow_links=follow)


def test_pipes_folders_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(NotRegularError, match="not a regular file"):
            read_bytes(path)
    with pytest.raises(UnreadableError, match=r"cannot be read: (Is a directory|not a regular file)"):
        read_bytes(tmp_path)
    with pytest.raises(UnreadableError, match="cannot be read: No such file"):
        read_bytes(tmp_path / "none")


def fail(text: str) -> None:
    raise KeyError(text)


@pytest.mark.parametrize(
    ("parser", "text", "reason"),
    [
        (json.loads, "[" * 100_000, "not valid: RecursionError"),
        (tomllib.loads, "a = " + "[" * 100_000, "not valid: RecursionError"),
        (json.loads, "{", "not valid: JSONDecodeError: Expecting"),
        (fail, "x", "not valid: KeyError: 'x'"),
    ],
)
def test_whatever_a_parser_raises_is_one_error(parser: Callable[[str], object], text: str, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        parse(parser, text)
