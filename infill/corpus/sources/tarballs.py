"""Read tar archives as a stream of members: ustar, GNU and pax headers. Nothing is unpacked, no header is trusted.

The standard library's reader seeks backwards if a header says so, holds names of any length in memory and searches
headers with patterns that take quadratic time. Here every header has a size limit, and the stream only moves forward.
"""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol, cast

from infill.corpus.sources.listing import Member
from infill.foreign import UnreadableError, parse

BLOCK: Final = 512
_MAX_HEADER: Final = 65_536
"""Maximum size of a pax header or a long name, in bytes."""
_CHUNK: Final = 1 << 18
_MAX_XZ_MEMORY: Final = 256 << 20
"""Bytes; xz -9 needs 65 MB."""
_KINDS: Final = {
    **dict.fromkeys((b"0", b"\0", b"7"), "file"),
    b"1": "hard link",
    b"2": "link",
    b"3": "device",
    b"4": "device",
    b"5": "folder",
    b"6": "pipe",
    b"S": "sparse file",
}


class Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Xz:
    """A decompressor of concatenated xz or lzma streams with limited memory."""

    def __init__(self, file: Stream) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(memlimit=_MAX_XZ_MEMORY)

    def read(self, size: int, /) -> bytes:
        while True:
            if self._decoder.eof:
                data = self._decoder.unused_data.lstrip(b"\0") or self._file.read(_CHUNK).lstrip(b"\0")
                if not data:
                    return b""
                self._decoder = lzma.LZMADecompressor(memlimit=_MAX_XZ_MEMORY)
            else:
                data = self._file.read(_CHUNK) if self._decoder.needs_input else b""
                if not data and self._decoder.needs_input:
                    raise EOFError("the compressed stream ends too early")
            if content := self._decoder.decompress(data, size):
                return content


def _zstd(file: BinaryIO) -> Stream:
    import pyarrow as pa

    return pa.CompressedInputStream(cast(io.IOBase, file), "zstd")


_DECODERS: Final[Mapping[bytes, Callable[[BinaryIO], Stream]]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": _Xz,
    b"]\0\0": _Xz,
    b"\x28\xb5\x2f\xfd": _zstd,
}
"""First bytes of a compressed file -> function that returns its decompressed stream."""


def decoded(file: BinaryIO) -> Stream:
    """Return the decompressed stream of a file, recognised by its first bytes; the file itself if not compressed."""
    head = file.read(8)
    file.seek(0)
    return next((decoder(file) for magic, decoder in _DECODERS.items() if head.startswith(magic)), file)


class _Forward:
    """A stream that returns exactly as many bytes as requested and raises LimitError after `max_bytes`."""

    def __init__(self, stream: Stream, max_bytes: int, over: str) -> None:
        self._stream = stream
        self._left = max_bytes
        self._over = over
        self._buffer = b""

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes, or none at the end. Raises UnreadableError if the stream ends in between."""
        parts = [self._buffer[:size]]
        self._buffer = self._buffer[size:]
        missing = size - len(parts[0])
        while missing > 0 and (data := self._more()):
            parts.append(data[:missing])
            self._buffer = data[missing:]
            missing -= len(parts[-1])
        if 0 < missing < size:
            raise UnreadableError("the archive ends too early")
        return b"" if missing else b"".join(parts)

    def skip(self, size: int) -> None:
        while size > 0:
            step = min(size, _CHUNK)
            if not self.read(step):
                raise UnreadableError("the archive ends too early")
            size -= step

    def rest(self) -> None:
        """Read to the end, so that damage or a decompression bomb after the last member is detected."""
        self._buffer = b""
        while self._more():
            pass

    def _more(self) -> bytes:
        data = parse(self._stream.read, _CHUNK)
        self._left -= len(data)
        if self._left < 0:
            raise LimitError(self._over)
        return data


class LimitError(UnreadableError):
    """An archive exceeds a limit."""


@dataclass
class _Header:
    name: bytes = b""
    target: bytes = b""
    size: int | None = None
    sparse: bool = False


class Tar:
    """The members of a tar archive, in one pass; `content` returns the content of the last yielded member."""

    def __init__(self, file: BinaryIO, max_bytes: int, over: str) -> None:
        """Read at most `max_bytes` of unpacked data; `over` is the message of the LimitError for more."""
        self._stream = _Forward(parse(decoded, file), max_bytes, over)
        self._left = 0
        """Bytes of the last member that have not been read yet."""
        self._padding = 0
        self.comment = b""
        """The comment of the global header, in which `git archive` writes the commit's ID."""

    def content(self) -> bytes:
        data = self._stream.read(self._left) if self._left else b""
        if len(data) < self._left:
            raise UnreadableError("the archive ends too early")
        self._left = 0
        return data

    def contents(self, numbers: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield the number and the content of the members `numbers`, and stop after the last of them."""
        wanted = set(numbers)
        for member in self:
            if member.place in wanted:
                yield member.place, self.content()
                wanted.discard(member.place)
            if not wanted:
                return

    def __iter__(self) -> Iterator[Member]:
        number = 0
        extended = _Header()
        while (block := self._next_block()) is not None:
            kind, size = block[156:157], _number(block[124:136])
            if kind in b"LKxgX" and kind:
                self._read_extension(kind, size, extended)
                continue
            yield self._member(block, kind, size, extended, number)
            extended = _Header()
            number += 1
        self._stream.rest()

    def _next_block(self) -> bytes | None:
        """Return the next header; None at the end of the archive, which is an empty block or the file's end."""
        self._stream.skip(self._left + self._padding)
        self._left = self._padding = 0
        block = self._stream.read(BLOCK)
        if not block.strip(b"\0"):
            return None
        total = sum(block) - sum(block[148:156]) + 8 * 32
        if _number(block[148:156]) != total:
            raise UnreadableError("not a tar archive, or damaged: the checksum of a header is wrong")
        return block

    def _read_extension(self, kind: bytes, size: int, extended: _Header) -> None:
        if size > _MAX_HEADER:
            raise LimitError(f"a header of {size} bytes exceeds the limit of {_MAX_HEADER}")
        data = self._stream.read(size) if size else b""
        self._stream.skip(-size % BLOCK)
        if kind == b"L":
            extended.name = data.partition(b"\0")[0]
        elif kind == b"K":
            extended.target = data.partition(b"\0")[0]
        elif kind == b"g":
            self.comment = _records(data).get(b"comment", self.comment)
        else:
            _extend(extended, _records(data))

    def _member(self, block: bytes, code: bytes, size: int, extended: _Header, number: int) -> Member:
        name = extended.name or _ustar_name(block)
        kind = _KINDS.get(code, "special file")
        if kind == "file" and name.endswith(b"/"):  # written before tar had a type for folders
            kind = "folder"
        size = size if extended.size is None else extended.size
        if code in (b"1", b"2", b"3", b"4", b"5", b"6"):
            size = 0  # no data follow, whatever the header states
        self._left, self._padding = size, -size % BLOCK
        target = extended.target or block[157:257].partition(b"\0")[0]
        kind = "sparse file" if extended.sparse else kind
        return Member(
            path=_text(name),
            kind=kind,
            size=size,
            target=_text(target),
            place=str(number),
            modified=_number(block[136:148]) * 10**9,
        )


def _text(name: bytes) -> str:
    return str(name, "utf-8", "surrogateescape")


def _ustar_name(block: bytes) -> bytes:
    name, prefix = block[:100].partition(b"\0")[0], block[345:500].partition(b"\0")[0]
    return prefix + b"/" + name if prefix and block[257:263] == b"ustar\0" else name


def _number(field: bytes) -> int:
    """Return a number of a header, written in octal or (GNU) binary. Raises UnreadableError."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0") or b"0"
    if digits.strip(b"01234567"):
        raise UnreadableError("not a tar archive, or damaged: a number in a header is not octal")
    return int(digits, 8)


def _records(data: bytes) -> dict[bytes, bytes]:
    """Return the records of a pax header, `LENGTH KEY=VALUE\\n` each. Raises UnreadableError."""
    records: dict[bytes, bytes] = {}
    while data.strip(b"\0"):
        length, space, _ = data[:20].partition(b" ")
        if not space or not length.isdigit() or not len(length) + 3 < int(length) <= len(data):
            raise UnreadableError("a pax header is damaged")
        key, equals, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        if not equals:
            raise UnreadableError("a pax header is damaged")
        records[key] = value
        data = data[int(length) :]
    return records


def _extend(extended: _Header, records: Mapping[bytes, bytes]) -> None:
    extended.name = records.get(b"path", extended.name)
    extended.target = records.get(b"linkpath", extended.target)
    extended.sparse = any(key.startswith(b"GNU.sparse.") for key in records)
    if b"size" in records:
        if not records[b"size"].isdigit() or len(records[b"size"]) > 20:
            raise UnreadableError("a pax header is damaged")
        extended.size = int(records[b"size"])
