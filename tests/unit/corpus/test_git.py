"""Git repositories as a source: what is read through objects is what a checkout holds; hostile ones do no harm."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infill import storage
from infill.config import CorpusConfig
from infill.corpus import sources
from infill.errors import InputError
from tests.builders import run_stage
from tests.unit.corpus.folders import GPL, MIT, write_files, write_repositories

ENVIRONMENT = {
    **{f"GIT_{who}_{what}": "somebody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    **dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), "2024-02-29T13:00:00+01:00"),
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ALLOW_PROTOCOL": "file",
    "PATH": os.environ["PATH"],
}
DEFAULTS = CorpusConfig()
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"


def git(folder: Path, *arguments: str, stdin: bytes = b"") -> str:
    command = ["git", "-C", str(folder), *arguments]
    return (
        subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, input=stdin).stdout.decode().strip()
    )


def commit(folder: Path) -> str:
    """Commit all that is in a folder, also what is ignored; returns the commit's id."""
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all", "--force", ".")
    git(folder, "commit", "--quiet", "--allow-empty", "--message=x")
    return git(folder, "rev-parse", "HEAD")


def only(source: str, config: CorpusConfig = DEFAULTS) -> sources.Repository:
    (repository,) = sources.repositories([source], config)
    return repository


def view(repository: sources.Repository) -> list[tuple[object, ...]]:
    """What matters of a repository's files, with their contents and licences."""
    read = sources.reader(repository.root, repository.files)
    return [
        (file.path, file.size, file.trouble, b"" if file.trouble else read(file), repository.coverage.of(file.path))
        for file in repository.files
    ]


NAMES = st.sampled_from(
    [
        "a.py",
        "b",
        "é.py",
        "LICENSE",
        "COPYING",
        "LICENSE.txt",
        "package.json",
        "REUSE.toml",
        "node_modules",
        "Vendor",
        "__pycache__",
        "x\ny",
        "sp ace",
        "a",
        "docs",
        "-n",
        "a\\b",
        ".gitattributes",
        ".DS_Store",
    ]
)
CONTENTS = st.sampled_from(
    [
        MIT,
        GPL,
        "",
        "x = 1\n",
        '{"license": "ISC"}',
        "all rights reserved",
        "\0",
        "é",
        POINTER,
        'version = 1\n[[annotations]]\npath="**"\nSPDX-License-Identifier="0BSD"\n',
    ]
)
TARGETS = st.sampled_from(
    ["LICENSE", "../LICENSE", "docs/LICENSE", "docs", ".", "..", "/etc/hostname", "nowhere/../LICENSE", "b"]
)
ENTRIES = st.tuples(st.lists(NAMES, min_size=1, max_size=3), CONTENTS, st.none() | TARGETS)


def write_tree(root: Path, entries: list[tuple[list[str], str, str | None]]) -> None:
    """Write files and links where nothing is in their way."""
    root.mkdir(parents=True)
    for steps, content, target in entries:
        path = root.joinpath(*steps)
        above = [each for each in path.parents if root in each.parents]
        if os.path.lexists(path) or any(
            os.path.lexists(each) and (each.is_symlink() or not each.is_dir()) for each in above
        ):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if target is None:
            path.write_bytes(content.encode())
        else:
            path.symlink_to(target)


@given(st.lists(ENTRIES, min_size=1, max_size=12))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_commit_is_read_as_its_checkout(tmp_path: Path, entries: list[tuple[list[str], str, str | None]]) -> None:
    work = tmp_path / str(len(list(tmp_path.iterdir()))) / "work"
    write_tree(work, entries)
    head = commit(work)
    read = only(f"git:{work}")
    assert view(read) == view(only(f"dir:{work}"))
    assert {(file.commit, file.date) for file in read.files} <= {(head, "2024-02-29T12:00:00Z")}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["bare", "ordinary", ".git", "worktree", "shared"])
def test_every_form_of_repository_is_read(tmp_path: Path, kind: str, packed: bool) -> None:
    work = write_files(tmp_path / "mine", {"LICENSE": MIT, **{f"{number}.py": "x\n" * number for number in range(9)}})
    commit(work)
    if packed:
        git(work, "gc", "--quiet")
    clone = {"bare": "mine.git", ".git": "mine/.git"}.get(kind, "mine")
    if kind == "bare":
        git(tmp_path, "clone", "--quiet", "--bare", "mine", "mine.git")
    elif kind == "worktree":
        git(work, "worktree", "add", "--quiet", "../tree/mine")
        clone = "tree/mine"
    elif kind == "shared":
        git(tmp_path, "clone", "--quiet", "--shared", "--no-checkout", "mine", "copy/mine")
        clone = "copy/mine"
    repository = only(f"git:{tmp_path}/{clone}")
    assert repository.name == "mine"
    assert view(repository) == view(only(f"dir:{work}"))


def test_a_revision_is_a_branch_a_tag_or_a_commit(tmp_path: Path) -> None:
    work = write_files(tmp_path / "a@b", {"LICENSE": MIT, "a.py": "x = 1\n"})
    first = commit(work)
    git(work, "tag", "--annotate", "--message=x", "v1.0")
    git(work, "branch", "feature/x@y")
    write_files(work, {"a.py": "x = 2\n"})
    second = commit(work)
    expected = {"": second, "@main": second, "@v1.0": first, "@feature/x@y": first, "@HEAD~1": first}
    expected |= {f"@{first[:10]}": first, "@HEAD@{1}": first, "@main~1": first}
    assert {written: only(f"git:{work}{written}").files[0].commit for written in expected} == expected


def test_a_revision_that_does_not_exist_is_reported_with_those_that_do(tmp_path: Path) -> None:
    work = write_files(tmp_path / "r", {"a.py": "x = 1\n"})
    commit(work)
    git(work, "tag", "v1.0")
    for look in (lambda name: list(sources.repositories([name])), lambda name: sources.fingerprint([name])):
        with pytest.raises(InputError, match=r"git:.*/r: the repository has no revision 'v2'; it has main, v1.0"):
            look(f"git:{work}@v2")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nothing", "does not exist; name a clone"),
        ("nothing@v1", "does not exist; name a clone"),
        ("plain", "holds no Git repository"),
        ("empty", "the repository has no commit"),
        ("plain/a.py", "is a file"),
        ("broken", "not valid"),
        ("blob@file", "not valid|no commit"),
    ],
)
def test_what_is_not_a_repository_is_reported(tmp_path: Path, place: str, message: str) -> None:
    write_files(tmp_path, {"plain/a.py": "x", "broken/.git/HEAD": "x", "blob/a.py": "x"})
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "--quiet")
    commit(tmp_path / "blob")
    git(tmp_path / "blob", "tag", "file", git(tmp_path / "blob", "rev-parse", "HEAD:a.py"))
    with pytest.raises(InputError, match=message):
        list(sources.repositories([f"git:{tmp_path}/{place}"]))


@pytest.mark.parametrize("source", ["git:", "git:@v1", "git:https://example.org/x.git", "git:ssh://git@example.org/x"])
def test_a_place_that_is_not_a_folder_is_refused(source: str) -> None:
    with pytest.raises(InputError, match=r"is not a source|is not on this machine: clone"):
        list(sources.repositories([source]))


def test_a_folder_of_repositories_is_read_and_an_unreadable_one_costs_itself(tmp_path: Path) -> None:
    for name in ("owner/one", "owner/deep/two"):
        commit(write_files(tmp_path / name, {"LICENSE": MIT, "a.py": "x = 1\n", "lib/inner/.keep": ""}))
    git(tmp_path, "clone", "--quiet", "--bare", "owner/one", "mirror/three.git")
    write_files(tmp_path, {"owner/broken/.git/HEAD": "x", "README.md": "x"})
    repositories = {repository.name: repository.files for repository in sources.repositories([f"git:{tmp_path}"])}
    assert list(repositories) == ["mirror/three", "owner/broken", "owner/deep/two", "owner/one"]
    assert [file.trouble for file in repositories["owner/broken"]] == ["unreadable"]
    assert [file.path for file in repositories["mirror/three"]] == ["LICENSE", "a.py", "lib/inner/.keep"]


def test_submodules_and_pointers_are_reported_and_ignored_files_are_read(tmp_path: Path) -> None:
    commit(write_files(tmp_path / "other", {"LICENSE": MIT, "b.py": "x = 1\n"}))
    work = write_files(tmp_path / "r", {"LICENSE": MIT, ".gitignore": "*.py\n", "a.py": "x = 1\n", "big.js": POINTER})
    commit(work)
    git(work, "submodule", "--quiet", "add", str(tmp_path / "other"), "lib/other")
    head = commit(work)
    config = CorpusConfig(sources=(f"git:{work}",), languages=("python",))
    run_stage("corpus", config, str(tmp_path / "out"))
    documents = storage.read_table(str(tmp_path / "out" / "documents")).to_pylist()
    assert [(row["path"], row["commit"], row["date"]) for row in documents] == [("a.py", head, "2024-02-29T12:00:00Z")]
    report = storage.read_json(str(tmp_path / "out" / "report.json"))
    assert report["commits"] == {"r": {"commit": head, "date": "2024-02-29T12:00:00Z"}}
    assert "1 of 1 repositories were read at a commit" in (tmp_path / "out" / "DATASHEET.md").read_text()
    removed = {
        row["path"]: (row["reason"], row["detail"])
        for row in storage.read_table(str(tmp_path / "out" / "removed")).to_pylist()
    }
    assert removed["lib/other/"] == ("vendored", "a submodule, which is not read")
    assert removed["big.js"] == ("lfs_pointer", "Git LFS has the content, 12345 bytes")


def test_other_documents_have_no_commit(tmp_path: Path) -> None:
    run_stage(
        "corpus", CorpusConfig(sources=(f"dir:{write_repositories(tmp_path / 'code', 1)}",)), str(tmp_path / "out")
    )
    rows = storage.read_table(str(tmp_path / "out" / "documents")).to_pylist()
    assert {(row["commit"], row["date"]) for row in rows} == {(None, None)}


def test_the_fingerprint_follows_the_commit_and_not_the_files(tmp_path: Path) -> None:
    work = write_files(tmp_path / "r", {"a.py": "x = 1\n"})
    commit(work)
    source = [f"git:{work}"]
    before = sources.fingerprint(source)
    write_files(work, {"a.py": "x = 2\n", "b.py": "x = 1\n"})
    assert sources.fingerprint(source) == before
    commit(work)
    assert sources.fingerprint(source) != before


def test_a_few_objects_that_name_billions_of_files_cost_their_repository(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "bomb.git")
    bomb = tmp_path / "bomb.git"
    entry = f"100644 blob {git(bomb, 'hash-object', '-w', '--stdin', stdin=b'x')}"
    for _ in range(10):
        tree = git(bomb, "mktree", stdin="".join(f"{entry}\t{number}\n" for number in range(10)).encode())
        entry = f"040000 tree {tree}"
    head = git(bomb, "commit-tree", tree, "-m", "x")
    git(bomb, "update-ref", "HEAD", head)
    (file,) = only(f"git:{bomb}", CorpusConfig(max_repository_files=1_000)).files
    assert (file.trouble, file.detail) == (
        "unreadable",
        "the repository has more than 1000 files (corpus.max_repository_files)",
    )


def test_names_that_no_checkout_has_are_reported(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "odd.git")
    odd = tmp_path / "odd.git"
    blob = bytes.fromhex(git(odd, "hash-object", "-w", "--stdin", stdin=b"x"))
    names = [b"..", b".", b"a/b.py", b"\xff.py", b"good.py"]
    data = b"".join(b"100644 %b\0%b" % (name, blob) for name in sorted(names))
    tree = git(odd, "hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=data)
    git(odd, "update-ref", "HEAD", git(odd, "commit-tree", tree, "-m", "x"))
    by_name = {file.path: file.trouble for file in only(f"git:{odd}").files}
    assert by_name.pop("good.py") == ""
    assert set(by_name.values()) == {"bad_name"}


def test_a_missing_object_costs_its_file(tmp_path: Path) -> None:
    work = write_files(tmp_path / "r", {"LICENSE": MIT, "a.py": "x = 1\n", "b.py": "x = 2\n"})
    commit(work)
    lost = git(work, "rev-parse", "HEAD:a.py")
    (work / ".git" / "objects" / lost[:2] / lost[2:]).unlink()
    troubles = {file.path: file.trouble for file in only(f"git:{work}").files}
    assert troubles == {"LICENSE": "", "a.py": "unreadable", "b.py": ""}
