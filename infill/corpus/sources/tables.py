"""Tables of files: `parquet:URI`, one Parquet file or a folder of them, on disk or in an object store.

A row is a file, or a repository with a list of files (`files`). `corpus.columns` assigns a role to each column, by its
name or by naming a data set whose columns are known. Content is in a column, or in a separate compressed object below
`corpus.blobs`, as for The Stack v2, whose content is kept by Software Heritage. A damaged Parquet file is skipped with
the reason.
"""

import contextlib
import gzip
import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infill import storage
from infill.config import CorpusConfig
from infill.corpus import licences
from infill.corpus.licences.recognise import joined
from infill.corpus.sources import listing
from infill.corpus.sources.listing import MAX_STATEMENT_BYTES, Member, Repository, SourceFile
from infill.errors import InputError
from infill.foreign import UnreadableError, parse
from infill.text import decode

PREFIX: Final = "parquet:"
"""Prefix of the root of a table's repositories; the table's URI follows."""
ROLES: Final = ("repo", "path", "content", "blob", "encoding", "size", "licence", "commit", "date", "files")
"""Roles of columns. `path`, and `content` or `blob`, are required; `files` is the list of a repository's files."""
DATA_SETS: Final[Mapping[str, Mapping[str, str]]] = {
    "the_stack_v2": {
        "repo": "repo_name",
        "blob": "blob_id",
        "encoding": "src_encoding",
        "size": "length_bytes",
        "licence": "detected_licenses",
        "commit": "revision_id",
        "date": "committer_date",
    },
    "the_stack": {
        "repo": "max_stars_repo_name",
        "path": "max_stars_repo_path",
        "licence": "max_stars_repo_licenses",
        "commit": "max_stars_repo_head_hexsha",
    },
}
"""Data set -> role -> name of the column, where it is not the name of the role."""
_BATCH: Final = 256
"""Number of rows whose content is held in memory at once."""
_BLOB: Final = re.compile(r"[\w-]{1,128}")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_COMMIT: Final = re.compile(r"[0-9a-f]{7,64}")


def columns_of(config: CorpusConfig) -> dict[str, str]:
    """Return role -> column. Raises InputError for an entry of `corpus.columns` that is not valid."""
    columns = dict(zip(ROLES, ROLES, strict=True))
    for entry in config.columns:
        role, equals, column = entry.partition("=")
        if entry in DATA_SETS:
            columns |= DATA_SETS[entry]
        elif role in ROLES and equals and column:
            columns[role] = column
        else:
            raise InputError(
                f"corpus.columns: {entry!r} is not valid; write a data set ({', '.join(DATA_SETS)}) or ROLE=COLUMN "
                f"with one of the roles {', '.join(ROLES)}"
            )
    return columns


def repositories(uri: str, config: CorpusConfig) -> Iterator[Repository]:
    """Yield the repositories of a table by name. Raises InputError if no file can be read or a column is missing."""
    columns = columns_of(config)
    root = f"{PREFIX}{uri}"
    tables = _files(uri)
    rows: dict[str, list[_Row]] = {}
    damaged: dict[str, str] = {}
    for number, file in enumerate(tables):
        try:
            for row in _rows(file, number, columns, config):
                rows.setdefault(row.repo, []).append(row)
        except UnreadableError as error:
            damaged[_name(file, uri)] = str(error)
    if len(damaged) == len(tables):
        raise InputError(f"parquet:{uri}: {next(iter(damaged.values()))}")
    for name, reason in damaged.items():
        yield listing.unreadable(name, root, "damaged_table", reason)
    listed = {name: _listed(rows.pop(name)) for name in sorted(rows)}
    statements = {name: each.statement_files() for name, each in listed.items()}
    texts = _texts(uri, (member for members in statements.values() for member in members.values()), config)
    for name, each in listed.items():
        yield Repository(name=name, root=root, files=each.files, coverage=each.coverage(statements[name], texts))


def fingerprint(uri: str) -> Iterator[str]:
    """Yield the names, and sizes and times or checksums, of the table's files, from which a change is detected."""
    for file in _files(uri):
        yield f"{_name(file, uri)}\0{storage.fingerprint(file)}\0"


def _files(uri: str) -> list[str]:
    """Return the Parquet files at or below `uri`. Raises InputError if there is none."""
    files = [uri] if storage.is_file(uri) else storage.list_files(uri, ".parquet")
    if not files:
        raise InputError(f"parquet:{uri} holds no Parquet file: name one, or a folder of files that end in .parquet")
    return files


def _name(file: str, uri: str) -> str:
    return (file.removeprefix(uri).strip("/") or file.rpartition("/")[2]).removesuffix(".parquet")


# Rows


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """A file of a table, without its content."""

    repo: str
    path: str
    place: str
    size: int
    commit: str
    date: str
    licence: licences.Statement | None


@dataclass(frozen=True)
class _Listed:
    """The files of one repository of a table."""

    files: tuple[SourceFile, ...]
    stated: Mapping[str, licences.Statement]
    """Path -> licence that the row of the file states."""

    def statement_files(self) -> dict[str, Member]:
        """Return the files that may state the licence of others, by path."""
        at = {
            file.path: Member(path=file.path, kind="file", size=file.size, place=file.place)
            for file in self.files
            if not file.trouble
        }
        return listing.statement_files(listing.statement_paths(self.files), listing.lookup(at))

    def coverage(self, statements: Mapping[str, Member], texts: Mapping[str, str]) -> licences.Coverage:
        """Return the licences of the files: their rows and the statements of licence and build files must agree."""
        coverage = listing.coverage_of(listing.statement_paths(self.files), statements, texts)
        stated = dict(self.stated)
        for path in stated.keys() & coverage.files.keys():
            stated[path] = joined([coverage.files[path], stated[path]]) or stated[path]
        return replace(coverage, files={**coverage.files, **stated})


def _listed(rows: Sequence[_Row]) -> _Listed:
    """Return the files of a repository; of rows with the same path, the first is used and the others are reported."""
    first: dict[str, _Row] = {}
    again = [
        SourceFile(path=row.path, trouble="duplicate_name", detail="an earlier row has this path")
        for row in rows
        if first.setdefault(row.path, row) is not row
    ]
    members = [Member(path=row.path, kind="file", size=row.size, place=row.place) for row in first.values()]
    files = [
        replace(file, commit=first[file.path].commit, date=first[file.path].date) if file.path in first else file
        for file in listing.files_of(members)
    ]
    stated = {path: row.licence for path, row in first.items() if row.licence is not None}
    return _Listed(tuple(sorted([*files, *again])), stated)


@dataclass(frozen=True)
class _TableLayout:
    """The columns of one Parquet file."""

    columns: Mapping[str, str]
    """Role -> column of the table."""
    members: Mapping[str, str]
    """Role -> field of the entries in the list of files; empty if each row is a file."""

    @classmethod
    def of(cls, schema: pa.Schema, wanted: Mapping[str, str]) -> "_TableLayout":
        columns = {role: column for role, column in wanted.items() if column in schema.names}
        entry = getattr(schema.field(columns["files"]).type, "value_type", None) if "files" in columns else None
        if not isinstance(entry, pa.StructType):
            columns.pop("files", None)
            return cls(_with_counted_size(columns, schema), {})
        members = {role: column for role, column in wanted.items() if entry.get_field_index(column) >= 0}
        return cls(
            {role: column for role, column in columns.items() if role not in members},
            _with_counted_size(members, entry),
        )

    @property
    def roles(self) -> frozenset[str]:
        return frozenset(self.columns) | frozenset(self.members)

    def names(self, *, content: bool) -> list[str]:
        """Return the columns to read for the content of files or, if not `content`, for everything else."""
        roles = {"content", "blob", "encoding", "files"} if content else self.columns.keys() - {"content"}
        if "size" not in self.roles:
            roles = {*roles, "content"}
        return [column for role, column in self.columns.items() if role in roles]


def _with_counted_size(columns: Mapping[str, str], schema: "pa.Schema | pa.StructType") -> dict[str, str]:
    """Return `columns` without the size if its column does not hold integers."""
    size = columns.get("size")
    is_number = size is not None and pa.types.is_integer(schema.field(size).type)
    return {role: column for role, column in columns.items() if role != "size" or is_number}


def _check(layout: _TableLayout, schema: pa.Schema, wanted: Mapping[str, str], file: str, config: CorpusConfig) -> None:
    """Raise InputError if a required column, or one that the user has named, is missing."""
    required = ["path"] if layout.roles & {"content", "blob"} else ["path", "content"]
    named = [role for role, equals, _ in (entry.partition("=") for entry in config.columns) if equals]
    missing = next((role for role in [*required, *named] if role not in layout.roles), "")
    if missing:
        raise InputError(
            f"{file} has no column {wanted[missing]!r} for the {missing} of a file, only {', '.join(schema.names)}; "
            f'set corpus.columns to ["{missing}=COLUMN"] or to a data set ({", ".join(DATA_SETS)})'
        )
    if "content" not in layout.roles and not config.blobs:
        raise InputError(
            f"{file} has no column {wanted['content']!r}, only names of objects with the content; "
            "set corpus.blobs to the address of the folder with these objects"
        )


def _batches(
    parquet: pq.ParquetFile, layout: _TableLayout, group: int, *, content: bool
) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Yield the places of files within a row group, and their columns as role -> array, batch by batch."""
    first = 0
    batches = parquet.iter_batches(_BATCH, row_groups=[group], columns=layout.names(content=content))
    while (batch := parse(next, batches, None)) is not None:
        arrays = {role: batch.column(column) for role, column in layout.columns.items() if column in batch.schema.names}
        places = [str(first + row) for row in range(batch.num_rows)]
        first += batch.num_rows
        yield parse(_flattened, places, arrays, layout.members) if "files" in arrays else (places, arrays)


def _flattened(
    places: Sequence[str], arrays: Mapping[str, Any], members: Mapping[str, str]
) -> tuple[list[str], dict[str, Any]]:
    """Return the places and arrays of the files in a batch whose rows have lists of files."""
    parents = pc.list_parent_indices(arrays["files"])
    entries = pc.list_flatten(arrays["files"])
    repeated = {role: array.take(parents) for role, array in arrays.items() if role != "files"}
    counted = Counter[int]()
    inside: list[str] = []
    for parent in parents.to_pylist():
        inside.append(f"{places[parent]}:{counted[parent]}")
        counted[parent] += 1
    return inside, repeated | {role: pc.struct_field(entries, [name]) for role, name in members.items()}


def _rows(file: str, number: int, wanted: Mapping[str, str], config: CorpusConfig) -> Iterator[_Row]:
    """Yield the rows of a Parquet file. Raises UnreadableError if it is damaged, InputError if a column is missing."""
    with storage.open_read(file) as opened:
        parquet = parse(pq.ParquetFile, opened)
        layout = _TableLayout.of(parquet.schema_arrow, wanted)
        _check(layout, parquet.schema_arrow, wanted, file, config)
        for group in range(parquet.num_row_groups):
            for places, arrays in _batches(parquet, layout, group, content=False):
                columns = {
                    role: parse(_CONVERTERS[role], array) for role, array in arrays.items() if role in _CONVERTERS
                }
                columns.setdefault("size", parse(_lengths, arrays["content"]) if "content" in arrays else [])
                yield from _rows_of([f"{number}:{group}:{place}" for place in places], columns, _name(file, ""))


def _rows_of(places: Sequence[str], columns: Mapping[str, Sequence[Any]], unnamed: str) -> Iterator[_Row]:
    """Yield the rows of one batch; a row that names no repository belongs to `unnamed`."""
    for index, place in enumerate(places):
        values = {role: column[index] for role, column in columns.items()}
        repo = str(values.get("repo") or unnamed)
        yield _Row(
            repo=repo if listing.is_good_name(repo) else listing.escaped(repo),
            path=str(values.get("path") or "").removeprefix("/"),
            place=place,
            size=int(values["size"] or 0),
            commit=values.get("commit") or "",
            date=values.get("date") or "",
            licence=values.get("licence"),
        )


def _lengths(array: Any) -> list[int | None]:
    """Return the lengths of texts in bytes."""
    texts = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    lengths: list[int | None] = pc.binary_length(texts).to_pylist()
    return lengths


def _plain(array: Any) -> list[Any]:
    return list(array.to_pylist())


def _commits(array: Any) -> list[str]:
    return [value if isinstance(value, str) and _COMMIT.fullmatch(value) else "" for value in array.to_pylist()]


def _dates(array: Any) -> list[str]:
    """Return dates as text (2024-02-29T12:00:00Z); empty for a value that is neither a time nor such a text."""
    if pa.types.is_timestamp(array.type):
        seconds = array.cast(pa.timestamp("s", array.type.tz), safe=False).cast(pa.int64()).to_pylist()
        return ["" if value is None else listing.date_of(value) for value in seconds]
    return [value if isinstance(value, str) and _DATE.fullmatch(value) else "" for value in array.to_pylist()]


def _licences(array: Any) -> list[licences.Statement | None]:
    return [_licence(value) for value in array.to_pylist()]


def _licence(value: object) -> licences.Statement | None:
    """Return the licence that a row states, None if it states none; several names mean that all of them apply."""
    stated = [str(name) for name in (value if isinstance(value, list) else [value]) if name]
    if not stated:
        return None
    known = [licences.normalise(name) for name in stated]
    if None in known:
        return licences.Statement(licences.UNKNOWN, f"its row states {', '.join(stated)[:100]!r}")
    return joined([licences.Statement(str(name), "its row") for name in known])


_CONVERTERS: Final[Mapping[str, Callable[[Any], Sequence[Any]]]] = {
    "repo": _plain,
    "path": _plain,
    "size": _plain,
    "commit": _commits,
    "date": _dates,
    "licence": _licences,
}
"""Role -> function that converts a column of this role to Python values."""


# Contents


@dataclass(frozen=True)
class _Content:
    """The content of a file, or the name of the object that has it."""

    data: bytes | None
    blob: str = ""
    encoding: str = ""


def reader(root: str, files: Sequence[SourceFile], config: CorpusConfig) -> Callable[[SourceFile], bytes]:
    """Return a function that returns the content of `files`, each once, or raises UnreadableError.

    The first call reads the row groups that hold them; content in separate objects is read file by file.
    """
    contents: dict[str, _Content] = {}
    wanted = {file.place for file in files if not file.trouble}

    def read(file: SourceFile) -> bytes:
        if wanted:
            contents.update(_contents(root.removeprefix(PREFIX), wanted, config))
            wanted.clear()
        content = contents.pop(file.place, None)
        if content is None:
            raise UnreadableError("the table has changed since it was listed, or is damaged")
        return _bytes(content, max(file.size, config.max_file_bytes), config)

    return read


def _texts(uri: str, members: Iterable[Member], config: CorpusConfig) -> dict[str, str]:
    """Return place -> text of `members`; equal texts share memory."""
    unique: dict[str, str] = {}
    texts: dict[str, str] = {}
    for place, content in _contents(uri, {member.place for member in members}, config):
        try:
            text = decode(_bytes(content, MAX_STATEMENT_BYTES, config), "replace")
        except UnreadableError:
            continue
        texts[place] = unique.setdefault(text, text)
    return texts


def _contents(uri: str, places: Collection[str], config: CorpusConfig) -> Iterator[tuple[str, _Content]]:
    """Yield the place and the content of the files at `places`, in the order of the table; skip damaged parts."""
    groups: dict[tuple[int, int], set[str]] = {}
    for place in places:
        number, group, row = place.split(":", 2)
        groups.setdefault((int(number), int(group)), set()).add(row)
    tables = _files(uri) if groups else []
    for number, listed in itertools.groupby(sorted(groups), key=lambda group: group[0]):
        with storage.open_read(tables[number]) as opened, contextlib.suppress(UnreadableError):
            parquet = parse(pq.ParquetFile, opened)
            layout = _TableLayout.of(parquet.schema_arrow, columns_of(config))
            for key in listed:
                for rows, arrays in _batches(parquet, layout, key[1], content=True):
                    for index, row in enumerate(rows):
                        if row in groups[key]:
                            yield f"{number}:{key[1]}:{row}", _content(arrays, index)


def _content(arrays: Mapping[str, Any], index: int) -> _Content:
    row = {role: array[index].as_py() for role, array in arrays.items() if role in ("content", "blob", "encoding")}
    blob, encoding = (str(row.get(role) or "") for role in ("blob", "encoding"))
    if "content" not in row:
        return _Content(None, blob, encoding)
    value = row["content"]
    if isinstance(value, bytes):
        return _Content(value, encoding=encoding)
    return _Content(value.encode() if isinstance(value, str) else None)


def _bytes(content: _Content, limit: int, config: CorpusConfig) -> bytes:
    """Return the content, converted to UTF-8 if its row names another encoding. Raises UnreadableError."""
    data = content.data
    if data is None:
        if not content.blob:
            raise UnreadableError("its row has no content")
        data = _blob(content.blob, limit, config)
    if len(data) > limit:
        raise UnreadableError("the content is larger than its row states")
    if content.encoding.lower() in ("", "utf-8", "ascii"):
        return data
    try:
        return str(data, content.encoding).encode()
    except (UnicodeError, LookupError) as error:
        raise UnreadableError(f"not valid text in the encoding that its row states: {content.encoding[:40]}") from error


def _blob(name: str, limit: int, config: CorpusConfig) -> bytes:
    """Return the content of an object below `corpus.blobs`; a compressed one is unpacked up to `limit` + 1 bytes."""
    if _BLOB.fullmatch(name) is None:
        raise UnreadableError(f"its row names the object {name[:80]!r}; only letters, digits, _ and - are allowed")
    uri = storage.join(config.blobs, name)
    if not storage.exists(uri):
        raise UnreadableError(f"the object {uri} does not exist")
    data = storage.read_bytes(uri)
    if not data.startswith(b"\x1f\x8b"):
        return data
    return parse(gzip.GzipFile(fileobj=io.BytesIO(data)).read, limit + 1)
