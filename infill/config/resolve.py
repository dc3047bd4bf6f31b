"""A preset with the user's settings applied ("pretrain.train.steps=10"), each with the type of the field."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args, get_origin, get_type_hints

from infill.config.presets import PRESETS
from infill.config.settings import Preset
from infill.errors import InputError


def resolve(preset: str, settings: Mapping[str, Any] | None = None) -> Preset:
    """The preset of that name with `settings` applied: dotted field name -> JSON value.

    Three short names stand for several fields: `sources`, `base_model` and `seed`.
    Raises InputError for a preset or a field that does not exist, and for a value of the wrong type.
    """
    if preset not in PRESETS:
        raise InputError(f"there is no preset {preset!r}; choose one of {', '.join(PRESETS)}")
    resolved = PRESETS[preset]()
    short = {
        "sources": ["corpus.sources"],
        "base_model": ["tokenizer.base_model", "pretrain.base_model"],
        "seed": [name for name in _field_names(resolved) if name.endswith(".seed")],
    }
    for name, value in (settings or {}).items():
        for field_name in short.get(name, [name]):
            resolved = _override(resolved, field_name.split("."), value, field_name)
    return resolved


def _field_names(config: Any, prefix: str = "") -> list[str]:
    """Dotted names of all settings below a dataclass."""
    names: list[str] = []
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        nested = dataclasses.is_dataclass(value)
        names += _field_names(value, f"{prefix}{item.name}.") if nested else [f"{prefix}{item.name}"]
    return names


def _override(config: Any, path: list[str], value: Any, name: str) -> Any:
    """`config` (a dataclass) with the field at `path` replaced by `value`."""
    types = get_type_hints(type(config))
    head, rest = path[0], path[1:]
    if head not in types:
        raise InputError(f"there is no setting {name!r}: {type(config).__name__} has {', '.join(types)}")
    if rest and not dataclasses.is_dataclass(types[head]):
        raise InputError(f"there is no setting {name!r}: {head} has no parts")
    new = _override(getattr(config, head), rest, value, name) if rest else _convert(types[head], value, name)
    try:
        return replace(config, **{head: new})
    except ValueError as error:
        raise InputError(f"{name}={value!r}: {error}") from error


def _convert(kind: Any, value: Any, name: str) -> Any:
    """`value` (as JSON gives it) as the type of a field: str, bool, int, float, or nested tuples of these."""
    if get_origin(kind) is tuple:
        members = get_args(kind)
        if not isinstance(value, list | tuple):
            raise InputError(f"{name} wants a list, not {value!r}")
        if len(members) == 2 and members[1] is Ellipsis:
            return tuple(_convert(members[0], item, name) for item in value)
        if len(value) != len(members):
            raise InputError(f"{name} wants {len(members)} values, not {value!r}")
        return tuple(_convert(member, item, name) for member, item in zip(members, value, strict=True))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind not in (str, bool, int, float) or type(value) is not kind:
        raise InputError(f"{name} wants {getattr(kind, '__name__', kind)}, not {value!r}")
    return value


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """`["pretrain.train.steps=10", "register.name=team"]` as a mapping; a value that is no JSON is taken as a string.

    Raises InputError for a setting without an equals sign.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"{setting!r} is no setting: write NAME=VALUE, for example pretrain.train.steps=10")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values
