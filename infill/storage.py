"""Files in the store, addressed by URI: a local path or anything that fsspec knows (`s3://`, `gs://`, `memory://`).

A file appears whole or not at all. On a local disk it is written to a temporary name in the same folder, synced and
renamed. An object store publishes an object only when its upload has ended, so no second name is needed; the unfinished
upload of a killed process stays invisible until the bucket's lifecycle rule removes it.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast
from urllib.parse import unquote

import fsspec

from infill.errors import InputError, StorageError

if TYPE_CHECKING:
    import pyarrow as pa

LOCATION: Final[Mapping[str, bool]] = {"location": True}
"""Metadata of a dataclass field with paths or URIs: the user's values are passed to `absolute`."""
PATHS: Final[Mapping[str, bool]] = {**LOCATION, "paths": True}
"""Metadata of a dataclass field with a list of paths."""
PACKAGE: Final = "package:"
"""Prefix of the name of a base model in a Python distribution (`infill.bases`)."""
CHUNK_BYTES: Final = 1 << 20
UNUSED_DAYS: Final = 14
"""Days without use after which fetched and converted models leave the cache."""
ROW_GROUP: Final = 1_024
"""Rows of a parquet file's row group."""
IN_MEMORY: Final = 64 << 20
LAST: Final = "manifest.json"
"""The file whose presence means that a folder is complete: it is written last and removed first."""
_REMOTE: Final[dict[str, Any]] = {"use_listings_cache": False}
"""Options of remote file systems; no listings cache, since other processes write too."""
_S3: Final[dict[str, Any]] = {
    "config_kwargs": {"connect_timeout": 3, "read_timeout": 20, "retries": {"max_attempts": 2}}
}
"""Options of S3, so that an unreachable address is an error within a minute: three attempts, each made five times by
s3fs."""
_REMOTE_SCHEME: Final = re.compile(r"(?!file:)[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://", re.IGNORECASE)
_FILE_URI: Final = re.compile(r"file:(?://([^/]*))?(/.*|$)", re.IGNORECASE | re.DOTALL)
_CLIENTS: Final = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "azure")
"""Packages whose exceptions are errors of an object store."""


def is_local(uri: str) -> bool:
    """Return whether `uri` names a file of this machine: a plain path or a `file:` URI."""
    return _REMOTE_SCHEME.match(uri) is None


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of `uri` and the path inside it.

    Raises StorageError when the protocol is unknown or its package is not installed.
    """
    if is_local(uri):
        return fsspec.filesystem("file"), str(local_path(uri))
    options = _REMOTE | (_S3 if uri.partition("://")[0] in ("s3", "s3a") else {})
    try:
        fs, path = fsspec.core.url_to_fs(uri, **options)
    except (ValueError, ImportError) as error:
        raise StorageError(f"cannot open {uri}: {error}; install the fsspec package for this protocol") from error
    return fs, str(path)


def join(uri: str, *parts: str) -> str:
    """Return `uri` extended by `parts`, joined by slashes."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def local_path(uri: str) -> Path:
    """Return the absolute path of a local URI, with `~` expanded and the escapes of a `file:` URI decoded.

    Raises StorageError for a remote URI, InputError for an unknown user, a foreign host or a null character.
    """
    if not is_local(uri):
        raise StorageError(f"{uri} is not on this machine")
    path = _path_in(uri)
    if "\0" in path:
        raise InputError(f"{uri!r} is not a path: it contains a null character")
    expanded = os.path.expanduser(path)  # pathlib would expand ./~ too
    if path.startswith("~") and expanded == path:
        user = path.partition("/")[0]
        raise InputError(f"cannot expand {uri}: no home directory for {user}; write ./{user} for that name")
    return Path(expanded).absolute()


def _path_in(uri: str) -> str:
    """Return the path in a `file:` URI (RFC 8089), decoded; any other text unchanged."""
    match = _FILE_URI.match(uri)
    if match is None:
        return uri
    host, path = (unquote(part or "", errors="surrogateescape") for part in match.groups())
    if host.startswith("~"):
        return host + path
    if host.lower() not in ("", "localhost"):
        raise InputError(f"{uri} names the host {host}; write file:///path for a file of this machine")
    return path[1:] if path.startswith("/~") else path


def absolute(uri: str) -> str:
    """Return a user's path or URI in a form that means the same in every process and folder.

    A local one becomes an absolute path without links, based on the working directory and with `~` expanded; a remote
    one is unchanged. Use this for every option, setting and environment variable that names a place.
    """
    return str(local_path(uri).resolve()) if is_local(uri) and not uri.startswith(PACKAGE) else uri


def parent(uri: str) -> str:
    """Return the folder that contains a file or folder."""
    return uri.rstrip("/").rpartition("/")[0]


def relative(uri: str, folder: str) -> str:
    """Return the path from `folder` to `uri`, both absolute; "" if they share no folder."""
    (place, target), (start_place, start) = _parts(uri), _parts(folder)
    if place != start_place or target.parts[:2] != start.parts[:2]:
        return ""
    return os.path.relpath(target, start)


def follow(folder: str, path: str) -> str:
    """Return the URI to which `path`, a result of `relative`, leads from `folder`; return a remote URI unchanged."""
    if not is_local(path):
        return path
    place, start = _parts(folder)
    return place + os.path.normpath(start / path).lstrip("/" if place else "")


def _parts(uri: str) -> tuple[str, PurePosixPath]:
    """Return the scheme with its slashes ("" for a local path), and the path, which begins with the bucket."""
    if is_local(uri):
        return "", PurePosixPath(local_path(uri))
    scheme, path = uri.split("://", 1)
    return f"{scheme}://{'/' if path.startswith('/') else ''}", PurePosixPath("/", path)


@contextlib.contextmanager
def _errors(doing: str, uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        missing = "file" if is_local(uri) else "file or bucket"
        raise InputError(f"cannot {doing} {uri}: there is no such {missing}") from error
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _CLIENTS:
            raise
        cause = getattr(error, "strerror", None) or str(error)
        check = (
            "free space and permissions"
            if is_local(uri)
            else "the store's address, the credentials and their permissions"
        )
        raise StorageError(f"cannot {doing} {uri}: {cause}; check {check}") from error


def exists(uri: str) -> bool:
    """Return whether there is a file or folder at `uri`."""
    fs, path = filesystem(uri)
    with _errors("look at", uri):
        return bool(fs.exists(path))


def is_file(uri: str) -> bool:
    """Return whether there is a file, not a folder, at `uri`."""
    fs, path = filesystem(uri)
    with _errors("look at", uri):
        return bool(fs.isfile(path))


def list_files(uri: str, suffix: str = "") -> list[str]:
    """Return the URIs of all files below the folder `uri` whose name ends in `suffix`, sorted.

    Local files are absolute paths. The list is empty if there is no such folder.
    """
    fs, path = filesystem(uri)
    with _errors("list", uri):
        names = _below(fs, path)
    root, folder = path.rstrip("/"), path if is_local(uri) else uri
    return sorted(join(folder, str(name)[len(root) :]) for name in names if str(name).endswith(suffix))


def _below(fs: "fsspec.AbstractFileSystem", path: str) -> dict[str, dict[str, Any]]:
    """Return what is known of each file below `path`, by name, without the empty objects that mark folders.

    PyArrow, by which Ray writes, puts an object `folder/` for each folder into an object store.
    """
    entries = fs.find(path, detail=True) if fs.exists(path) else {}
    return {str(name): facts for name, facts in entries.items() if not str(name).endswith("/")}


def list_folders(uri: str) -> list[str]:
    """Return the URIs of the folders directly in the folder `uri`, sorted; empty if there is no such folder."""
    fs, path = filesystem(uri)
    with _errors("list", uri):
        entries = fs.ls(path, detail=True) if fs.isdir(path) else []
    names = (str(entry["name"]).rstrip("/") for entry in entries if entry["type"] == "directory")
    folder = path if is_local(uri) else uri
    return sorted(join(folder, name.rpartition("/")[2]) for name in names)


def sizes(uri: str) -> dict[str, int]:
    """Return the size in bytes of each file below the folder `uri`, by its path there; empty without a folder."""
    fs, path = filesystem(uri)
    with _errors("list", uri):
        files = _below(fs, path)
    root = len(path.rstrip("/")) + 1
    return {str(name)[root:]: int(facts["size"]) for name, facts in files.items()}


def read_bytes(uri: str) -> bytes:
    """Return the content of a file. Raises InputError when it is missing."""
    fs, path = filesystem(uri)
    with _errors("read", uri):
        return bytes(fs.cat_file(path))


@contextlib.contextmanager
def open_read(uri: str) -> Iterator[BinaryIO]:
    """Open a file to read from it, in any order. Raises InputError when it is missing."""
    fs, path = filesystem(uri)
    with _errors("read", uri), fs.open(path, "rb") as file:
        yield file


@contextlib.contextmanager
def open_write(uri: str) -> Iterator[BinaryIO]:
    """Open a binary file that appears at `uri` when the block ends, and not at all when the block raises."""
    with _errors("write", uri), _renamed(local_path(uri)) if is_local(uri) else _uploaded(uri) as file:
        yield file


@contextlib.contextmanager
def _renamed(target: Path) -> Iterator[BinaryIO]:
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    sync_folder(target.parent)


@contextlib.contextmanager
def _uploaded(uri: str) -> Iterator[BinaryIO]:
    """Open a remote file that is uploaded in parts to an object store, and at the end of the block to other stores.

    fsspec's transactions cannot be used: all threads share the one of a file system.
    """
    fs, path = filesystem(uri)
    if not fs.async_impl:
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as spooled:
            yield cast(BinaryIO, spooled)
            spooled.seek(0)
            fs.pipe_file(path, spooled.read())
        return
    file = fs.open(path, "wb")
    try:
        yield file
    except BaseException:
        file.forced = True  # keeps close() from sending the rest and publishing it
        file.close()
        file.discard()
        raise
    file.close()


def publish(file: Path, target: Path) -> None:
    """Rename the complete `file` to `target` on the same file system, durably."""
    with file.open("rb") as content:
        os.fsync(content.fileno())
    os.replace(file, target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make the renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file. Raises StorageError when the store cannot be written."""
    with open_write(uri) as file:
        file.write(data)


def read_json(uri: str) -> Any:
    """Return the JSON value in a file. Raises InputError when it is missing or not JSON."""
    try:
        return json.loads(read_bytes(uri))
    except ValueError as error:
        raise InputError(
            f"{uri} is not valid JSON ({error}); delete it and run the stage that wrote it again"
        ) from error


def write_json(uri: str, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, so that equal values give equal files."""
    write_bytes(uri, (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_table(uri: str, columns: Sequence[str] | None = None) -> "pa.Table":
    """Return the rows of the parquet file at `uri`, or of all those below it in the order of their names.

    Raises InputError when there is none, or one is damaged.
    """
    import pyarrow as pa

    files = [uri] if uri.endswith(".parquet") else list_files(uri, ".parquet")
    if not files:
        raise InputError(f"there is no parquet file in {uri}; run the stage that writes it first")
    names = None if columns is None else list(columns)
    tables = []
    for name in files:
        fs, path = filesystem(name)
        try:
            with _errors("read", name), fs.open(path, "rb") as file:
                tables.append(_read_columns(file, names))
        except pa.ArrowException as error:
            raise InputError(f"{name} is damaged ({error}); delete it and run its stage again") from error
    return pa.concat_tables(tables)


def _read_columns(file: BinaryIO, names: list[str] | None) -> "pa.Table":
    """Return the columns `names` of a parquet file. Raises ArrowException when one is missing or the file is damaged.

    `pyarrow.parquet.read_table` would read the file from threads that may outlive it. One that asks Python for its lock
    while the interpreter ends is stopped inside C++, and the process aborts: one in sixty short programs did.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    reader = pq.ParquetFile(file)
    if names is None:
        return reader.read()
    if missing := [name for name in names if name not in reader.schema_arrow.names]:
        raise pa.ArrowInvalid(f"no column {', '.join(missing)}")
    return reader.read(columns=names).select(names)


def columns(uri: str) -> frozenset[str]:
    """Return the names of the columns of the parquet file at `uri`. Raises InputError when it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_read(uri) as file:
            return frozenset(pq.read_schema(file).names)
    except pa.ArrowException as error:
        raise InputError(f"{uri} is damaged ({error}); delete it and run its stage again") from error


def write_table(uri: str, table: "pa.Table") -> None:
    """Write one whole parquet file, compressed with zstd, in row groups that can be read one by one."""
    import pyarrow.parquet as pq

    with open_write(uri) as file:
        pq.write_table(table, file, compression="zstd", row_group_size=ROW_GROUP)


def sha256(uri: str) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    fs, path = filesystem(uri)
    digest = hashlib.sha256()
    with _errors("read", uri), fs.open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def size(uri: str) -> int:
    """Return the size of a file in bytes."""
    fs, path = filesystem(uri)
    with _errors("look at", uri):
        return int(fs.size(path))


def fingerprint(uri: str) -> str:
    """Return a digest of the names, sizes and times or checksums of all files below `uri`; reads no content."""
    fs, path = filesystem(uri)
    with _errors("look at", uri):
        checksum = _local_checksum if is_local(uri) else fs.checksum
        state = [[str(name), str(checksum(name))] for name in sorted(_below(fs, path))]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def _local_checksum(name: str) -> tuple[int, int]:
    """Return what changes with a file's content. fsspec's checksum changes with each hard link to the file as well."""
    status = os.stat(name, follow_symlinks=os.path.exists(name))  # a link may point nowhere
    return status.st_size, status.st_mtime_ns


def cache() -> Path:
    """Return the folder for files that can be fetched or computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "infill"


def cached(group: str, name: str) -> Path:
    """Return the place of the entry `name` of a `group` in the cache, which exists if it was made before.

    Marks it as used, and deletes the group's entries that nobody has used for UNUSED_DAYS.
    """
    folder = cache() / group
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # there is none yet, or the cache is shared and belongs to somebody else
        os.utime(folder / name)
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):  # another process deletes it, or it belongs to somebody else
            if time.time() - entry.stat().st_mtime > UNUSED_DAYS * 86_400:
                doomed = folder / f".partial-{secrets.token_hex(8)}"  # so that no half-deleted entry looks whole
                entry.rename(doomed)
                shutil.rmtree(doomed) if doomed.is_dir() else doomed.unlink()
    return folder / name


def remove(uri: str) -> None:
    """Remove a file, or a folder and everything in it, its manifest first. Do nothing if there is none."""
    fs, path = filesystem(uri)
    for name in (f"{path.rstrip('/')}/{LAST}", path):
        with _errors("remove", uri), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            fs.rm(name, recursive=True)


def fetch(uri: str) -> Path:
    """Return a local path with the content of `uri`: a local path itself, otherwise a copy in the user's cache.

    A copy's name is derived from each object's name and checksum, so a changed object is fetched again, and an
    interrupted download is not mistaken for a complete one. Raises InputError when there is nothing at `uri`.
    """
    if is_local(uri):
        if not local_path(uri).exists():
            raise InputError(f"there is nothing at {uri}; check the address")
        return local_path(uri)
    fs, path = filesystem(uri)
    with _errors("fetch", uri):
        names = list(_below(fs, path))
        if not names:
            raise InputError(f"there is nothing at {uri}; check the address")
        target = cached("fetched", fingerprint(uri)[:24]) / PurePosixPath(path).name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as partial:
                fs.get(names, [f"{partial}/{target.name}{name[len(path.rstrip('/')) :]}" for name in names])
                try:
                    os.replace(Path(partial) / target.name, target)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else another process was faster
                        raise
    return target


@contextlib.contextmanager
def some_files(uri: str, names: Sequence[str]) -> Iterator[Path]:
    """Yield a local folder with the files `names` of the folder `uri`, as far as they exist.

    For a local `uri` it is that folder itself, which must exist, else InputError is raised.
    """
    if is_local(uri):
        yield fetch(uri)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            if exists(join(uri, name)):
                Path(folder, name).write_bytes(read_bytes(join(uri, name)))
        yield Path(folder)


def upload(local: Path, uri: str) -> None:
    """Copy the files below the folder `local` to `uri`, each whole, and `manifest.json`, if there is one, last."""
    files = [path for path in sorted(local.rglob("*")) if path.is_file()]
    for path in sorted(files, key=lambda path: path.name == LAST):
        with path.open("rb") as source, open_write(join(uri, path.relative_to(local).as_posix())) as target:
            shutil.copyfileobj(source, target, CHUNK_BYTES)
