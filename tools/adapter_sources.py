"""Fetch and unpack the packages that the shipped adapter is trained on.

    python -m tools.adapter_sources models/smollm2-135m-fim/sources.txt out/adapter/sources

A line of the list is `pypi NAME==VERSION` or `npm NAME@VERSION`; without a version it is the newest, and the line with
it is printed, to be written into the list. What is there is not fetched again. Files that hold a long line of a
HumanEval task are left out, so that the benchmark measures what was learned; with --without-tests, tests and
documentation are too.
"""

import argparse
import contextlib
import hashlib
import io
import logging
import os
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Final
from urllib.parse import urljoin

import httpx
from packaging.utils import InvalidSdistFilename, parse_sdist_filename
from packaging.version import InvalidVersion, Version

from infill import entry
from infill.evaluate import humaneval
from infill.text import read_text, split_lines

PROGRAM: Final = "python -m tools.adapter_sources"
PYPI: Final = "https://pypi.org/simple"
log = logging.getLogger("adapter_sources")

NPM: Final = "https://registry.npmjs.org"
DOCUMENTATION: Final = {"doc", "docs"}
LONG_LINE: Final = 40
"""A line of a task with so many characters names the task; shorter ones stand in everybody's code."""


def main() -> None:
    parser = entry.Parser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--without-tests", action="store_true", help="leave out tests and documentation")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    forbidden = benchmark_lines() if os.environ.get(humaneval.FOLDER) else None
    if forbidden is None:
        log.warning("%s is not set: files that hold a task of HumanEval are not looked for", humaneval.FOLDER)
    for line in split_lines(read_text(options.list)):
        if not line.startswith(("pypi ", "npm ")):
            continue
        index, _, wanted = line.partition(" ")
        name, version, url, digest = (pypi if index == "pypi" else npm)(wanted.strip())
        place = options.folder / f"{name.replace('/', '_')}-{version}"
        log.info("%s %s%s%s", index, name, "==" if index == "pypi" else "@", version)
        if not place.exists():
            unpack(download(url, digest), place, without_tests=options.without_tests)
            for path in holding(place, forbidden or frozenset()):
                log.info("%s holds a task of HumanEval: left out", path)
                path.unlink()


def pypi(wanted: str) -> tuple[str, str, str, str]:
    """Return name, version, URL and SHA-256 of a source distribution, as the index tells by PEP 691."""
    name, _, version = wanted.partition("==")
    page = httpx.get(
        f"{PYPI}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}, timeout=60, follow_redirects=True
    )
    page.raise_for_status()
    files = {}
    for file in page.json()["files"]:
        with contextlib.suppress(InvalidSdistFilename, InvalidVersion):
            files[parse_sdist_filename(file["filename"])[1]] = file
    stable = [each for each in files if not each.is_prerelease]
    if not stable or (version and Version(version) not in files):
        raise SystemExit(f"{wanted} has no source distribution on PyPI: take it off the list")
    chosen = Version(version) if version else max(stable)
    return name, str(chosen), urljoin(str(page.url), files[chosen]["url"]), files[chosen]["hashes"]["sha256"]


def npm(wanted: str) -> tuple[str, str, str, str]:
    """Return name, version, URL and SHA-1 of a package's archive."""
    name, _, version = wanted.rpartition("@") if "@" in wanted[1:] else (wanted, "", "latest")
    page = httpx.get(f"{NPM}/{name}/{version}", timeout=60, follow_redirects=True)
    page.raise_for_status()
    release = page.json()
    return name, release["version"], urljoin(str(page.url), release["dist"]["tarball"]), release["dist"]["shasum"]


def download(url: str, digest: str) -> bytes:
    answer = httpx.get(url, timeout=300, follow_redirects=True)
    answer.raise_for_status()
    kind = hashlib.sha256 if len(digest) == 64 else hashlib.sha1  # npm tells SHA-1 alone in a form that is hexadecimal
    if kind(answer.content).hexdigest() != digest:
        raise SystemExit(f"{url} does not have the digest {digest} that the index tells: try again")
    return answer.content


def unpack(archive: bytes, place: Path, *, without_tests: bool = False) -> None:
    """Unpack a tar archive with one folder at its top into `place`, which appears whole."""
    partial = place.with_name(f"{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(partial, filter="data")
    (top,) = partial.iterdir()
    for path in sorted(top.rglob("*"), reverse=True) if without_tests else ():
        if not path.is_dir() and any("test" in part or part in DOCUMENTATION for part in path.relative_to(top).parts):
            path.unlink()
    top.rename(place)
    partial.rmdir()


def benchmark_lines() -> frozenset[str]:
    """Return the long lines of HumanEval's tasks."""
    tasks = humaneval.load("single-line")
    lines = (
        line.strip() for task in tasks for line in split_lines(task.prompt + task.canonical_solution + task.suffix)
    )
    return frozenset(line for line in lines if len(line) >= LONG_LINE)


def holding(folder: Path, lines: frozenset[str]) -> list[Path]:
    """Return the files below `folder` that hold one of `lines`."""
    wanted = {line.encode() for line in lines}
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if not wanted.isdisjoint(line.strip() for line in path.read_bytes().split(b"\n"))]


if __name__ == "__main__":
    sys.exit(entry.run(PROGRAM, main))
