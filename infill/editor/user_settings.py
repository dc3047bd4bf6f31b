"""The user's settings: from the command line, `initializationOptions`, or the editor's section `infill`."""

import dataclasses
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args, get_type_hints
from urllib.parse import urlsplit

from infill.api_key import KEY_VARIABLE
from infill.errors import InputError

Fallback = Literal["auto", "always", "never"]
Consent = Literal["off", "metrics", "feedback"]
Where = Literal["client", "server"]

DEFAULT_URL: Final = "http://127.0.0.1:8080"
URL_VARIABLE: Final = "INFILL_URL"
SECTION: Final = "infill"
"""The section of the editor's configuration."""
BOUNDS: Final[Mapping[str, tuple[int, int]]] = {
    "timeout_ms": (100, 600_000),
    "debounce_ms": (0, 10_000),
    "max_tokens": (1, 4_096),
}


@dataclass(frozen=True, kw_only=True)
class UserSettings:
    """The settings of the language server."""

    url: str = DEFAULT_URL
    """URL of the Infill server, such as http://127.0.0.1:8080."""
    enabled: bool = True
    """Whether to offer completions."""
    languages: tuple[str, ...] = ()
    """The editor's names of the languages to complete, such as python or typescriptreact; empty means all."""
    debounce_ms: int = 75
    """Milliseconds without a keystroke before the server is asked; an explicit request does not wait."""
    timeout_ms: int = 10_000
    """Milliseconds after which a completion is given up."""
    max_tokens: int = 64
    """Tokens of a completion, at most the server's limit."""
    fallback: Fallback = "auto"
    """Whether to answer textDocument/completion; `auto` means if the editor has no inline completion."""
    workspace: Where = "client"
    """The place of the index: `client`: this machine, which sends packed prompts; `server`: the server, which gets the
    project's files once and then what changes."""
    telemetry: Consent = "off"
    """Reports to the server about suggestions: `off`: nothing; `metrics`: how much of them is accepted and
    stays, without code; `feedback`: for a data set also the code around them and what you made of them."""

    def __post_init__(self) -> None:
        _require_url(self.url)
        for name, (low, high) in BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} must be between {low} and {high}, got {getattr(self, name)}")
        if self.fallback not in get_args(Fallback):
            raise InputError(f"fallback must be auto, always or never, got {self.fallback!r}")
        if self.workspace not in get_args(Where):
            raise InputError(f"workspace must be client or server, got {self.workspace!r}")
        if self.telemetry not in get_args(Consent):
            raise InputError(f"telemetry must be off, metrics or feedback, got {self.telemetry!r}")

    @property
    def origin(self) -> tuple[str, str]:
        """The server's scheme, and its host with port."""
        parts = urlsplit(self.url)
        return parts.scheme, parts.netloc


def _require_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InputError(f"url {url!r} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"url must be an http:// or https:// URL, got {url!r}")
    if parts.username or parts.password:
        raise InputError(f"url must not contain a user or a password: put the key into {KEY_VARIABLE}")


def read(value: Any, base: UserSettings) -> tuple[UserSettings, list[str]]:
    """Return `base` with the settings in a JSON object, and a sentence for each invalid one.

    Names are accepted in the editors' form (`debounceMs`) and in ours (`debounce_ms`); null counts as absent. Editors
    may send other sections or none at all, so a value that is not an object changes nothing.
    """
    if not isinstance(value, Mapping):
        return base, []
    value = value[SECTION] if isinstance(value.get(SECTION), Mapping) else value
    problems = []
    for name, setting in value.items():
        field = re.sub(r"([A-Z])", lambda letter: f"_{letter[1].lower()}", str(name))
        if setting is None:
            continue
        try:
            base = dataclasses.replace(base, **{_known(field, str(name)): _typed(field, str(name), setting)})
        except InputError as error:
            problems.append(str(error))
    return base, problems


_TYPES: Final = get_type_hints(UserSettings)


def _known(field: str, name: str) -> str:
    if field not in _TYPES:
        near = difflib.get_close_matches(field, _TYPES, n=1)
        raise InputError(f"unknown setting {name!r}" + (f"; did you mean {camel(near[0])!r}?" if near else ""))
    return field


def camel(field: str) -> str:
    """Return a setting's name in the editors' form."""
    return re.sub(r"_(.)", lambda letter: letter[1].upper(), field)


def _typed(field: str, name: str, value: Any) -> Any:
    kind: Any = _TYPES.get(field)
    if kind == tuple[str, ...]:
        if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
            raise InputError(f"{name} must be a list of strings, got {value!r:.60}")
        return tuple(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    expected = kind if kind in (int, bool) else str
    if type(value) is not expected:
        raise InputError(f"{name} must be {_WORDS[expected]}, got {value!r:.60}")
    return value


_WORDS: Final = {int: "an integer", bool: "true or false", str: "a string"}
