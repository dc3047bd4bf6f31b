"""Ignore rules decide as git does, whatever bytes the file has."""

import os
import random
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.gitignore import IgnoreRules, load

FILES = (
    *("a", "b", "ab", ".a", "a.b", "a b", "#a", "!a", "a*", "a\\b", "[a", "a+b", "-", "{a,b}", "é", "line\nfeed", "c "),
    *("d/a", "d/x", "d/ab", "d/a.b", "d/e/b", "d/e/f/a", "d/e/f/x", "g/a", "g/d/a", "g/d/e/ab"),
)
"""In each folder that git is asked about."""
ODD = (
    *(
        b"\\",
        b"!",
        b"**",
        b"[",
        b"]",
        b"a/**b",
        b"[z-a]",
        b"a\\ ",
        b"a \\",
        b"c\\ ",
        b"c\\  ",
        b"a  ",
        b"a\t",
        b"/",
        b"//",
    ),
    *(b"!/", b"#a", b"\\#a", b"\\!a", b"!!a", b"[]a]", b"[!]a]", b"[^a]", b"[a-]", b"[a-", b"[a\\]", b"[[:alpha:]]"),
    *(
        b"[[:alpha:]",
        b"[[:none:]]",
        b"[[:]",
        b"[[::]]",
        b"[[a]",
        b"[\\a-b]",
        b"[-a]",
        b"[!-~]",
        b"?",
        b"\xff",
        b"[\xc3]",
    ),
    *(
        b"a\0b",
        b"\0",
        b"a\r",
        b"\ra",
        b"a\r\r",
        b"d/",
        b"/d/",
        b"d/*",
        b"d/**",
        b"**/a",
        b"/**/a",
        b"d/**/a",
        b"**/d/**",
    ),
    *(
        b"d**/a",
        b"d**",
        b"g/d**",
        b"/d**/a",
        b"***/a",
        b"d/***/a",
        b"**\\/a",
        b"*/a",
        b"/*/a",
        b"d\\/a",
        b"d[/]a",
        b"x" * 9_000,
    ),
    *(
        b"*\n!a",
        b"*\n!d/\n!d/a",
        b"d\n!d/a",
        b"a\n!a\na",
        b"*.b",
        b"*a*",
        b"*e*/",
        b"\xef\xbb\xbfa",
        b"a\n\xef\xbb\xbfb",
    ),
)
PARTS = (
    *(
        b"a",
        b"b",
        b"d",
        b"e",
        b"*",
        b"**",
        b"?",
        b"/",
        b"\\",
        b"!",
        b"[",
        b"]",
        b"[a-b]",
        b"[!a]",
        b"[z-a]",
        b"[[:alpha:]]",
    ),
    *(
        b"#",
        b" ",
        b"\t",
        b"\r",
        b".",
        b"**/",
        b"/**",
        b"-",
        b"[a-]",
        b"{a,b}",
        b"+",
        b"\n",
        b"\n!",
        "é".encode(),
        b"\xc3",
    ),
)


def check(root: Path, rules: list[bytes]) -> None:
    """Compare the verdicts on FILES with git's, for each rule file in a folder of its own."""
    for number, rule in enumerate(rules):
        for file in FILES:
            path = root / str(number) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        (root / str(number) / ".gitignore").write_bytes(rule)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    asked = "\0".join(f"{number}/{file}" for number in range(len(rules)) for file in FILES)
    command = ["git", "-C", str(root), "-c", "core.excludesFile=", "check-ignore", "--no-index", "--stdin", "-z"]
    answer = subprocess.run(command, input=os.fsencode(asked), capture_output=True, check=True).stdout
    ignored = set(os.fsdecode(answer).split("\0"))
    for number, rule in enumerate(rules):
        ours = IgnoreRules(rule)
        expected = {file for file in FILES if f"{number}/{file}" in ignored}
        assert (rule, {file for file in FILES if ours.ignore(file)}) == (rule, expected)


def test_odd_rules_mean_what_they_mean_to_git(tmp_path: Path) -> None:
    check(tmp_path, list(ODD))


def test_random_rules_mean_what_they_mean_to_git(tmp_path: Path) -> None:
    chosen = random.Random(0)
    check(tmp_path, [b"".join(chosen.choices(PARTS, k=chosen.randint(1, 8))) for _ in range(150)])


@given(data=st.binary() | st.lists(st.sampled_from(PARTS), max_size=60).map(b"".join), path=st.sampled_from(FILES))
def test_any_bytes_are_rules(data: bytes, path: str) -> None:
    IgnoreRules(data).ignore(path)


def test_rules_in_utf16_say_what_their_text_says() -> None:
    assert IgnoreRules("secret.py\r\n".encode("utf-16")).ignore("secret.py")


def test_names_that_are_not_utf8_are_compared_byte_by_byte() -> None:
    assert IgnoreRules(b"caf\xe9\n").ignore(os.fsdecode(b"caf\xe9"))


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            b"*a" * 12 + b"b",
            b"x/" + b"**/" * 20 + b"y",
            b"/" + b"*a*a/" * 6 + b"b",
            b"a/**/" + b"*a*a*a/**/" * 6 + b"q",
        ),
        *(b"[[:" * 2_000, b"[^a]" * 2_000, b"*a" * 500_000, b"[" * 900_000),
    ],
)
def test_hostile_patterns_take_little_time(pattern: bytes) -> None:
    start = time.process_time()
    rules = IgnoreRules(pattern)
    for path in ("a" * 250, "x/" * 1_000 + "z", "a/" + "/".join(["aaaaaaaab"] * 300)):
        rules.verdict(path, folder=False)
    assert time.process_time() - start < 2


def test_what_cannot_be_read_holds_no_rules(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "file").write_text("a\n")
    (tmp_path / "folder").mkdir()
    assert [load(tmp_path / name) for name in ("pipe", "link", "folder", "none")] == [None] * 4
    followed = load(tmp_path / "link", follow_links=True)
    assert followed is not None
    assert followed.ignore("a")
