"""What holds for every component, whatever it does."""

import ast
import inspect
import symtable
import textwrap
from types import ModuleType
from typing import Any

import pytest
from kfp.dsl.base_component import BaseComponent

from components import data, images, release, training
from infill.stages import STAGES

MODULES: tuple[ModuleType, ...] = (data, training, release)
COMPONENTS: dict[str, Any] = {
    name: value for module in MODULES for name, value in vars(module).items() if isinstance(value, BaseComponent)
}


def test_every_component_is_a_stage() -> None:
    assert set(COMPONENTS) <= set(STAGES)


@pytest.mark.parametrize("name", COMPONENTS)
def test_body_is_short_and_reads_nothing_of_its_module(name: str) -> None:
    source = textwrap.dedent(inspect.getsource(COMPONENTS[name].python_func))
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    assert (function.end_lineno or 0) - function.body[0].lineno < 15
    body = symtable.symtable(source, name, "exec").get_children()[0]
    annotations = {"bool", "dict", "dsl", "object", "str"}
    builtin = {"bool"}
    outside = {symbol.get_name() for symbol in body.get_symbols() if symbol.is_global()}
    assert outside - annotations - builtin == set()


@pytest.mark.parametrize("name", COMPONENTS)
def test_inputs_are_those_of_the_stage(name: str) -> None:
    inputs = COMPONENTS[name].component_spec.inputs
    artifacts = {key for key, spec in inputs.items() if spec.type.startswith("system.")}
    assert len(artifacts) == len(STAGES[name].inputs)
    assert {"preset", "settings", "store"} <= set(inputs)


def test_images_have_one_home(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert images.image("train").startswith("infill-train:")
    (tmp_path / "images.json").write_text('{"train": "registry/infill-train@sha256:abc"}')
    monkeypatch.setenv("INFILL_IMAGES", str(tmp_path / "images.json"))
    assert images.image("train") == "registry/infill-train@sha256:abc"
    with pytest.raises(ValueError, match="unknown image"):
        images.image("other")
