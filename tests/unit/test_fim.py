import argparse
import io
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill import fim, fim_show, syntax
from infill.errors import InputError
from tests.golden import splits

SAMPLES = {language: text for _, language, text in splits.samples()}
CONFIG = fim.SplitConfig()
LONG = Path(argparse.__file__).read_text(encoding="utf-8")
"""A long file in Python: 100 kB."""


def holes(
    text: str, language: str = "python", config: fim.SplitConfig = CONFIG, *, seed: int = 0, n: int = 20
) -> list[fim.Hole]:
    return fim.syntactic_holes(text, language, config, seed=seed, epoch=0, document="a", n=n)


def only(kind_start: str, kind_end: str, **others: float) -> fim.SplitConfig:
    return fim.SplitConfig(start=((kind_start, 1.0),), end=((kind_end, 1.0),), **others)  # type: ignore[arg-type]


def middles(text: str, config: fim.SplitConfig, language: str = "python") -> set[str]:
    """The middles of a short text, over some seeds."""
    cuts = [hole for seed in range(20) for hole in holes(text, language, config, seed=seed)]
    return {text[hole.start : hole.end] for hole in cuts}


def line_before(text: str, offset: int) -> str:
    """Return the part of the line before an offset."""
    return text[:offset].replace("\r", "\n").rpartition("\n")[2]


def line_after(text: str, offset: int) -> str:
    return text[offset:].replace("\r", "\n").partition("\n")[0]


def is_of_kind(text: str, offset: int, kind: str, *, is_end: bool) -> bool:
    """Whether a boundary is what its kind says; of "block" only that it is next to code, of "random" nothing."""
    if kind == fim.RANDOM:
        return True
    before, after = line_before(text, offset), line_after(text, offset)
    if kind == fim.LINE_START:
        return not before.strip(" \t") or (is_end and not after.strip())
    if kind == fim.LINE_MIDDLE:
        return bool(before.strip(" \t") and after.strip())
    inner, outer = (
        (text[offset - 1], text[offset : offset + 1]) if is_end else (text[offset], text[offset - 1 : offset])
    )
    if kind == fim.TOKEN_MIDDLE:
        return syntax.is_word(inner) and bool(outer) and syntax.is_word(outer)
    return not inner.isspace()


def check(text: str, hole: fim.Hole, config: fim.SplitConfig = CONFIG) -> None:
    prefix, middle, suffix = text[: hole.start], text[hole.start : hole.end], text[hole.end :]
    assert prefix + middle + suffix == text
    assert 0 < len(middle) <= config.max_middle_chars
    assert middle.strip()
    assert is_of_kind(text, hole.start, hole.kind_start, is_end=False), (hole, middle)
    assert is_of_kind(text, hole.end, hole.kind_end, is_end=True), (hole, middle)
    assert hole.unit in {*fim.UNITS, fim.RANDOM}
    for left, right in ((prefix, middle), (middle, suffix)):
        assert not (left.endswith("\r") and right.startswith("\n"))


SPACES = ("\n", "\r\n", "\r", "\t", " ", "    ", "\x0c", "\u2028", "\u00a0")
CHARACTERS = ("\0", "\ufeff", "\ud800", "é", "e\u0301", "漢字", "👩\u200d👩\u200d👧", "👍🏽")
ODD = st.sampled_from([*SPACES, *CHARACTERS, *"(){}[]\"'`<>=x#\\", "if", "/*"])


@st.composite
def edited(draw: st.DrawFn) -> tuple[str, str]:
    """A language, and its sample with other line ends, strange characters, and pieces put in and taken out."""
    language = draw(st.sampled_from(syntax.LANGUAGES))
    text = draw(st.sampled_from(["", "\ufeff"])) + SAMPLES[language].replace(
        "\n", draw(st.sampled_from(["\n", "\r\n", "\r"]))
    )
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(ODD | st.text(max_size=5)) + text[at + draw(st.integers(0, 3)) :]
    return language, text


@given(edited(), st.integers(0, 2**31))
def test_holes_of_any_text(case: tuple[str, str], seed: int) -> None:
    language, text = case
    cuts = holes(text, language, seed=seed, n=8)
    source = syntax.ParsedSource(text, language)
    for hole in cuts:
        check(text, hole)
        assert source.is_sound(hole.start, hole.end)
        assert fim.is_caret(text, hole.start)
        assert fim.is_caret(text, hole.end)
    assert len({(hole.start, hole.end) for hole in cuts}) == len(cuts)


@given(st.sampled_from(syntax.LANGUAGES), st.text())
def test_nonsense_costs_nothing(language: str, text: str) -> None:
    for hole in holes(text, language, n=2):
        check(text, hole)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("language", syntax.LANGUAGES)
@pytest.mark.parametrize("start", fim.KINDS)
def test_each_pair_of_kinds_in_each_language(language: str, start: str, line_end: str) -> None:
    text = SAMPLES[language].replace("\n", line_end)
    for end in fim.KINDS:
        config = only(start, end)
        cuts = holes(text, language, config, n=6)
        assert len(cuts) == 6
        for hole in cuts:
            assert (hole.kind_start, hole.kind_end) == (start, end)
            check(text, hole)


@pytest.mark.parametrize("language", syntax.LANGUAGES)
def test_block_boundaries_are_boundaries_of_nodes(language: str) -> None:
    text = SAMPLES[language]
    starts, ends = set(), set()
    pending = [syntax.ParsedSource(text, language).root]
    while pending:
        node = pending.pop()
        pending += node.children
        start, end = (len(text.encode()[:byte].decode()) for byte in node.byte_range)
        starts.add(start)
        ends.add(start + len(text[start:end].rstrip()))
    for hole in holes(text, language, only(fim.BLOCK, fim.BLOCK), n=40):
        assert hole.start in starts
        assert hole.end in ends


def test_complete_units_are_what_their_names_say() -> None:
    text = "def f(a, b=1):\n    x = g(a, [b])\n    return x\n"
    cuts = holes(text, config=only(fim.BLOCK, fim.BLOCK, aligned_share=0.0), n=30)
    assert {(hole.unit, text[hole.start : hole.end]) for hole in cuts} == {
        ("function", text.rstrip()),
        ("arguments", "a, b=1"),
        ("arguments", "a, [b]"),
        ("block", "x = g(a, [b])\n    return x"),
        ("statement", "x = g(a, [b])"),
        ("statement", "return x"),
    }


def test_body_of_braces_is_what_stands_between_them() -> None:
    text = "function f() {\n  g();\n}\n"
    cuts = holes(text, "javascript", only(fim.BLOCK, fim.BLOCK, aligned_share=0.0), n=30)
    assert {text[hole.start : hole.end] for hole in cuts if hole.unit in {"block", "statement"}} == {"g();"}


def test_aligned_spans_are_runs_of_siblings() -> None:
    cuts = middles("f(aa, bb, cc)\n", only(fim.BLOCK, fim.BLOCK, aligned_share=1.0))
    runs = {"aa", "bb", "cc", "aa, bb", "bb, cc", "aa, bb, cc", "f", "(aa, bb, cc)", "f(aa, bb, cc)"}
    assert cuts == runs


def test_line_start_before_and_after_the_indentation() -> None:
    text = "def f():\n    return 1\n"
    assert middles(text, only(fim.LINE_START, fim.BLOCK, before_indent=0.0)) == {text.strip(), "return 1"}
    assert middles(text, only(fim.LINE_START, fim.BLOCK, before_indent=1.0)) == {text.strip(), "    return 1"}


def test_line_end_on_an_empty_line_and_in_front_of_a_line() -> None:
    text = "if x:\r\n    aa\r\n    bb  \r\n    cc\r\n"
    empty = middles(text, only(fim.LINE_START, fim.LINE_START, before_indent=0.0, before_line=0.0))
    front = middles(text, only(fim.LINE_START, fim.LINE_START, before_indent=0.0, before_line=1.0))
    assert {"aa", "bb", "cc", "aa\r\n    bb", "bb  \r\n    cc"} <= empty
    assert {"aa\r\n    ", "bb  \r\n    ", "cc\r\n", "aa\r\n    bb  \r\n    "} <= front
    assert not empty & front


def test_line_middle_before_and_after_the_space() -> None:
    cuts = middles("x = aa  + bb\n", only(fim.LINE_MIDDLE, fim.BLOCK))
    assert cuts == {" = aa  + bb", "= aa  + bb", " aa  + bb", "aa  + bb", "  + bb", "+ bb", " bb", "bb"}


def test_header_of_what_is_too_long_has_holes_too() -> None:
    text = "class Something(Base):\n    first = 1\n    second = 2\n"
    cuts = middles(text, only(fim.TOKEN_MIDDLE, fim.LINE_START, max_middle_chars=20))
    assert "ng(Base):" in cuts


def test_kinds_are_drawn_with_their_probabilities() -> None:
    """With 3,000 holes a standard deviation is below one percent."""
    config = fim.SplitConfig(
        start=((fim.BLOCK, 1), (fim.LINE_START, 1), (fim.LINE_MIDDLE, 1), (fim.TOKEN_MIDDLE, 1)),
        end=((fim.BLOCK, 2), (fim.LINE_START, 1), (fim.LINE_MIDDLE, 1)),
    )
    cuts = [hole for seed in range(10) for hole in holes(LONG, config=config, seed=seed, n=300)]
    starts, ends = Counter(hole.kind_start for hole in cuts), Counter(hole.kind_end for hole in cuts)
    assert {kind: starts[kind] / len(cuts) for kind in fim.KINDS} == pytest.approx(
        dict.fromkeys(fim.KINDS, 0.25), abs=0.04
    )
    assert ends[fim.BLOCK] / len(cuts) == pytest.approx(0.5, abs=0.04)
    assert ends[fim.TOKEN_MIDDLE] == 0


def test_longest_middle_is_kept() -> None:
    for longest in (5, 20, 100):
        config = fim.SplitConfig(max_middle_chars=longest)
        cuts = holes(LONG, config=config, n=50)
        assert cuts
        for hole in cuts:
            check(LONG, hole, config)


def test_draw_depends_on_seed_epoch_and_document_only() -> None:
    def draw(seed: int, epoch: int, document: str, n: int = 20) -> list[fim.Hole]:
        return fim.syntactic_holes(LONG, "python", CONFIG, seed=seed, epoch=epoch, document=document, n=n)

    first = draw(1, 2, "a")
    assert first == draw(1, 2, "a")
    assert first[:5] == draw(1, 2, "a", n=5)
    others = [draw(2, 2, "a"), draw(1, 3, "a"), draw(1, 2, "b")]
    assert all(not set(first) & set(other) for other in others)


def test_draw_is_the_same_in_another_process() -> None:
    code = (
        "import argparse; from infill import fim; text = open(argparse.__file__, encoding='utf-8').read()\n"
        "print(fim.syntactic_holes(text, 'python', fim.SplitConfig(), seed=0, epoch=0, document='a', n=20))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == str(holes(LONG))


@pytest.mark.parametrize("sample", list(splits.samples()), ids=lambda sample: sample[1])
def test_holes_are_the_golden_ones(sample: tuple[str, str, str]) -> None:
    assert splits.drawn(*sample) == splits.cases()[sample[0]]


def test_broken_code_is_cut_only_where_its_parse_is_sound() -> None:
    text = "def f(x):\n    return x + 1\n\n" * 5 + "y = = 3 3 3\n\n" + "class A:\n    z = [1, 2]\n" * 5
    bad = range(text.index("y = ="), text.index("class"))
    cuts = holes(text, n=60)
    assert len(cuts) > 20
    assert not any(hole.start < bad.stop - 2 and hole.end > bad.start for hole in cuts)


@pytest.mark.parametrize("text", ["", " \n\t\r\n", "(" * 1_000, "\0" * 100, "x", "\ufeff", "\n" * 5_000])
def test_text_without_room_for_many_holes(text: str) -> None:
    assert len(holes(text)) <= 1


def test_file_that_is_too_long_has_no_holes() -> None:
    assert holes("x = 1\n" * 100, config=fim.SplitConfig(max_file_chars=599)) == []


def test_deep_nesting_and_long_lines_end() -> None:
    assert holes("[" * 20_000 + "]" * 20_000 + "\n", n=4) is not None
    assert holes("x = [" + "1, " * 50_000 + "]\n", n=4)
    assert holes(f"x = '{'a b ' * 50_000}'\n", n=4) is not None


def test_language_without_grammar_is_an_error_of_the_user() -> None:
    with pytest.raises(InputError, match="no grammar for 'markdown'"):
        holes("# x", "markdown")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": (("middle", 1.0),)}, "split.start must list probabilities of the kinds block, "),
        ({"end": (("block", -1.0),)}, "split.end must list"),
        ({"end": (("block", float("nan")),)}, "split.end must list"),
        ({"start": ()}, "split.start needs at least one probability above 0"),
        ({"end": (("block", 0.0),)}, "split.end needs at least one probability above 0"),
        ({"before_line": 1.5}, "split.before_line must be between 0 and 1, got 1.5"),
        ({"aligned_share": -0.1}, "split.aligned_share must be between"),
        ({"max_middle_chars": 0}, "split.max_middle_chars must be at least 1"),
    ],
)
def test_configuration_is_checked(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fim.SplitConfig(**arguments)  # type: ignore[arg-type]


@given(st.text(), st.integers(), st.integers(0, 9))
def test_random_span_of_any_text(text: str, seed: int, epoch: int) -> None:
    start, end = fim.random_span(text, seed=seed, epoch=epoch, document="a")
    assert 0 <= start <= end <= len(text)
    assert text[start:end].strip() or not text.strip()
    assert (start, end) == fim.random_span(text, seed=seed, epoch=epoch, document="a")


def test_random_span_of_little_code_in_much_space() -> None:
    text = " " * 10_000 + "x" + " " * 10_000
    for seed in range(20):
        start, end = fim.random_span(text, seed=seed, epoch=0, document="a")
        assert text[start:end].strip() == "x"


def test_random_span_cuts_into_three_parts_of_random_size() -> None:
    """Two uniform cuts: each part has a third of the text on average."""
    spans = [fim.random_span("x" * 1_000, seed=seed, epoch=0, document="a") for seed in range(2_000)]
    assert sum(start for start, _ in spans) / 2_000 == pytest.approx(333, abs=20)
    assert sum(end for _, end in spans) / 2_000 == pytest.approx(667, abs=20)


@pytest.mark.parametrize(("text", "sound"), [("x = 1\n", True), ("x = = 1\n", False), ("def f(:", False), ("", True)])
def test_is_sound(text: str, sound: bool) -> None:
    assert fim.is_sound(text, "python") == sound


@pytest.mark.parametrize(
    ("text", "carets"),
    [
        ("ab", [0, 1, 2]),
        ("a\r\nb", [0, 1, 3, 4]),
        ("\r\r\n", [0, 1, 3]),
        ("\ufeffa", [1, 2]),
        ("e\u0301x", [0, 2, 3]),
        ("👍🏽.", [0, 2, 3]),
        ("👩‍👧.", [0, 3, 4]),
        ("漢字", [0, 1, 2]),
        ("", [0]),
    ],
)
def test_where_a_caret_can_stand(text: str, carets: list[int]) -> None:
    assert [offset for offset in range(len(text) + 1) if fim.is_caret(text, offset)] == carets


def test_shown_as_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SAMPLES["python"].replace("\n", "\r\n")
    path = tmp_path / "a.py"
    path.write_bytes(text.encode())
    fim_show.split_file(str(path), n=5, seed=3, as_json=False)  # stdout is not a terminal
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(records) == 5
    for record in records:
        assert record["prefix"] + record["middle"] + record["suffix"] == text
        assert text[record["start"] : record["end"]] == record["middle"]
        assert text.split("\r\n")[record["line"] - 1][: record["column"] - 1] == line_before(text, record["start"])


def test_shown_to_people() -> None:
    text = "a\nb\nc\nd = \x1b[1\r\ne\nf\ng\nh\n"
    hole = fim.Hole(text.index("d"), text.index("e"), fim.LINE_START, fim.LINE_START, "statement")
    stream = io.StringIO()
    fim_show.show_holes("x.py", text, [hole], as_json=False, stream=stream)
    shown = stream.getvalue()
    assert shown.splitlines()[0] == "x.py:4:1  line_start to line_start, statement"
    assert "a\nb\nc\nd = \ufffd[1\ne\nf\ng\n" in shown
    assert "h" not in shown


@pytest.mark.parametrize(
    ("name", "content", "n", "message"),
    [
        ("a.md", b"x", 1, "no grammar for this kind of file"),
        ("a.py", b"\xff", 1, r"is not UTF-8 \(byte 0\)"),
        ("missing.py", None, 1, "cannot be read: No such file"),
        ("a.py", b"x = 1\n", 0, "--n must be at least 1, got 0"),
    ],
)
def test_file_that_cannot_be_shown(tmp_path: Path, name: str, content: bytes | None, n: int, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        fim_show.split_file(str(tmp_path / name), n=n, seed=0, as_json=True)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "0 of 5 holes: the file is blank"),
        (" \n\n", "0 of 5 holes: the file is blank"),
        ("x", "holes: the file is too short for more"),
        ("def (:\n", "holes: parts of the file are not valid python"),
    ],
)
def test_fewer_holes_than_asked_for_have_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, why: str
) -> None:
    (tmp_path / "a.py").write_text(content)
    fim_show.split_file(str(tmp_path / "a.py"), n=5, seed=0, as_json=True)
    assert why in capsys.readouterr().err


def test_all_the_holes_asked_for_need_no_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.py").write_text(SAMPLES["python"])
    fim_show.split_file(str(tmp_path / "a.py"), n=3, seed=0, as_json=True)
    assert capsys.readouterr().err == ""


def test_random_holes_have_any_boundaries_and_the_share_that_is_asked_for() -> None:
    cuts = holes(LONG, config=fim.SplitConfig(random_share=0.5, max_middle_chars=200), n=400)
    random = [cut for cut in cuts if cut.unit == fim.RANDOM]
    assert 0.4 < len(random) / len(cuts) < 0.6
    assert {(cut.kind_start, cut.kind_end) for cut in random} == {(fim.RANDOM, fim.RANDOM)}
    lengths = sorted(cut.end - cut.start for cut in random)
    assert lengths[0] < 20
    assert 180 < lengths[-1] <= 200
    inside = sum(LONG[cut.end - 1].isalnum() and LONG[cut.end].isalnum() for cut in random)
    assert inside > len(random) / 4, "most ends are in the middle of a word or a line"
    for cut in random:
        check(LONG, cut)
