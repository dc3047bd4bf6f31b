"""Download and unpack the packages on which the shipped adapter is trained.

    python -m tools.adapter_sources models/smollm2-135m-fim/sources.txt out/adapter/sources

A line of the list is `pypi NAME==VERSION` or `npm NAME@VERSION`. Without a version the newest is taken, and the line
with its version is printed, to be copied into the list. Existing packages are not downloaded again. Files that contain
a long line of a HumanEval task are left out, so that the benchmark measures what was learned; with --without-tests,
tests and documentation are left out too.
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
"""Least characters of a line that identifies a task; shorter lines occur in any code."""


def main() -> None:
    """Download the packages on the list that are not yet in the folder."""
    parser = entry.Parser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--without-tests", action="store_true", help="leave out tests and documentation")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request
    forbidden = benchmark_lines() if os.environ.get(humaneval.FOLDER) else None
    if forbidden is None:
        log.warning("%s is not set: files that contain a task of HumanEval are not left out", humaneval.FOLDER)
    for line in split_lines(read_text(options.list)):
        if not line.startswith(("pypi ", "npm ")):
            continue
        index, _, requirement = line.partition(" ")
        name, version, url, digest = (pypi if index == "pypi" else npm)(requirement.strip())
        place = options.folder / f"{name.replace('/', '_')}-{version}"
        log.info("%s %s%s%s", index, name, "==" if index == "pypi" else "@", version)
        if not place.exists():
            unpack(download(url, digest), place, without_tests=options.without_tests)
            for path in holding(place, forbidden or frozenset()):
                log.info("%s contains a task of HumanEval and is left out", path)
                path.unlink()


def pypi(wanted: str) -> tuple[str, str, str, str]:
    """Return name, version, URL and SHA-256 of a source distribution on PyPI (PEP 691). Raises SystemExit if none."""
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
        raise SystemExit(f"{wanted} has no source distribution on PyPI: remove it from the list")
    chosen = Version(version) if version else max(stable)
    return name, str(chosen), urljoin(str(page.url), files[chosen]["url"]), files[chosen]["hashes"]["sha256"]


def npm(wanted: str) -> tuple[str, str, str, str]:
    """Return name, version, URL and SHA-1 of a package's archive on npm."""
    name, _, version = wanted.rpartition("@") if "@" in wanted[1:] else (wanted, "", "latest")
    page = httpx.get(f"{NPM}/{name}/{version}", timeout=60, follow_redirects=True)
    page.raise_for_status()
    release = page.json()
    return name, release["version"], urljoin(str(page.url), release["dist"]["tarball"]), release["dist"]["shasum"]


def download(url: str, digest: str) -> bytes:
    """Return the file at `url`. Raises SystemExit if its SHA-256 or SHA-1 is not `digest`."""
    answer = httpx.get(url, timeout=300, follow_redirects=True)
    answer.raise_for_status()
    kind = hashlib.sha256 if len(digest) == 64 else hashlib.sha1  # npm publishes only SHA-1 in hexadecimal
    if kind(answer.content).hexdigest() != digest:
        raise SystemExit(f"{url} does not have the digest {digest} that the index lists: try again")
    return answer.content


def unpack(archive: bytes, place: Path, *, without_tests: bool = False) -> None:
    """Unpack a tar archive with one top folder into `place`, which appears only when it is complete."""
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
    """Return the lines of HumanEval's tasks with at least LONG_LINE characters."""
    tasks = humaneval.load("single-line")
    lines = (
        line.strip() for task in tasks for line in split_lines(task.prompt + task.canonical_solution + task.suffix)
    )
    return frozenset(line for line in lines if len(line) >= LONG_LINE)


def holding(folder: Path, lines: frozenset[str]) -> list[Path]:
    """Return the files below `folder` that contain one of `lines`."""
    encoded = {line.encode() for line in lines}
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if not encoded.isdisjoint(line.strip() for line in path.read_bytes().split(b"\n"))]


if __name__ == "__main__":
    sys.exit(entry.run(PROGRAM, main))
