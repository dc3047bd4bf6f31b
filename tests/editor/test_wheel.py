"""What an editor's user installs: the wheel with the extra `lsp`, in an environment of its own."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.editor.conftest import ROOT, Backend, editing, write

UV = Path(sys.executable).with_name("uv")
SOURCES = ("infill", "components", "pipelines", "serving", "tools", "pyproject.toml", "README.md", "LICENSE")
MOST = 150_000_000
HEAVY = {"torch", "ray", "mlflow", "transformers", "kfp", "kserve", "kubernetes", "numba", "pyarrow", "fastapi"}


def run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel as `make wheels` builds it, and what the extra asks for."""
    if not UV.exists():
        pytest.skip(f"there is no {UV}: run make setup")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "_kernels.*"))
        else:
            shutil.copy(ROOT / name, source / name)
    run(
        sys.executable,
        "-P",
        "-c",
        "import sys; sys.path.insert(0, '.'); from tools.kernels import main; main()",
        cwd=source,
    )
    build = ("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder, source)
    run(UV, *build)
    place = folder / "environment"
    run(UV, "venv", "--python", sys.executable, place)
    wheel = next(folder.glob("infill-*.whl"))
    installed = subprocess.run(
        [
            *(UV, "pip", "install", "--python", place / "bin/python", "--compile-bytecode"),
            *("--constraint", ROOT / "requirements/cpu.txt", f"infill[lsp] @ file://{wheel}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode and ("No route" in installed.stderr or "error sending request" in installed.stderr):
        pytest.skip("the package index cannot be reached")
    assert installed.returncode == 0, installed.stderr[-3_000:]
    return place


@pytest.mark.long
@pytest.mark.timeout(1_200)
def test_the_extra_is_small_and_completes(environment: Path, shared_backend: Backend, tmp_path: Path) -> None:
    packages = next(environment.glob("lib/python*/site-packages"))
    size = sum(file.stat().st_size for file in packages.rglob("*") if file.is_file() and not file.is_symlink())
    assert size < MOST, f"{size:,} bytes"
    assert not HEAVY & {path.name for path in packages.iterdir()}
    write(tmp_path, {"main.py": "x = hel", "helper.py": "def helper_of_main():\n    return 1\n"})

    async def complete() -> tuple[str | None, Any]:
        program = (str(environment / "bin/infill"),)
        async with editing(shared_backend.url, tmp_path, program=program, environment={"PYTHONPATH": ""}) as editor:
            uri = (tmp_path / "main.py").as_uri()
            editor.open(uri, "x = helper_of_main(")
            return await editor.text(uri, 0, 19), await editor.status()

    text, status = asyncio.run(complete())
    assert text == "answer"
    assert [item["path"] for item in status["last"]["context"]] == ["helper.py"]
    assert status["folders"][0]["problem"] is None
