"""Find secrets by their context instead of a name: URLs, headers, command-line options, sentences, login calls."""

import re
from collections.abc import Iterator
from typing import Final

from infill.corpus.privacy import values
from infill.corpus.privacy.spans import PrivateSpan, places

_URL: Final = re.compile(r"://(?P<user>[^\s/:@\"'<>`(){}]{0,80}):(?P<value>[^\s/@\"'<>`]{3,200})@(?=[\w\[%$*{-])")
_DSN: Final = re.compile(r"[\"'`](?P<user>[\w.-]{1,60}):(?P<value>[^\s/@\"'<>`]{3,200})@(?:tcp|unix|udp)\(")


def _in_urls(text: str) -> Iterator[PrivateSpan]:
    if "@" not in text:
        return
    forms = ((_URL, "://" in text), (_DSN, "@tcp(" in text or "@unix(" in text))
    for form, possible in forms:
        if not possible:
            continue
        for match in form.finditer(text):
            if _is_url_password(match["user"], match["value"]):
                yield PrivateSpan(*match.span("value"), "password")


def _is_url_password(user: str, value: str) -> bool:
    lower = value.lower()
    if lower == user.lower() or values.is_placeholder(value) or re.fullmatch(r"[$%{}\w]*[${}%]\w*[}%]?", value):
        return False
    return not values.is_default(value) and len(value) >= 4


_HEADER: Final = re.compile(
    r"(?P<scheme>[Bb]asic|[Bb]earer|[Tt]oken)[\"']?(?:,\s?[\"']|\s|\s?\+\s?[\"'])"
    r"(?P<value>[A-Za-z0-9+/_.=~-]{12,4000})(?![\w(])"
)
_OPTION: Final = re.compile(
    r"(?P<option>-u|--user|-p|--?(?:password|pass|token|access-token|api-key|secret))[ =]?[\"']?"
    r"(?P<value>[^\s\"']{5,400})"
)
_COMMAND: Final = re.compile(r"(?:\bcurl\b[^\n]*|\bsshpass|\bmysql(?:dump|admin)?\b[^\n|]*|\bdocker login\b[^\n|]*)\Z")
"""Matches the commands whose options `-u user:password` and `-p password` have a password."""
_PROSE: Final = re.compile(r"(?:word|phrase)\s(?:is\s)?[`\"'](?P<value>[^\s`\"']{5,80})[`\"']")
_NETRC: Final = re.compile(r"login\s+\S+\s+password\s+(?P<value>\S{5,200})")
_SQL: Final = re.compile(r"(?i:identified\s+by)\s+(?:(?i:password)\s+)?'(?P<value>[^'\n]{5,200})'")
_SENTENCES: Final = (
    ("word ", _PROSE),
    ("phrase ", _PROSE),
    ("login ", _NETRC),
    ("identified ", _SQL),
    ("IDENTIFIED ", _SQL),
)
"""A literal, and the pattern that matches at it."""
_LOGIN: Final = re.compile(
    r"(?:\w*Credentials?|getConnection|basic_auth|\w*Authentication|\w*BasicAuth)\s?[=(]{1,2}(?P<arguments>[^\n]{0,200})"
)
_LOGINS: Final = ("Credential", "getConnection", "basic_auth", "PasswordAuthentication", "BasicAuth")
_ARGUMENT: Final = re.compile(r"[\"'](?P<value>[^\s\"']{8,100})[\"']")


def find(text: str) -> Iterator[PrivateSpan]:
    """Yield the secrets in URLs, headers, command-line options, sentences and login calls."""
    for search in (_in_urls, _in_headers, _in_options, _in_sentences, _in_logins):
        yield from search(text)


def _in_headers(text: str) -> Iterator[PrivateSpan]:
    for word in ("asic", "earer", "oken"):
        for place in places(text, word):
            match = _HEADER.match(text, place - 1) if place else None
            if match is None:
                continue
            basic = match["scheme"].lower() == "basic"
            if values.decodes_to(match["value"], b":") if basic else values.is_random(match["value"], 20):
                yield PrivateSpan(*match.span("value"), "password" if basic else "token")


def _in_options(text: str) -> Iterator[PrivateSpan]:
    for option in (" -u", " -p", " --"):
        for place in places(text, option):
            if match := _OPTION.match(text, place + 1):
                yield from _option(text, match)


def _in_sentences(text: str) -> Iterator[PrivateSpan]:
    """Yield the passwords in prose, in netrc files and in SQL statements."""
    for word, form in _SENTENCES:
        for place in places(text, word):
            match = form.match(text, place)
            if match and values.is_password(match["value"]):
                yield PrivateSpan(*match.span("value"), "password")


def _in_logins(text: str) -> Iterator[PrivateSpan]:
    for word in _LOGINS:
        for place in places(text, word):
            call = _LOGIN.match(text, place)
            for argument in _ARGUMENT.finditer(text, *call.span("arguments")) if call else ():
                if values.is_password(argument["value"]) or values.is_random(argument["value"]):
                    yield PrivateSpan(*argument.span("value"), "password")


def _option(text: str, match: re.Match[str]) -> Iterator[PrivateSpan]:
    option, value, start = match["option"], match["value"], match.start("value")
    of_command = len(option) == 2 or option == "--user"
    if of_command and not _COMMAND.search(text, max(0, match.start() - 120), match.start() - 1):
        return
    if option in {"-u", "--user"}:
        user, colon, value = value.partition(":")
        if not colon or not user or "/" in user:
            return
        start += len(user) + 1
    is_token = any(word in option for word in ("token", "key", "secret"))
    if value.startswith(("$", "-", "<", "%", "{")):
        return
    if values.is_random(value) or (not is_token and values.is_password(value)):
        yield PrivateSpan(start, start + len(value), "token" if is_token else "password")
