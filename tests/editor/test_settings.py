"""Settings from an editor: each mistake costs that setting, and is reported."""

from typing import Any

import pytest

from infill.api_key import KEY_VARIABLE, api_key
from infill.editor.user_settings import UserSettings, read
from infill.errors import InputError

CASES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "as editors write": ({"debounceMs": 5, "maxTokens": 9.0}, {"debounce_ms": 5, "max_tokens": 9}, ""),
    "as we write": ({"debounce_ms": 5}, {"debounce_ms": 5}, ""),
    "in a section": ({"infill": {"languages": ["go"]}, "other": 1}, {"languages": ("go",)}, ""),
    "nothing": (None, {}, ""),
    "a list": ([1], {}, ""),
    "null": ({"url": None}, {}, ""),
    "misspelt": ({"langages": ["go"], "enabled": False}, {"enabled": False}, "did you mean 'languages'"),
    "unknown": ({"xyz": 1}, {}, "unknown setting 'xyz'"),
    "too small": ({"timeoutMs": 1}, {}, "timeout_ms must be between 100 and 600000, got 1"),
    "of another type": ({"enabled": "yes"}, {}, "enabled must be true or false, got 'yes'"),
    "a boolean for a number": ({"maxTokens": True}, {}, "maxTokens must be an integer"),
    "not a list": ({"languages": "go"}, {}, "languages must be a list of strings"),
    "no URL": ({"url": "localhost:8080"}, {}, "url must be an http:// or https:// URL, got 'localhost:8080'"),
    "a bad port": ({"url": "http://a:99999"}, {}, "is not a URL"),
    "no such choice": ({"fallback": "maybe"}, {}, "fallback must be auto, always or never"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_can_be_used_is_used_and_the_rest_is_reported(case: str) -> None:
    value, changed, problem = CASES[case]
    hit, problems = read(value, UserSettings())
    assert hit == UserSettings(**changed)
    assert len(problems) == bool(problem)
    assert problem in "".join(problems)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    _, problems = read({"url": "http://me:hunter2@host"}, UserSettings())
    assert KEY_VARIABLE in problems[0]
    assert "hunter2" not in problems[0]


@pytest.mark.parametrize("key", ["with blank", "new\nline", "ключ"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(InputError) as error:
        api_key()
    assert key not in str(error.value)


def test_a_key_is_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, " abc\n")
    assert api_key() == "abc"
