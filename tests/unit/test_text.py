"""Encodings and line ends of other people's text."""

import codecs
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill import text

MARKS = {
    "utf-8": b"",
    "utf-8 with a mark": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}
NOT_LINE_ENDS = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
TEXTS = st.text(st.sampled_from("ab \r\n" + NOT_LINE_ENDS) | st.characters(codec="utf-8")).filter(
    lambda sample: not sample.startswith("\ufeff")
)


def encoded(sample: str, encoding: str) -> bytes:
    return MARKS[encoding] + sample.encode(encoding.partition(" ")[0])


@pytest.mark.parametrize("encoding", MARKS)
@given(sample=TEXTS)
def test_every_encoding_gives_the_same_text(encoding: str, sample: str) -> None:
    data = encoded(sample, encoding)
    assert text.decode(data) == text.decode(data, "replace") == text.decode(data, "surrogateescape") == sample
    assert text.to_utf8(data) == sample.encode()


@given(data=st.binary())
def test_lenient_decoding_takes_any_bytes(data: bytes) -> None:
    text.decode(data, "replace").encode()
    assert text.decode(b"ab" + data, "surrogateescape").encode(errors="surrogateescape") == b"ab" + data


@given(data=st.binary() | st.binary().map(lambda data: codecs.BOM_UTF16_LE + data))
def test_strict_decoding_gives_text_or_a_reason(data: bytes) -> None:
    try:
        decoded = text.decode(data)
    except text.DecodeError:
        with pytest.raises(text.DecodeError, match="not UTF-"):
            text.to_utf8(data)
    else:
        assert text.to_utf8(data).decode() == decoded


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"ab\xff", r"not UTF-8 \(byte 2\)"),
        (codecs.BOM_UTF8 + b"a\xe9", r"not UTF-8 \(byte 4\)"),
        (codecs.BOM_UTF16_LE + b"a\0\0\xd8", r"not UTF-16 \(byte 4\)"),
        (codecs.BOM_UTF16_BE + b"\0ab", r"not UTF-16 \(byte 4\)"),
    ],
)
def test_reason_counts_bytes_of_the_file(data: bytes, reason: str) -> None:
    with pytest.raises(text.DecodeError, match=reason):
        text.decode(data)


def test_only_the_first_mark_is_one() -> None:
    assert text.decode(codecs.BOM_UTF8 * 2 + b"a") == "\ufeffa"


@given(sample=TEXTS)
def test_lines_end_in_lf_crlf_and_cr_only(sample: str) -> None:
    expected = list(io.StringIO(sample, newline=""))  # universal newlines, untranslated
    assert text.split_lines(sample, keepends=True) == expected
    assert text.split_lines(sample) == [line.rstrip("\r\n") for line in expected]


@given(sample=TEXTS)
def test_line_starts_are_where_lines_begin(sample: str) -> None:
    starts = text.line_starts(sample)
    kept = text.split_lines(sample, keepends=True)
    ends_in_line_end = not sample or sample[-1] in "\r\n"
    assert len(starts) == len(kept) + ends_in_line_end
    assert [sample[start:end] for start, end in zip(starts, [*starts[1:], len(sample)], strict=True)] == kept + [
        ""
    ] * ends_in_line_end


@given(sample=TEXTS)
def test_first_and_last_line_are_those_of_an_editor(sample: str) -> None:
    lines = [line.rstrip("\r\n") for line in text.split_lines(sample + "x", keepends=True)]
    assert text.first_line(sample + "x") == lines[0]
    assert text.last_line(sample + "x") == lines[-1]
    assert text.last_line(sample + "\r") == text.first_line("\r\n" + sample) == ""
