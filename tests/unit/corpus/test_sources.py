"""Sources: what is a repository, which files it has, and that hostile folders do no harm."""

import os
from pathlib import Path

import pytest

from infill.corpus import sources
from infill.errors import InputError
from tests.unit.corpus.folders import GPL, MIT, write_files, write_repositories


def names(folder: Path) -> list[str]:
    return [repository.name for repository in sources.repositories([f"dir:{folder}"])]


def stated(repository: sources.Repository, path: str = "a.py") -> str | None:
    statement = repository.coverage.of(path)
    return statement.expression if statement else None


def only(folder: Path) -> sources.Repository:
    (repository,) = sources.repositories([f"dir:{folder}"])
    return repository


def test_each_sub_folder_is_a_repository(tmp_path: Path) -> None:
    write_repositories(tmp_path, 2)
    (tmp_path / "empty").mkdir()
    write_files(tmp_path, {"unlicensed/a.py": "x", "beside.py": "x"})
    repositories = {repository.name: repository for repository in sources.repositories([f"dir:{tmp_path}"])}
    assert list(repositories) == ["empty", "repo_0", "repo_1", "unlicensed"]
    assert repositories["empty"].files == ()
    assert stated(repositories["repo_0"], "a.py") == "MIT"
    assert stated(repositories["unlicensed"], "a.py") is None


@pytest.mark.parametrize("mark", ["LICENSE", ".git/HEAD", "pyproject.toml"])
def test_a_marked_folder_is_one_repository(tmp_path: Path, mark: str) -> None:
    write_files(tmp_path / "mine", {mark: "x", "a/b.py": "x", "c/d.py": "x"})
    assert names(tmp_path / "mine") == ["mine"]


def test_owners_hold_repositories(tmp_path: Path) -> None:
    write_files(
        tmp_path, {"psf/requests/LICENSE": MIT, "psf/other/a.py": "x", "plain/src/LICENSE": MIT, "plain/a.py": "x"}
    )
    assert names(tmp_path) == ["plain", "psf/other", "psf/requests"]


HOLDERS = {
    "files beside": ({"README.md": "x", ".DS_Store": "x", "a/LICENSE": MIT, "b/.git/HEAD": "x"}, ["a", "b"]),
    "host, owner and repository": (
        {"git.example/psf/one/LICENSE": MIT, "git.example/psf/two/setup.py": "x", "git.example/index.txt": "x"},
        ["git.example/psf/one", "git.example/psf/two"],
    ),
    "one depth and another": ({"a/LICENSE": MIT, "b/c/d/.git/HEAD": "x"}, ["a", "b/c/d"]),
    "a worktree": ({"a/.git": "gitdir: elsewhere", "a/x.py": "x"}, ["a"]),
    "no mark anywhere": ({"a/x.py": "x", "b/src/y.py": "x"}, ["a", "b"]),
    "no mark, but code": ({"a/x.py": "x", "a/src/COPYING": MIT, "b/package.json": "{}"}, ["a", "b"]),
    "an owner with and without marks": ({"psf/one/LICENSE": MIT, "psf/two/src/x.py": "x"}, ["psf/one", "psf/two"]),
    "a clone inside": ({"a/LICENSE": MIT, "a/lib/b/.git/HEAD": "x", "a/lib/b/LICENSE": MIT}, ["a", "a/lib/b"]),
    "a submodule inside": ({"a/LICENSE": MIT, "a/lib/b/.git": "gitdir: x", "a/lib/b/LICENSE": MIT}, ["a"]),
    "packages of one repository": ({"a/package.json": "{}", "a/packages/b/package.json": "{}"}, ["a"]),
}


@pytest.mark.parametrize(("files", "expected"), HOLDERS.values(), ids=HOLDERS)
def test_repositories_are_found_by_their_marks(tmp_path: Path, files: dict[str, str], expected: list[str]) -> None:
    write_files(tmp_path, files)
    assert names(tmp_path) == expected


def test_every_file_is_in_one_repository_or_reported(tmp_path: Path) -> None:
    for number, (files, _) in enumerate(HOLDERS.values()):
        folder = write_files(tmp_path / str(number), files)
        listed = [
            str((Path(repository.root) / file.path).relative_to(folder.resolve()))
            for repository in sources.repositories([f"dir:{folder}"])
            for file in repository.files
        ]
        listed += [entry.file.path for entry in sources.beside([f"dir:{folder}"])]
        tools = {path for path in files if ".git" in path or path == ".DS_Store"}
        below_submodules = {path for path in files if path.startswith("a/lib/b/")}
        assert set(files) - tools - below_submodules <= set(listed)
        assert len(set(listed)) == len(listed)


def test_files_next_to_the_repositories_are_reported(tmp_path: Path) -> None:
    write_files(tmp_path, {"README.md": "x", "owner/notes.txt": "x", "owner/a/LICENSE": MIT, ".DS_Store": "x"})
    repositories = {(entry.file.path, entry.file.trouble) for entry in sources.beside([f"dir:{tmp_path}"])}
    assert repositories == {("README.md", "beside"), ("owner/notes.txt", "beside")}


def test_links_in_circles_end(tmp_path: Path) -> None:
    write_files(tmp_path, {"owner/a/LICENSE": MIT})
    (tmp_path / "owner" / "up").symlink_to(tmp_path)
    assert names(tmp_path) == ["owner/a"]


def test_equal_names_are_distinguished(tmp_path: Path) -> None:
    write_repositories(tmp_path / "a", 1)
    write_repositories(tmp_path / "b", 1)
    repositories = sources.repositories([f"dir:{tmp_path / 'a'}", f"dir:{tmp_path / 'b'}"])
    assert [repository.name for repository in repositories] == ["repo_0", "repo_0~2"]


def test_files_come_in_the_order_of_their_paths_without_what_tools_leave(tmp_path: Path) -> None:
    files = ["LICENSE", "b.py", "a/z.py", "a.py", ".git/config", "a/__pycache__/z.pyc", ".tox/x.py", "build/out.py"]
    write_files(tmp_path, dict.fromkeys(files, "x"))
    write_files(tmp_path, {".gitignore": "build/\n"})
    assert [file.path for file in only(tmp_path).files] == [".gitignore", "LICENSE", "a.py", "a/z.py", "b.py"]


def test_what_cannot_be_taken_says_why(tmp_path: Path) -> None:
    write_files(tmp_path / "secret", {"key.py": "x"})
    root = write_files(tmp_path / "r", {"LICENSE": MIT, "a.py": "x", "node_modules/m/i.js": "x", "sub/.git/HEAD": "x"})
    write_files(root, {"line\nbreak.py": "x", "sub/b.py": "x"})
    os.mkfifo(root / "fifo.py")
    (root / "out.py").symlink_to(tmp_path / "secret" / "key.py")
    (root / "loop").symlink_to(root)
    with open(os.fsencode(root) + b"/\xff.py", "wb"):
        pass
    (repository, clone) = sources.repositories([f"dir:{root}"])
    assert clone.name == "r/sub"
    troubles = {file.path: file.trouble for file in repository.files if file.trouble}
    assert troubles == {
        "fifo.py": "special_file",
        "line\nbreak.py": "bad_name",
        "loop": "symlink",
        "node_modules/": "vendored",
        "out.py": "symlink",
        "sub/": "own_repository",
        "\\udcff.py": "bad_name",
    }


def test_a_licence_may_be_a_link_inside_the_repository_only(tmp_path: Path) -> None:
    write_files(tmp_path, {"inside/docs/MIT": MIT, "outside/a.py": "x", "elsewhere/a.py": "x", "MIT": MIT})
    (tmp_path / "inside" / "LICENSE").symlink_to("docs/MIT")
    (tmp_path / "outside" / "LICENSE").symlink_to(tmp_path / "MIT")
    (tmp_path / "elsewhere" / "LICENSE").symlink_to("LICENSE")
    repositories = {repository.name: stated(repository) for repository in sources.repositories([f"dir:{tmp_path}"])}
    assert repositories == {"elsewhere": "NOASSERTION", "inside": "MIT", "outside": "NOASSERTION"}


def test_a_repository_may_be_linked_into_the_folder(tmp_path: Path) -> None:
    write_repositories(tmp_path / "elsewhere", 1)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "mine").symlink_to(tmp_path / "elsewhere" / "repo_0")
    (repository,) = sources.repositories([f"dir:{tmp_path / 'linked'}"])
    assert repository.name == "mine"
    assert stated(repository) == "MIT"
    assert len(repository.files) == 4


def test_a_licence_further_down_counts_for_what_is_below_it(tmp_path: Path) -> None:
    root = write_files(
        tmp_path / "r", {"LICENSE": MIT, "lib/gpl/COPYING": GPL, "lib/LICENSE": "our own words: do not use"}
    )
    repository = only(root)
    assert stated(repository, "a.py") == "MIT"
    assert stated(repository, "lib/a.py") == "NOASSERTION"
    assert stated(repository, "lib/gpl/deep/a.py") == "GPL-3.0-only AND LicenseRef-unrecognised"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("dir:/no/such/folder", "does not exist; name the folder that holds the repositories"),
        (f"dir:{__file__}", "is a file; name the folder"),
        ("dir:", "is not a source"),
        ("https://example.org", "is not a source"),
        ("packages:numpy", "is not a source"),
    ],
)
def test_a_wrong_source_is_refused(source: str, message: str) -> None:
    for look in (sources.fingerprint, lambda given: list(sources.repositories(given))):
        with pytest.raises(InputError, match=message):
            look([source])


def test_a_folder_without_repositories_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path, {"loose.py": "x"})
    with pytest.raises(InputError, match="holds no repository"):
        names(tmp_path)


def test_installed_packages_are_repositories() -> None:
    repositories = {repository.name: repository for repository in sources.repositories(["packages:"])}
    pytest_ = repositories["pytest"]
    assert stated(pytest_, "pytest/__init__.py") == "MIT"
    paths = [file.path for file in pytest_.files]
    assert "pytest/__init__.py" in paths
    assert paths == sorted(paths)
    assert not any(".dist-info/" in path or "__pycache__" in path or path.startswith("..") for path in paths)
    assert list(repositories) == sorted(repositories)


@pytest.mark.parametrize("changed", ["code/repo_0/LICENSE", "code/repo_0/new.py", "elsewhere/repo_0/LICENSE"])
def test_the_fingerprint_follows_the_files(tmp_path: Path, changed: str) -> None:
    write_repositories(tmp_path / "elsewhere", 1)
    write_files(write_repositories(tmp_path / "code", 1), {"repo_0/.git/HEAD": "x"})
    (tmp_path / "code" / "linked").symlink_to(tmp_path / "elsewhere" / "repo_0")
    source = [f"dir:{tmp_path / 'code'}"]
    before = sources.fingerprint(source)
    assert sources.fingerprint(source) == before
    write_files(tmp_path, {changed: MIT})
    os.utime(tmp_path / changed, ns=(1, 1))
    assert sources.fingerprint(source) != before


def test_the_fingerprint_of_the_packages_stays() -> None:
    assert sources.fingerprint(["packages:"]) == sources.fingerprint(["packages:"])


def test_a_folder_that_is_named_like_a_licence_is_a_repository_of_its_own(tmp_path: Path) -> None:
    write_files(tmp_path, {"license/a.py": "x = 1\n", "setup-tools/a.py": "x = 2\n", "my-licence/src/a.py": "x = 3\n"})
    names = [repository.name for repository in sources.repositories([f"dir:{tmp_path}"])]
    assert names == ["license", "my-licence", "setup-tools"]
