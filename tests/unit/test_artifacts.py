"""Artifacts have owners: the name of a file in an artifact is written in one module."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
CODE: Final = ("infill", "components", "pipelines", "serving", "benchmarks", "deploy", "tools", "examples")
OWNERS: Final = {
    "infill/artifacts/adapter.py": ("adapter_config.json", "adapter_model.safetensors"),
    "infill/artifacts/corpus.py": (
        "documents",
        "signatures",
        "signals",
        "redacted",
        "removed",
        "DATASHEET.md",
        "DATASHEET.html",
        "bom.cdx.json",
    ),
    "infill/artifacts/decision.py": ("decision.json",),
    "infill/artifacts/deployment.py": ("deployment.json",),
    "infill/artifacts/evaluation.py": ("record.json", "results.parquet"),
    "infill/artifacts/examples.py": ("train.parquet", "validation.parquet", "test.parquet", "counts.json", "examples"),
    "infill/artifacts/experiment.py": ("report.md", "figure.svg", "figure.png", "measurements.parquet"),
    "infill/artifacts/preferences.py": ("pairs.parquet",),
    "infill/artifacts/rating.py": ("items.parquet", "ratings"),
    "infill/storage.py": ("manifest.json",),
    "infill/manifest.py": ("report.json", "history.jsonl", "samples.jsonl", "card.json"),
    "infill/prompt.py": ("prompt_format.json",),
    "infill/report/__init__.py": ("report.html", "summary.json"),
}
"""Files and folders of artifacts by the module that owns them."""


def spelled() -> Iterator[tuple[str, str, bool]]:
    """Yield (module, text, whether it is a part of a path) for each string in the code that is not a docstring."""
    for file in sorted(file for folder in CODE for file in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        joined = {
            id(argument)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join"
            for argument in node.args[1:]
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield file.relative_to(ROOT).as_posix(), node.value, id(node) in joined


SPELLED: Final = list(spelled())


@pytest.mark.parametrize("owner", OWNERS)
def test_only_its_owner_spells_the_name_of_an_artifacts_file(owner: str) -> None:
    for name in OWNERS[owner]:
        others = {
            module
            for module, text, joined in SPELLED
            if (text.rpartition("/")[2] == name if "." in name else joined and text == name) and module != owner
        }
        assert not others, f"{name} belongs to {owner}, which has functions for it"
