"""Source archives as a source: what is read from one is what it unpacks to, and a hostile one costs itself only."""

import contextlib
import gzip
import hashlib
import io
import os
import random
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infill import storage
from infill.config import CorpusConfig
from infill.corpus import sources
from infill.errors import InputError
from infill.foreign import UnreadableError
from tests.builders import run_stage
from tests.unit.corpus.folders import GPL, MIT, write_files
from tests.unit.corpus.test_git import CONTENTS, NAMES, commit, git, view

SMALL: Final = CorpusConfig(max_archive_bytes=30_000_000, max_archive_ratio=50.0, max_repository_files=1_000)


def only(file: Path, config: CorpusConfig = SMALL) -> sources.Repository:
    (repository,) = sources.repositories([f"archive:{file}"], config)
    return repository


def troubles(file: Path) -> dict[str, str]:
    return {entry.path: entry.trouble for entry in only(file).files if entry.trouble}


def tar(file: Path, files: dict[str, str | bytes], mode: str = "w", form: int = tarfile.PAX_FORMAT) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, mode, format=form) as archive:  # type: ignore[call-overload]
        for path, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def special_tar(file: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(file, "w") as archive:
        for info in members:
            archive.addfile(info)
    return file


def pack(folder: Path, kind: str) -> Path:
    """Pack a folder, with its name at the top, as a kind of archive."""
    file = folder.parent / f"packed.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, path.relative_to(folder.parent))
        return file
    mode = {"tar.gz": "w:gz", "tgz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}.get(kind, "w")
    with tarfile.open(file, mode, format=tarfile.GNU_FORMAT if kind == "tgz" else tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        archive.add(folder, folder.name)
    if kind == "tar.zst":
        file.write_bytes(pa.compress(file.read_bytes(), codec="zstd", asbytes=True))
    return file


KINDS: Final = ("zip", "tar", "tgz", "tar.gz", "tar.bz2", "tar.xz", "tar.zst")


@given(st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=3), CONTENTS), min_size=1, max_size=12))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_archive_is_read_as_what_it_unpacks_to(tmp_path: Path, entries: list[tuple[list[str], str]]) -> None:
    folder = tmp_path / str(len(list(tmp_path.iterdir()))) / "mine-1.0"
    folder.mkdir(parents=True)
    (folder / "setup.py").touch()
    for steps, content in entries:
        path = folder.joinpath(*steps)
        if not path.exists() and not any(each.is_file() for each in path.parents):
            write_files(folder, {"/".join(steps): content})
    expected = view(only_folder(folder))
    for kind in ("zip", "tar.gz"):
        if kind == "zip" and any("\\" in name for steps, _ in entries for name in steps):
            continue
        assert view(only(pack(folder, kind))) == expected, kind


def only_folder(folder: Path) -> sources.Repository:
    (repository,) = sources.repositories([f"dir:{folder}"])
    return repository


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read(tmp_path: Path, kind: str) -> None:
    long = "/".join(["folder_with_a_long_name"] * 9) + "/é.py"
    folder = write_files(tmp_path / "mine-1.0", {"LICENSE": MIT, "a.py": "x = 1\n", long: "x = 2\n", "e.py": ""})
    repository = only(pack(folder, kind))
    assert repository.name == "packed"
    assert view(repository) == view(only_folder(folder))


def test_a_folder_of_archives_holds_a_repository_each_and_files_next_to_them(tmp_path: Path) -> None:
    tar(tmp_path / "npm" / "left-pad-1.0.0.tgz", {"package/package.json": '{"license": "MIT"}', "package/i.js": "x"})
    tar(tmp_path / "b-2.tar", {"b-2/COPYING": GPL, "b-2/b.py": "x"})
    write_files(tmp_path, {"README.md": "x", "broken.zip": b"PK\3\4", "empty.tar.gz": b"", "text.tar": b"hello" * 200})
    repositories = {each.name: each for each in sources.repositories([f"archive:{tmp_path}"])}
    assert list(repositories) == ["b-2", "broken", "empty", "npm/left-pad-1.0.0", "text"]
    assert str(repositories["npm/left-pad-1.0.0"].coverage.of("i.js")).count("MIT")
    assert [file.path for file in repositories["npm/left-pad-1.0.0"].files] == ["i.js", "package.json"]
    assert {repositories[name].files[0].trouble for name in ("broken", "text")} == {"damaged_archive"}
    assert [entry.file.path for entry in sources.beside([f"archive:{tmp_path}"])] == ["README.md"]


def test_a_wheel_is_read_as_it_would_be_installed(tmp_path: Path) -> None:
    info = "mine-1.0.dist-info"
    files = {"mine/a.py": "x = 1\n", f"{info}/METADATA": "Name: mine\nLicense-Expression: MIT\n", f"{info}/RECORD": ""}
    files |= {f"{info}/licenses/mine/gpl/COPYING": GPL, "mine/gpl/b.py": "x", "mine/vendor/c.py": "x"}
    with zipfile.ZipFile(tmp_path / "mine-1.0-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    repository = only(tmp_path / "mine-1.0-py3-none-any.whl")
    assert [file.path for file in repository.files] == ["mine/a.py", "mine/gpl/b.py", "mine/vendor/"]
    stated = {path: repository.coverage.of(path) for path in ("mine/a.py", "mine/gpl/b.py")}
    assert stated["mine/a.py"] is not None
    assert stated["mine/a.py"].expression == "MIT"
    assert stated["mine/gpl/b.py"] is not None
    assert "GPL-3.0-only" in stated["mine/gpl/b.py"].expression


def test_an_archive_that_git_made_tells_its_commit(tmp_path: Path) -> None:
    head = commit(write_files(tmp_path / "r", {"LICENSE": MIT, "a.py": "x = 1\n"}))
    for kind in ("tar", "tar.gz", "zip"):
        git(tmp_path / "r", "archive", f"--output=../r.{kind}", "--prefix=r-1.0/", "HEAD")
        files = only(tmp_path / f"r.{kind}").files
        assert [file.path for file in files] == ["LICENSE", "a.py"]
        assert {(file.commit, file.date) for file in files} == {(head, "2024-02-29T12:00:00Z")}


def debian(folder: Path, archives: list[Path]) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [f" {hashlib.sha256(file.read_bytes()).hexdigest()} {file.stat().st_size} {file.name}" for file in archives]
    text = "\n".join(["Format: 3.0 (quilt)", "Source: mine", "Version: 1.0-1", "Checksums-Sha256:", *lines, ""])
    (folder / "mine_1.0-1.dsc").write_text(
        f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{text}\n-----BEGIN PGP SIGNATURE-----\n"
    )
    return folder / "mine_1.0-1.dsc"


DEP5: Final = (
    "Format: x\n\nFiles: *\nCopyright: x\nLicense: MIT\n\nFiles: gpl/*\nCopyright: x\nLicense: GPL-3.0-or-later\n"
)


def test_a_debian_source_package_is_one_repository(tmp_path: Path) -> None:
    archives = [
        tar(
            tmp_path / "mine_1.0.orig.tar.gz",
            {"mine-1.0/a.py": "x = 1\n", "mine-1.0/gpl/b.py": "x", "mine-1.0/debian/old": "x"},
            "w:gz",
        ),
        tar(tmp_path / "mine_1.0.orig-extra.tar.xz", {"extra-2/c.py": "x = 3\n"}, "w:xz"),
        tar(tmp_path / "mine_1.0-1.debian.tar.xz", {"debian/copyright": DEP5, "debian/rules": "x"}, "w:xz"),
    ]
    signature = tmp_path / "mine_1.0.orig.tar.gz.asc"
    signature.write_text("-----BEGIN PGP SIGNATURE-----\n")
    package = debian(tmp_path, [*archives, signature])
    signature.unlink()  # nobody needs it to read the source
    repository = only(package)
    assert [file.path for file in repository.files] == [
        "a.py",
        "debian/copyright",
        "debian/rules",
        "extra/c.py",
        "gpl/b.py",
    ]
    read = sources.reader(repository.root, repository.files)
    assert read(repository.files[3]) == b"x = 3\n"
    stated = {path: repository.coverage.of(path) for path in ("a.py", "gpl/b.py")}
    assert {path: each.expression if each else "" for path, each in stated.items()} == {
        "a.py": "MIT",
        "gpl/b.py": "GPL-3.0-or-later",
    }
    assert [each.name for each in sources.repositories([f"archive:{tmp_path}"])] == ["mine_1.0-1"]
    archives[0].write_bytes(archives[0].read_bytes()[:-1] + b"x")
    (file,) = only(tmp_path / "mine_1.0-1.dsc").files
    assert (file.trouble, file.detail) == (
        "damaged_archive",
        "mine_1.0.orig.tar.gz does not have the checksum that the .dsc file states",
    )


def test_a_source_package_without_its_files_is_reported(tmp_path: Path) -> None:
    gone = tar(tmp_path / "mine_1.0.orig.tar.gz", {"a.py": "x"}, "w:gz")
    file = debian(tmp_path, [gone])
    gone.unlink()
    assert only(file).files[0].detail == "mine_1.0.orig.tar.gz is missing"


# Hostile archives


def bomb_of_zeros(file: Path) -> Path:
    return tar(file, {"a.py": bytes(20_000_000)}, "w:gz")


def many_files(file: Path) -> Path:
    return tar(file, {f"{number}.py": "" for number in range(1_001)})


def large(file: Path) -> Path:
    return tar(file, {f"{number}.py": random.Random(number).randbytes(8_000_000) for number in range(4)})


def zip_bomb(file: Path) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.py", bytes(20_000_000))
    return file


def overlapping(file: Path) -> Path:
    """A zip file whose members share their bytes: the directory names one of 1 MB two hundred times."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0000.py", bytes(1_000_000))
        info = archive.infolist()[0]
        for number in range(1, 200):
            copy = zipfile.ZipInfo(f"{number:04}.py")
            for name in ("file_size", "compress_size", "CRC", "compress_type", "header_offset"):
                setattr(copy, name, getattr(info, name))
            archive.filelist.append(copy)
    return file


def zeros_after_the_end(file: Path) -> Path:
    file.write_bytes(gzip.compress(bytes(25_000_000)))
    return file


def long_header(file: Path) -> Path:
    header = member("././@LongLink", b"L")
    header.size = 1 << 33
    file.write_bytes(header.tobuf(tarfile.GNU_FORMAT))
    return file


LIMITS: Final[dict[str, tuple[str, Callable[[Path], Path], str]]] = {
    "ratio": ("a.tar.gz", bomb_of_zeros, "more than 50 times its size"),
    "ratio of a zip": ("a.zip", zip_bomb, "more than 50 times its size"),
    "overlapping members": ("a.zip", overlapping, "more than 50 times its size"),
    "zeros after the end": ("a.tar.gz", zeros_after_the_end, "more than 50 times its size"),
    "total size": ("a.tar", large, "more than 30000000 bytes"),
    "number of files": ("a.tar", many_files, "more than 1000 files"),
    "a header of gigabytes": ("a.tar", long_header, "a header of 8589934592 bytes"),
}


@pytest.mark.parametrize(("name", "make", "message"), LIMITS.values(), ids=LIMITS)
def test_a_bomb_costs_itself(tmp_path: Path, name: str, make: Callable[[Path], Path], message: str) -> None:
    (file,) = only(make(tmp_path / name)).files
    assert (file.path, file.trouble) == (".", "archive_limit")
    assert message in file.detail


def test_members_that_are_no_files_of_the_archive_are_reported(tmp_path: Path) -> None:
    file = special_tar(
        tmp_path / "a.tar",
        *(member(f"a/{name}") for name in ("good.py", "twice.py", "./twice.py", "sub/x.py", "sub", "line\nbreak.py")),
        *(member(name) for name in ("../out.py", "a/../../out.py", "/etc/passwd", "C:\\x.py")),
        member("a/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("a/hard", tarfile.LNKTYPE, "a/good.py"),
        member("a/null", tarfile.CHRTYPE),
        member("a/disk", tarfile.BLKTYPE),
        member("a/pipe", tarfile.FIFOTYPE),
        member("a/\udcff.py"),
    )
    assert troubles(file) == {
        "../out.py": "bad_name",
        "/etc/passwd": "bad_name",
        "C:\\x.py": "bad_name",
        "\\udcff.py": "bad_name",
        "a/../../out.py": "bad_name",
        "disk": "special_file",
        "hard": "special_file",
        "line\nbreak.py": "bad_name",
        "link": "symlink",
        "null": "special_file",
        "pipe": "special_file",
        "sub": "duplicate_name",
        "twice.py": "duplicate_name",
    }


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_a_zip_file_that_cannot_be_taken_are_reported(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a/good.py", "a/twice.py", "a/twice.py", "a\\windows.py", "../out.py"):
            archive.writestr(name, "x")
        archive.writestr(link, "good.py")
        archive.writestr("a/lzma.py", "x", zipfile.ZIP_LZMA)
        archive.writestr("a/secret.py", "x")
        archive.filelist[-1].flag_bits |= 1
    repository = only(tmp_path / "a.zip")
    assert {file.path: (file.trouble, file.detail) for file in repository.files} == {
        "../out.py": ("bad_name", "it leads out of the archive"),
        "good.py": ("", ""),
        "link": ("symlink", ""),
        "lzma.py": ("unreadable", "compression method 14 is not supported"),
        "secret.py": ("unreadable", "it is encrypted"),
        "twice.py": ("duplicate_name", "more than one file has this path"),
        "windows.py": ("", ""),
    }


@pytest.mark.parametrize(("name", "expected"), [("é.py".encode(), "é.py"), (b"\xe9.py", "\\udce9.py")])
def test_names_without_an_encoding_are_utf8_or_bad(tmp_path: Path, name: bytes, expected: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("_" * len(name), "x")
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes().replace(b"_" * len(name), name))
    (file,) = only(tmp_path / "a.zip").files
    assert (file.path, file.trouble) == (expected, "bad_name" if "udc" in expected else "")


def test_a_stream_that_needs_much_memory_is_refused(tmp_path: Path) -> None:
    data = bytearray(tar(tmp_path / "a.tar.xz", {"a.py": "x"}, "w:xz").read_bytes())
    end = 12 + (data[12] + 1) * 4  # of the block's header, after that of the stream
    data[16] = 40  # a dictionary of 4 GB
    data[end - 4 : end] = zlib.crc32(data[12 : end - 4]).to_bytes(4, "little")
    (tmp_path / "a.tar.xz").write_bytes(data)
    (file,) = only(tmp_path / "a.tar.xz").files
    assert file.trouble == "damaged_archive"
    assert "Memory usage limit" in file.detail


@pytest.mark.parametrize("spoilt", ["LICENSE twice", "LICENSE is a device", "LICENSE leads out", "LICENSE is both"])
def test_a_licence_that_cannot_be_read_permits_nothing(tmp_path: Path, spoilt: str) -> None:
    licence = {
        "LICENSE twice": [member("a/LICENSE"), member("a/LICENSE")],
        "LICENSE is a device": [member("a/LICENSE", tarfile.CHRTYPE)],
        "LICENSE leads out": [member("a/LICENSE", tarfile.SYMTYPE, "../../LICENSE")],
        "LICENSE is both": [member("a/LICENSE"), member("a/LICENSE/x.py")],
    }[spoilt]
    file = special_tar(tmp_path / "a.tar", member("a/a.py"), *licence)
    with tarfile.open(file, "a") as archive:
        info = member("a/package.json")
        info.size = 18
        archive.addfile(info, io.BytesIO(b'{"license": "MIT"}'))
    stated = only(file).coverage.of("a.py")
    assert stated is not None
    assert not stated.is_known


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_archive_costs_itself(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    packed = tmp_path / f"packed.{kind}"
    if not packed.exists():
        pack(write_files(tmp_path / "mine", {"LICENSE": MIT, "a.py": "x = 1\n" * 50, "b/c.py": "x"}), kind)
    content = bytearray(packed.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / f"damaged.{kind}"
    damaged.write_bytes(content)
    repository = only(damaged)
    read = sources.reader(repository.root, repository.files)
    for file in repository.files:
        with contextlib.suppress(UnreadableError):
            assert file.trouble or len(read(file)) == file.size


def test_a_truncated_archive_is_reported(tmp_path: Path) -> None:
    for kind in KINDS:
        packed = pack(write_files(tmp_path / "mine", {"LICENSE": MIT, "a.py": "x = 1\n" * 5_000}), kind)
        packed.write_bytes(packed.read_bytes()[:-1500] if kind == "tar" else packed.read_bytes()[:-30])
        files = only(packed).files
        assert kind == "tar" or [file.trouble for file in files] == ["damaged_archive"], kind


def test_an_archive_in_an_archive_is_not_opened(tmp_path: Path) -> None:
    inner = tar(tmp_path / "inner" / "a.tar.gz", {"a.py": "x = 1\n"}, "w:gz").read_bytes()
    tar(
        tmp_path / "in" / "outer.tar",
        {"o/LICENSE": MIT, "o/b.py": "x = 1\n", "o/inner.tar.gz": inner, "o/i.whl": inner},
    )
    run_stage("corpus", CorpusConfig(sources=(f"archive:{tmp_path / 'in'}",)), str(tmp_path / "out"))
    removed = storage.read_table(str(tmp_path / "out" / "removed")).to_pylist()
    assert {row["path"]: row["reason"] for row in removed if row["path"] != "LICENSE"} == dict.fromkeys(
        ("inner.tar.gz", "i.whl"), "binary_name"
    )


@pytest.mark.parametrize(
    ("place", "message"), [("nothing", "does not exist; name a source archive"), ("", "holds no archive")]
)
def test_a_place_without_archives_is_refused(tmp_path: Path, place: str, message: str) -> None:
    write_files(tmp_path, {"a.py": "x"})
    with pytest.raises(InputError, match=message):
        list(sources.repositories([f"archive:{tmp_path / place}"]))


def test_the_corpus_of_an_archive_is_that_of_its_folder(tmp_path: Path) -> None:
    files = {f"pkg/{number}.py": f"x_{number} = {number}\n" * 40 for number in range(30)}
    folder = write_files(tmp_path / "mine" / "packed", {"LICENSE": MIT, **files})
    file = pack(folder, "tar.gz")
    outputs = {}
    for name, source in {"dir": f"dir:{folder}", "archive": f"archive:{file}"}.items():
        run_stage("corpus", CorpusConfig(sources=(source,), shard_bytes=4_000), str(tmp_path / name))
        outputs[name] = {
            path.relative_to(tmp_path / name): [row | {"source": ""} for row in pq.read_table(path).to_pylist()]
            for path in (tmp_path / name).rglob("*.parquet")
        }
    assert len(outputs["dir"]) >= 6
    assert outputs["dir"] == outputs["archive"]


def test_the_fingerprint_follows_the_archive(tmp_path: Path) -> None:
    file = tar(tmp_path / "a.tar", {"a.py": "x"})
    before = sources.fingerprint([f"archive:{tmp_path}"])
    assert sources.fingerprint([f"archive:{tmp_path}"]) == before
    os.utime(file, ns=(1, 1))
    assert sources.fingerprint([f"archive:{tmp_path}"]) != before
