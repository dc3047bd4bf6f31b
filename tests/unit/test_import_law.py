"""Who may import whom; the images and the transformer's start-up depend on it."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "ray", "kfp", "mlflow", "kserve", "kubernetes", "transformers", "deepspeed")
NOT_SERVING = (
    *("license_expression", "numba", "pyarrow", "rapidfuzz", "rich", "sacrebleu"),
    *(
        "tree_sitter_c",
        "tree_sitter_c_sharp",
        "tree_sitter_cpp",
        "tree_sitter_go",
        "tree_sitter_java",
        "tree_sitter_kotlin",
    ),
    *("tree_sitter_javascript", "tree_sitter_php", "tree_sitter_python", "tree_sitter_ruby", "tree_sitter_rust"),
    "tree_sitter_typescript",
)
"""Of the extras `jit` and `stages`."""
LIGHT = ("prompt", "syntax", "fim", "context", "metrics", "config", "manifest", "storage", "errors", "train.card")
ALLOWED = {
    "kfp": ("components/", "pipelines/"),
    "kserve": ("serving/transformer/",),
    "kubernetes": ("infill/cluster/", "infill/release/"),
    "deepspeed": ("infill/train/zero.py",),
    "ray": ("infill/corpus/corpus_stage.py", "infill/ray_session.py", "infill/train/workers.py"),
    "mlflow": ("infill/tracking.py", "infill/release/registry.py"),
}


def sources() -> list[str]:
    packages = ("infill", "components", "pipelines", "serving")
    return sorted(str(path.relative_to(ROOT)) for name in packages for path in (ROOT / name).rglob("*.py"))


@functools.cache
def imported(file: str) -> frozenset[str]:
    """Top-level names of the packages that a file imports, wherever in it."""
    return frozenset(_imported(file))


def _imported(file: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", ALLOWED)
def test_heavy_packages_stay_where_they_belong(package: str) -> None:
    users = [file for file in sources() if package in imported(file)]
    assert [file for file in users if not file.startswith(ALLOWED[package])] == []


def test_library_does_not_import_what_is_built_on_it() -> None:
    above = {"components", "pipelines", "serving", "benchmarks", "tests"}
    library = [file for file in sources() if file.startswith("infill/") and file != "infill/cli.py"]
    assert [file for file in library if above & imported(file)] == []


def import_blocked(code: str, blocked: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    guard = f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n{code}"
    return subprocess.run([sys.executable, "-c", guard], capture_output=True, text=True, cwd=ROOT, check=False)


def test_light_modules_import_without_the_heavy_ones() -> None:
    done = import_blocked(f"import {', '.join(f'infill.{name}' for name in LIGHT)}", HEAVY)
    assert done.returncode == 0, done.stderr


def test_block_works() -> None:
    assert import_blocked("import torch", HEAVY).returncode != 0


def test_transformer_imports_what_its_image_holds() -> None:
    blocked = tuple(name for name in (*HEAVY, *NOT_SERVING) if name not in ("kserve", "kubernetes"))
    done = import_blocked("import serving.transformer.model_server, infill.context.store", blocked)
    assert done.returncode == 0, done.stderr


def test_the_language_server_imports_what_its_extra_installs() -> None:
    blocked = (*HEAVY, *NOT_SERVING, "fastapi", "uvicorn", "prometheus_client", "safetensors", "psutil")
    done = import_blocked("import infill.editor.language_server, infill.cli; infill.cli._parser()", blocked)
    assert done.returncode == 0, done.stderr


def test_the_language_server_loads_nothing_heavy() -> None:
    code = f"import sys, infill.editor.language_server; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_without_compiled_loops_and_without_numba_it_says_what_to_install() -> None:
    code = "from infill.context import compiled; compiled._loops = lambda: None; from infill.context import kernels"
    done = import_blocked(code, ("numba",))
    assert "pip install 'infill[jit]'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("package", "extra"), [("rich", "stages"), ("pygls", "lsp"), ("yaml", "")])
def test_a_command_whose_package_is_not_installed_says_what_to_install(package: str, extra: str) -> None:
    code = f"""from importlib import metadata
from infill import cli
metadata.requires = lambda _: ["numpy", "rich>=14; extra == 'stages'", 'pygls==2.1.1 ; extra == "lsp"']
def need(options): import {package}
cli._serve = need
raise SystemExit(cli.main(["serve", "--model", "x"]))"""
    done = import_blocked(code, (package,))
    remedy = f"pip install 'infill[{extra}]'" if extra else "install infill with the extras you need"
    assert done.stderr == f"infill: this command needs the package {package}, which is not installed: {remedy}\n"
    assert done.returncode == 2


def test_a_grammar_that_is_not_installed_is_named() -> None:
    done = import_blocked("from infill import syntax; syntax.grammar('go')", ("tree_sitter_go",))
    assert "the grammar of go is not installed: pip install 'infill[grammars]'" in done.stderr


def test_predictor_imports_what_its_image_holds() -> None:
    blocked = tuple(name for name in (*HEAVY, *NOT_SERVING) if name not in ("torch", "transformers"))
    done = import_blocked("import serving.predictor.startup, serving.predictor.__main__, infill.train.gguf", blocked)
    assert done.returncode == 0, done.stderr


def test_cli_starts_light() -> None:
    code = f"import sys, infill.cli as cli; cli._parser(); print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
