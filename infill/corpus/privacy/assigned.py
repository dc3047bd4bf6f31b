"""Find secrets that are assigned, passed or mapped to a name: `password = "..."`, `"apiKey": "..."`, `TOKEN=...`."""

import re
from collections.abc import Iterator
from typing import Final

from infill.corpus.privacy import values
from infill.corpus.privacy.spans import PrivateSpan, places

LITERAL_WORDS: Final = (
    "batch dockerfile html ini json make markdown rst shell sql text toml xml yaml terraform powershell"
)
LITERAL: Final = frozenset(LITERAL_WORDS.split())
"""Prose, and languages in which a value can be written without quotes."""

_WORDS: Final = ("passw", "passphrase", "pwd", "pass", "secret", "token", "credential", "key", "auth", "appid", "pat")
_NAME: Final = re.compile(
    r"""(?x)
    (?P<password> passw(?:or)?d | passphrase | passwort | (?<![a-z])pwd
        | (?:(?<![a-z])|(?<=db)|(?<=require))pass(?![a-z]) )
    | (?P<key> secret | token | credential | (?<=_)pat(?![a-z])
      | (?:(?<=api)|(?<=app)|(?<=access)|(?<=private)|(?<=auth)|(?<=encryption)|(?<=signing)|(?<=admin)
          |(?<=account)|(?<=client)
          |(?<=consumer)|(?<=write)|(?<=service)|(?<=shared)|(?<=master)|(?<=license)|(?<=licence)|(?<=server)|(?<=session)
          |(?<=cookie)|(?<=storage)|(?<=duty)|(?<=rapidapi)|(?<=maps)|(?<=[_-])) key
      | appid(?==) | (?<![a-z])auth(?=["']?\s?[:=]) | (?<![a-z])key(?==) )
    """
)
"""Matches at one of `_WORDS`, in lower-case text."""


_OURS: Final = re.compile(r"(?:token|password|key)_\d+\b")
"""Matches a placeholder of an earlier redaction, which is not a name."""


def _names(lower: str) -> Iterator[re.Match[str]]:
    last = -1
    for place in sorted({place for word in _WORDS for place in places(lower, word)}):
        match = _NAME.match(lower, place) if place >= last else None
        if match and not _OURS.match(lower, place):
            last = match.end()
            yield match


_STRONG: Final = re.compile(r"[^\n]{0,24}\n?[^\n]*?[0-9!#$%^&*+~?@]")
"""Matches text with a digit or a special character, which every secret has; most names are not followed by one."""


_TAIL: Final = re.compile(r"[\w.-]{0,24}")
_NOT_SECRET_TAIL: Final = re.compile(
    r"hash|ur[li]|name|file|path|type|field|len|min|max|policy|header|prefix|regex|pattern|label|hint|place|reset"
    r"|time|expir|ttl|count|list|kind|class|param|endpoint|ids?$|_id$|version|public|format|algo|scope|manager|provider|service|store$"
    r"|strength|size|input|method|mode|length|position|index|start|end$|set$|ring|board|ize|counter|ref$|arn$"
    r"|suffix|alias|valid|error|message|msg|title|text$",
    re.IGNORECASE,
)
_NOT_SECRET_HEAD: Final = re.compile(
    r"(?:public|publishable|site|primary|foreign|cache|sort|partition|csrf|xsrf|hashed|hash|encrypted|page|next"
    r"|continuation|sync|pad|bos|eos|unk|sep|cls|mask|special|last)[_.-]?$"
)
_QUOTED: Final = re.compile(
    r"""(?x) ["'`]?\]?\)?
    (?: [ ]?:[ ]? (?:&?'?\w[\w.<>?\[\]]*|&'static[ ]\w+) [ ]?=[ ]?   # with its type
      | [ \t]{0,8} (?:(?:=>|:=|==?|:|->)\s{0,8}|,[ \t]{0,8})? (?:(?:value|default|content)[ ]?=|is[ ])? )
    [ \t]{0,8} (?:\[\]byte\(|b|u|r|f|@|ConvertTo-SecureString[ ]|Some\(|String\(|Buffer\.from\()? [({]?
    (?P<quote>\\?["'`]) (?P<value>(?:(?!(?P=quote))[^\n\r]){4,4000}) (?P=quote)
    """
)
_ELEMENT: Final = re.compile(r"""["']?\s?>(?P<value>[^\s<>"]{5,400})</""")
_ATTRIBUTE: Final = re.compile(r"""["']\s{1,4}(?:value|default|content)\s?[=:]\s?["'](?P<value>[^\s"']{5,400})["']""")
_BARE: Final = re.compile(
    r"""(?x) ["']?\]? (?:\s{0,8}(?:=|:)\s{0,8}|\s{1,4}) (?P<value>[^\s"'`<>,;&|\\(){}\[\]]{5,400})
    (?=["'`,;&|\\)\]}<]|\s|$) """
)
_IN_STRING: Final = re.compile(r"""\s?=\s?(?P<value>[^\s"'`<>;&|\\{}]{5,400})(?=["'`;&\s<\\]|$)""")
_DEFAULT: Final = re.compile(r"""["']\s?\{\s+default\s+=\s+"(?P<value>[^"\n]{5,200})\"""")


def find(text: str, language: str) -> Iterator[PrivateSpan]:
    """Yield the secrets that are assigned, passed or mapped to a name with password, token, key or secret in it."""
    literal = language in LITERAL or not language
    lower = text.lower()
    if len(lower) != len(text):  # the lower case of a letter has two characters, so offsets differ
        lower = "".join(sign.lower() if sign.isascii() else sign for sign in text)
    for name in _names(lower):
        if _STRONG.match(text, name.end(), name.end() + 400) and (span := _value(text, lower, name, literal=literal)):
            yield span
    yield from _salts(text)


def _value(text: str, lower: str, name: re.Match[str], *, literal: bool) -> PrivateSpan | None:
    """Return the span of the secret that is assigned to a name; None if the value is not a secret."""
    end = _end_of_name(text, name.end())
    if _NOT_SECRET_TAIL.search(text, name.end(), end):
        return None
    if _NOT_SECRET_HEAD.search(lower, max(0, name.start() - 16), name.start()):
        return None
    is_password = name["password"] is not None
    for form in _forms(text, name.start(), literal=literal):
        match = form.match(text, end) or form.match(text, name.end())
        if match is None or (form in {_BARE, _IN_STRING} and _is_code(match["value"])):
            continue
        if _is_secret(match["value"], name[0], is_password=is_password):
            return PrivateSpan(*match.span("value"), "password" if is_password else "token")
    return None


def _end_of_name(text: str, start: int) -> int:
    tail = _TAIL.match(text, start)
    return tail.end() if tail else start


def _forms(text: str, start: int, *, literal: bool) -> tuple[re.Pattern[str], ...]:
    """Return the patterns of values that may follow the name at `start`."""
    if literal:
        return (_ATTRIBUTE, _ELEMENT, _QUOTED, _DEFAULT, _BARE)
    if _in_string(text, start):
        return (_ATTRIBUTE, _ELEMENT, _QUOTED, _DEFAULT, _IN_STRING)
    return (_ATTRIBUTE, _ELEMENT, _QUOTED, _DEFAULT)


def _in_string(text: str, position: int) -> bool:
    """Return whether `position` is after an open quote or the start of a comment on its line."""
    first = max(0, position - 400)
    line = text[max(first, text.rfind("\n", first, position) + 1) : position]
    return any(line.count(quote) % 2 for quote in "\"'`") or any(mark in line for mark in ("//", "#", "--", "* "))


_CODE: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+[!?]?")


def _is_code(value: str) -> bool:
    """Return whether a value without quotes is a call, an attribute or a variable."""
    return value.startswith(("$", "!", "%", "@", "*", "<", "-", "/")) or bool(_CODE.fullmatch(value))


def _is_secret(value: str, name: str, *, is_password: bool) -> bool:
    """Return whether a value can be the secret that its name, in lower case, suggests."""
    if is_password:
        return values.is_password(value)
    if name in {"key", "auth"}:
        return values.is_random(value, 20) or (values.decodes_to(value, b":") and values.is_random(value, 12))
    if values.is_random(value):
        return " " not in value and "://" not in value and not value.startswith(("/", "."))
    if "secret" in name:
        return len(value) >= 8 and values.is_password(value) and "/" not in value and not values.is_worded(value)
    return _is_salt(value)


def _is_salt(value: str) -> bool:
    """Return whether a value is a long random text with many special characters, as WordPress and Django make them.

    It may include blanks.
    """
    signs = sum(not sign.isalnum() for sign in value)
    return (
        len(value) >= 32
        and signs / len(value) > 0.12
        and any(c.isdigit() for c in value)
        and values.is_random(value.replace(" ", "+"), 32)
    )


_SALT: Final = re.compile(
    r"""(?x) (?:_SALT|_KEY|secret_key(?:_base)?|SECRET) ["']?\]? \s{0,3} (?:,|=|:|=>) \s{0,3} b?
    (?P<quote>["']) (?P<value>[^\n"']{32,200}) (?P=quote)"""
)


def _salts(text: str) -> Iterator[PrivateSpan]:
    for word in ("_SALT", "_KEY", "secret_key", "SECRET"):
        for place in places(text, word):
            match = _SALT.match(text, place)
            if match and _is_salt(match["value"]):
                yield PrivateSpan(*match.span("value"), "token")
