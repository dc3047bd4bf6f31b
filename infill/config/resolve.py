"""Resolution of settings: a preset with the user's values applied ("pretrain.train.steps=10"), checked and converted.

Settings travel between processes as the text of a JSON object (`to_text`, `from_text`), so that an integer stays an
integer: KFP's parameters of type dict are protobuf Structs, in which every number is a float.
"""

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast, get_args, get_origin, get_type_hints

from infill import storage
from infill.config.presets import PRESETS
from infill.config.sources import absolute_source
from infill.config.stage_settings import Preset
from infill.errors import InputError

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_INTERPRETED: Final = str.maketrans({char: f"\\u{ord(char):04x}" for char in "{}$/"})
"""Characters that a transport may interpret: KFP replaces `{{$...}}` and mount paths, Kubernetes
`$(NAME)`, shells `$name`."""
_UNSENDABLE: Final = re.compile("[\\0\ud800-\udfff]")
"""Null characters, and halves of surrogate pairs: Python decodes command-line bytes that are not UTF-8 to these."""
_KINDS: Final[Mapping[Any, str]] = {str: "a string", bool: "true or false", int: "an integer", float: "a number"}


def resolve(preset: str, settings: Mapping[str, Any] | None = None) -> Preset:
    """Return the preset of that name with `settings` applied: dotted field name -> JSON value.

    Short names stand for one or several fields: `sources`, `base_model`, `add_fim`, `adapter` and `seed`.
    Raises InputError for a preset or a field that does not exist, and for a value of the wrong type.
    """
    if preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}")
    resolved = PRESETS[preset]()
    short = _short_names(resolved)
    known = [*short, *_field_names(resolved)]
    chosen: dict[str, Any] = {}
    for name, value in (settings or {}).items():
        if name not in known:
            raise InputError(_unknown(name, known))
        chosen |= dict.fromkeys(short.get(name, [name]), value)
    return cast(Preset, _override(resolved, chosen))


def _short_names(preset: Preset) -> dict[str, list[str]]:
    """Return the settings that each short name stands for."""
    return {
        "sources": ["corpus.sources"],
        "base_model": ["tokenizer.base_model", "pretrain.base_model"],
        "add_fim": ["tokenizer.add_fim", "pretrain.add_fim"],
        "adapter": ["pretrain.adapter"],
        "seed": [name for name in _field_names(preset) if name.endswith(".seed")],
    }


def absolute_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return `settings` with the paths in them made absolute, for a stage that runs in another folder.

    The metadata of their fields (`storage.LOCATION`) marks the settings that are paths. Values of the wrong type are
    left to `resolve`.
    """
    preset = PRESETS["demo"]()
    places, lists = set(_location_names(preset)), set(_location_names(preset, "paths"))
    short = _short_names(preset)
    return {
        name: _absolute(value, storage.absolute if name in lists else absolute_source)
        if places.intersection(short.get(name, [name]))
        else value
        for name, value in settings.items()
    }


def _location_names(config: Any, mark: str = "location", prefix: str = "") -> list[str]:
    """Return the dotted names of the settings of a dataclass whose metadata has `mark`: paths, or lists of paths."""
    names: list[str] = []
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            names += _location_names(value, mark, f"{prefix}{item.name}.")
        elif mark in item.metadata:
            names.append(f"{prefix}{item.name}")
    return names


def _absolute(value: Any, listed: Callable[[str], str]) -> Any:
    if isinstance(value, list | tuple):
        return [listed(item) if isinstance(item, str) and item else item for item in value]
    return storage.absolute(value) if isinstance(value, str) and value else value


def _field_names(config: Any, prefix: str = "") -> list[str]:
    """Return the dotted names of all settings of a dataclass."""
    names: list[str] = []
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        nested = dataclasses.is_dataclass(value)
        names += _field_names(value, f"{prefix}{item.name}.") if nested else [f"{prefix}{item.name}"]
    return names


def _unknown(name: str, known: Sequence[str]) -> str:
    """Return the error message for a setting that does not exist."""
    below = [each for each in known if each.startswith(f"{name}.")]
    if below:
        return f"{name!r} is a group of settings; set one of {', '.join(below)}"
    group, _, rest = name.partition(".")
    related = [each for each in known if rest and each.startswith(f"{group}.") and each.endswith(f".{rest}")]
    near = related or difflib.get_close_matches(name, known, n=1)
    groups = dict.fromkeys(each.partition(".")[0] for each in known)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"settings begin with {', '.join(groups)}"
    return f"unknown setting {name!r}; {hint}"


def _override(config: Any, chosen: Mapping[str, Any], prefix: str = "") -> Any:
    """Return `config` (a dataclass) with the fields named in `chosen` (dotted names -> values) replaced, all at once.

    `prefix` is the dotted name of `config` itself, followed by a dot.
    """
    new: dict[str, Any] = {}
    for head, kind in get_type_hints(type(config)).items():
        below = {name: value for name, value in chosen.items() if name.startswith(f"{prefix}{head}.")}
        if below:
            new[head] = _override(getattr(config, head), below, f"{prefix}{head}.")
        elif (name := f"{prefix}{head}") in chosen:
            new[head] = _convert(kind, chosen[name], name)
    try:
        return replace(config, **new)
    except ValueError as error:
        assignments = ", ".join(f"{name}={_shown(value)}" for name, value in chosen.items())
        raise InputError(f"cannot set {assignments}: {error}") from error


def _convert(kind: Any, value: Any, name: str) -> Any:
    """Return `value` (as JSON gives it) as the type of a field: str, bool, int, float, or nested tuples of these."""
    shown = _shown(value)
    if get_origin(kind) is tuple:
        members = get_args(kind)
        if not isinstance(value, list | tuple):
            raise InputError(f"{name} must be a list such as {_example(kind)}, got {shown}")
        if len(members) == 2 and members[1] is Ellipsis:
            return tuple(_convert(members[0], item, name) for item in value)
        if len(value) != len(members):
            raise InputError(f"{name} must have {len(members)} values, such as {_example(kind)}, got {shown}")
        return tuple(_convert(member, item, name) for member, item in zip(members, value, strict=True))
    if kind is float and type(value) is int and abs(value) <= 2**53:
        return float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise InputError(f"{name} must be {_KINDS[kind]}, got {shown}")
    if kind is str and not is_text(value):
        raise InputError(f"{name} must be Unicode text without null characters, got {value!a}")
    return value


def _shown(value: Any) -> str:
    """Return a value as JSON for an error message, shortened to 200 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}..."


def is_text(value: str) -> bool:
    """Return whether files, tables and servers accept `value`: it has no null character and no lone surrogate."""
    return _UNSENDABLE.search(value) is None


def _example(kind: Any) -> str:
    """Return an example value of a field's type, as written on the command line."""
    if get_origin(kind) is not tuple:
        return {str: '"text"', bool: "true", int: "1", float: "0.5"}[kind]
    members = [member for member in get_args(kind) if member is not Ellipsis]
    return f"[{', '.join(map(_example, members))}]"


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return `["pretrain.train.steps=10", "register.name=team"]` as a mapping.

    A value that is not valid JSON is a string. If the setting is a string, the whole text is the value
    (`report.title=2024`), unless it is a JSON string.
    Raises InputError for a setting without a name or an equals sign.
    """
    strings = _string_names(PRESETS["demo"]())
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise InputError(f"a setting must be NAME=VALUE, such as pretrain.train.steps=10, got {setting!r}")
        value = _parse(text)
        values[name] = text if name in strings and not isinstance(value, str) else value
    return values


def _parse(text: str) -> Any:
    """Return the JSON value that `text` holds, or `text` itself if it is not valid JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # a ValueError also for an integer of thousands of digits
        return text


def _string_names(preset: Preset) -> set[str]:
    """Return the names of the settings whose value is a string."""
    strings = {name for name in _field_names(preset) if isinstance(_value(preset, name), str)}
    return strings | {short for short, names in _short_names(preset).items() if strings.issuperset(names)}


def _value(config: Any, name: str) -> Any:
    """Return the value of the setting `name`, a dotted name."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def to_text(settings: Mapping[str, Any]) -> str:
    """Return settings as the text of a JSON object that no transport changes."""
    return _STRING.sub(lambda match: match[0].translate(_INTERPRETED), json.dumps(settings))


def from_text(text: str) -> dict[str, Any]:
    """Return the settings in the text of a JSON object, none for empty text. Raises InputError for any other text."""
    try:
        settings = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise InputError(f'settings must be a JSON object such as {{"sft.train.steps": 10}}, got {text!r}') from error
    if not isinstance(settings, dict):
        raise InputError(f'settings must be a JSON object such as {{"sft.train.steps": 10}}, got {text!r}')
    return settings
