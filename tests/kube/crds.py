"""Objects checked against the structural schemas of the CRDs in INFILL_CRD_DIR, as an API server does in strict mode.

Unknown fields are errors. CEL rules (`x-kubernetes-validations`) are not evaluated.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "integer or string": (int, str),
}
FILES = {
    "RayJob": "ray.io_rayjobs.yaml",
    "RayCluster": "ray.io_rayclusters.yaml",
    "InferenceService": "serving.kserve.io_inferenceservices.yaml",
    "ServingRuntime": "serving.kserve.io_servingruntimes.yaml",
}


def folder() -> Path:
    """Where the CRDs are; a test that needs them fails clearly without."""
    name = os.environ.get("INFILL_CRD_DIR", "")
    if not Path(name, FILES["RayJob"]).is_file():
        pytest.fail(
            f"INFILL_CRD_DIR={name!r} holds no CRDs: set it to a folder with {', '.join(FILES.values())}", False
        )
    return Path(name)


@lru_cache
def schema(kind: str, version: str) -> dict[str, Any]:
    """The structural schema of a served version, for example ("RayJob", "v1")."""
    document = yaml.load((folder() / FILES[kind]).read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    served = {item["name"]: item for item in document["spec"]["versions"] if item["served"]}
    return dict(served[version]["schema"]["openAPIV3Schema"])


def problems(thing: dict[str, Any]) -> list[str]:
    """What a strict API server would refuse; empty for a valid object."""
    group, _, version = str(thing.get("apiVersion", "")).partition("/")
    try:
        root = schema(thing["kind"], version)
    except KeyError:
        return [f"{group}/{version} serves no {thing.get('kind')}"]
    return list(check(thing, root, thing["kind"]))


def check(value: Any, rule: dict[str, Any], path: str) -> Iterator[str]:
    """What is wrong with a value by a structural schema."""
    if value is None:
        if not rule.get("nullable"):
            yield f"{path}: null"
        return
    kind = "integer or string" if rule.get("x-kubernetes-int-or-string") else rule.get("type", "")
    if kind and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{path}: {type(value).__name__} where {kind} is wanted"
        return
    if "enum" in rule and value not in rule["enum"]:
        yield f"{path}: {value!r} is none of {rule['enum']}"
    yield from CHECKS[type(value)](value, rule, path)


def _object(value: dict[str, Any], rule: dict[str, Any], path: str) -> Iterator[str]:
    known, rest = rule.get("properties"), rule.get("additionalProperties")
    for name in rule.get("required", ()):
        if name not in value:
            yield f"{path}.{name}: missing"
    for name, item in value.items():
        if known is not None and name in known:
            yield from check(item, known[name], f"{path}.{name}")
        elif isinstance(rest, dict):
            yield from check(item, rest, f"{path}.{name}")
        elif known is not None and not rule.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{path}.{name}: unknown field"


def _array(value: list[Any], rule: dict[str, Any], path: str) -> Iterator[str]:
    for number, item in enumerate(value):
        yield from check(item, rule.get("items", {}), f"{path}[{number}]")
    if len(value) < rule.get("minItems", 0):
        yield f"{path}: fewer than {rule['minItems']} items"


def _number(value: float, rule: dict[str, Any], path: str) -> Iterator[str]:
    if "minimum" in rule and value < rule["minimum"]:
        yield f"{path}: {value} is below {rule['minimum']}"


def _text(value: str, rule: dict[str, Any], path: str) -> Iterator[str]:
    if "pattern" in rule and not re.search(rule["pattern"], value):
        yield f"{path}: {value!r} does not match {rule['pattern']}"
    if len(value) > rule.get("maxLength", len(value)):
        yield f"{path}: longer than {rule['maxLength']} characters"


CHECKS: Final[Mapping[type, Callable[[Any, dict[str, Any], str], Iterator[str]]]] = {
    dict: _object,
    list: _array,
    str: _text,
    int: _number,
    float: _number,
    bool: _number,
}
