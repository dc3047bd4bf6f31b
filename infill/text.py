"""Decoding of text files, and splitting of text into lines.

**Encodings.** A text file is UTF-8, with or without a byte order mark, or UTF-16 with one. The mark is not part of the
text. Any other file is refused with a reason if the characters matter (source code: a wrong guess would be trained on
and shown to the model), and read leniently if its ASCII is enough (licences, build files, `.gitignore`).

**Lines** end in LF, CR LF or a lone CR, as in editors, the Language Server Protocol and server-sent events. Nothing
else ends a line: `str.splitlines` also cuts at form feeds, U+0085, U+2028 and others that may stand inside a line of
code. Files are read as bytes, because reading in text mode rewrites CR LF and CR.
"""

import codecs
import re
from pathlib import Path
from typing import Final, Literal

_UTF16: Final = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_LINE_END: Final = re.compile(r"\r\n?|\n")
_LINE: Final = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")

Errors = Literal["strict", "replace", "surrogateescape"]


class DecodeError(ValueError):
    """Bytes that are not text in a supported encoding; the message is the reason."""


def decode(data: bytes, errors: Errors = "strict") -> str:
    """Return the characters of a text file, without its byte order mark and with its line ends unchanged.

    `errors` says what happens to bytes that are not UTF-8: "strict" raises DecodeError, "replace" puts U+FFFD in their
    place, "surrogateescape" keeps them as file names do (`os.fsdecode`).
    """
    encoding = _UTF16.get(data[:2])
    try:
        if encoding is None:
            return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors)
        return data[2:].decode(encoding, "strict" if errors == "strict" else "replace")
    except UnicodeDecodeError as error:
        name = "UTF-8" if encoding is None else "UTF-16"
        mark = len(codecs.BOM_UTF8) * data.startswith(codecs.BOM_UTF8) if encoding is None else 2
        raise DecodeError(f"not {name} (byte {mark + error.start})") from error


def to_utf8(data: bytes) -> bytes:
    """Return a text file as UTF-8 without a byte order mark. Raises DecodeError as `decode` does."""
    text = decode(data)  # also proves that the bytes are UTF-8
    if data[:2] in _UTF16:
        return text.encode()
    return data.removeprefix(codecs.BOM_UTF8)


def read_text(file: str | Path, errors: Errors = "strict") -> str:
    """Return the text of a whole file. Raises OSError, or DecodeError as `decode` does."""
    return decode(Path(file).read_bytes(), errors)


def clean(text: str) -> str:
    """Return `text` with lone surrogates replaced (an editor may cut an emoji in half), so that UTF-8 can encode it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def split_lines(text: str, *, keepends: bool = False) -> list[str]:
    """Return the lines of `text`; a line end at the end of the text does not start another line.

    With `keepends` each line keeps its line end, so that joining the lines gives `text` again.
    """
    if keepends:
        return _LINE.findall(text)
    parts = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return parts if parts[-1] else parts[:-1]


def line_starts(text: str) -> list[int]:
    """Return the offset of each line as editors number them: each line end starts another line, even the last one."""
    return [0, *(match.end() for match in _LINE_END.finditer(text))]


def first_line(text: str) -> str:
    """Return the part of `text` before its first line end."""
    return _LINE_END.split(text, maxsplit=1)[0]


def last_line(text: str) -> str:
    """Return the part of `text` after its last line end."""
    return text[max(text.rfind("\n"), text.rfind("\r")) + 1 :]
