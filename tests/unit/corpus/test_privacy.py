"""Secrets and personal data: what is found, what replaces it, and that nothing else changes."""

import json
import sys
import sysconfig
import tomllib
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infill import file_kinds, syntax
from infill.corpus import privacy
from infill.text import DecodeError, read_text
from tests.unit.corpus import privacy_cases
from tests.unit.corpus.privacy_cases import KINDS, Case

CASES = privacy_cases.load()
RECALL, PRECISION = 0.95, 0.9
PACKAGES = (
    "moto/core",
    "markdown",
    "fontTools/misc",
    "scipy/interpolate",
    "urllib3",
    "jinja2",
    "networkx/drawing",
    "pyasn1_modules",
)
SITE_PACKAGES = Path(sysconfig.get_path("purelib"))


def redacted(path: str, text: str) -> privacy.Redaction:
    return privacy.redact(text, file_kinds.language_of(path, text) or "")


def outcome(case: Case) -> tuple[int, int, int]:
    """Values that are gone, values that are still there, and other places that were replaced."""
    redaction = redacted(case.path, case.text)
    gone = sum(value not in redaction.text for _, value in case.expected)
    keys = len({kind for kind, _ in case.expected if kind.startswith(("pem", "pgp", "putty"))})
    lines = sum(kind.startswith(("pem", "pgp", "putty")) for kind, _ in case.expected)
    wanted = gone - lines + keys
    return gone, len(case.expected) - gone, max(0, len(redaction.places) - wanted)


@pytest.mark.parametrize("held_out", [False, True], ids=["seen", "held-out"])
def test_the_labelled_set_is_distinguished(held_out: bool, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = [outcome(case) for case in CASES if case.held_out == held_out]
    gone, left, wrong = (sum(column) for column in zip(*outcomes, strict=True))
    recall, precision = gone / (gone + left), gone / (gone + wrong)
    half = "held-out" if held_out else "seen"
    with capsys.disabled():
        sys.stdout.write(f"\nprivacy, {half} half: recall {recall:.3f}, precision {precision:.3f}\n")
    assert recall >= RECALL, [left, gone]
    assert precision >= PRECISION, [wrong, gone]


def test_the_labelled_set_is_large_enough() -> None:
    harmless = sum(not case.expected for case in CASES)
    assert (len(CASES) - harmless, harmless) >= (300, 300)
    assert harmless >= 300


def test_equal_values_have_equal_placeholders() -> None:
    key, other = (KINDS["github_pat"](Random(seed)) for seed in (1, 2))
    text = f'A = "{key}"\nB = "{other}"\nC = "{key}"  # from jane@blueharbor.io, 52.14.88.201\n'
    redaction = redacted("a.py", text)
    assert redaction.text == 'A = "TOKEN_1"\nB = "TOKEN_2"\nC = "TOKEN_1"  # from user1@example.com, 192.0.2.1\n'
    assert [(place.kind, place.line, place.column) for place in redaction.places] == [
        ("token", 1, 6),
        ("token", 2, 6),
        ("token", 3, 6),
        ("email", 3, 23),
        ("ip_address", 3, 42),
    ]


def test_a_private_key_becomes_one_line() -> None:
    key = KINDS["pem_rsa"](Random(1))
    text = f'KEY = """{key}\n"""\nAFTER = 1\n'
    redaction = redacted("a.py", text)
    begin, end = key.split("\n")[0], key.split("\n")[-1]
    assert redaction.text == f'KEY = """{begin}\nPRIVATE_KEY_1\n{end}\n"""\nAFTER = 1\n'
    assert [place.line for place in redaction.places] == [2]


def test_only_the_kinds_that_are_asked_for_are_replaced() -> None:
    text = "# Author: Jane Doe <jane@blueharbor.io>\n"
    assert privacy.redact(text, "python", ["email"]).text == "# Author: Jane Doe <user1@example.com>\n"
    assert privacy.redact(text, "python", []).text == text


def test_code_is_not_changed_outside_strings_and_comments() -> None:
    text = "y = W@x.to\nz = (a@b.de)  # see a@b.de\n"
    assert redacted("a.py", text).text == "y = W@x.to\nz = (a@b.de)  # see user1@example.com\n"


def test_an_object_identifier_is_not_an_address() -> None:
    text = "scheme = univ.ObjectIdentifier('1.3.132.1')\nOID = \"2.5.29.15\"\n"
    assert privacy.redact(text, "python").text == text


def test_what_is_redacted_is_left_alone() -> None:
    for case in CASES:
        once = redacted(case.path, case.text)
        assert redacted(case.path, once.text).text == once.text, case.name


@settings(deadline=None, max_examples=50)
@given(st.text(alphabet=st.sampled_from("ab9\n\r\"'`@.:=/ -_é\u2028\U0001f600İ") | st.characters(), max_size=200))
def test_any_text_is_survived(text: str) -> None:
    for language in ("python", "yaml", ""):
        redaction = privacy.redact(text, language)
        assert bool(redaction.places) == (redaction.text != text)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_places_hold_their_placeholders(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=5))
    values = [KINDS[name](Random(name)) for name in names]
    text = data.draw(st.sampled_from(["", "é\u2028 ", "\r\n"])) + "".join(
        f'password = "{value}"\r\n' for value in values
    )
    redaction = redacted("a.yaml", text)
    lines = redaction.text.split("\n")
    for place in redaction.places:
        assert lines[place.line - 1][place.column - 1 :].startswith(place.placeholder)


def test_real_files_parse_as_before() -> None:
    """Packages whose authors are named in their files, in Python, C, JavaScript and JSON."""
    changed = 0
    for package in PACKAGES:
        for file in sorted((SITE_PACKAGES / package).rglob("*.*"))[::3]:
            if not file.is_file() or file.stat().st_size > 100_000:
                continue
            try:
                text = read_text(file)
            except DecodeError:
                continue
            language = file_kinds.language_of(file.name, text) or ""
            redaction = privacy.redact(text, language)
            if redaction.places:
                changed += 1
                assert parses(redaction.text, language) or not parses(text, language), file
    assert changed >= 10


def parses(text: str, language: str) -> bool:
    if language in syntax.LANGUAGES:
        return not syntax.parse(text.encode(), language).root_node.has_error
    try:
        if language == "json":
            json.loads(text)
        elif language == "toml":
            tomllib.loads(text)
    except ValueError:
        return False
    return True
