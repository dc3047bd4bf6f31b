"""Scripts and Dockerfiles: clean for their linters, and every command of the kind scripts printed by a dry run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.charts.bundle import ROOT

BIN = Path(sys.executable).parent
SCRIPTS = sorted(path for folder in ("deploy/kind", "images") for path in (ROOT / folder).glob("*.sh"))
DOCKERFILES = sorted((ROOT / "images").glob("*.Dockerfile"))


def test_shellcheck_is_content() -> None:
    done = subprocess.run([BIN / "shellcheck", "-x", *SCRIPTS], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout


def test_hadolint_is_content() -> None:
    assert len(DOCKERFILES) == 4
    done = subprocess.run([BIN / "hadolint", *DOCKERFILES], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_locked_without_root_and_have_packages_in_one_layer(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\nFROM ") == text.count("\nFROM ${BASE_IMAGE}\n") == 1
    assert text.count("/opt/infill/bin/pip install") == text.count("--no-index") == 1
    assert text.count("\nRUN ") == 2
    assert "--constraint" in text
    assert "USER 1000:1000" in text
    assert "org.opencontainers.image.revision" in text


@pytest.mark.parametrize("script", ["up.sh", "test.sh", "down.sh", "crds.sh FOLDER"])
def test_kind_scripts_print_what_they_would_do(script: str) -> None:
    name, *words = script.split()
    done = subprocess.run(
        [ROOT / "deploy/kind" / name, *words],
        env=os.environ | {"DRY_RUN": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "+ " in done.stderr


def test_every_version_is_in_one_file() -> None:
    text = (ROOT / "deploy/kind/versions.env").read_text(encoding="utf-8")
    names = [line.partition("=")[0] for line in text.splitlines() if "=" in line]
    scripts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "deploy/kind").glob("*.sh"))
    assert [name for name in names if f"${name}" not in scripts] == []
    assert "https://" not in scripts
