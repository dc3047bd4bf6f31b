"""Find tokens by their published formats, and private keys.

Most formats are those of Kingfisher (MongoDB), whose rules are compiled into one automaton. `_FORMS` adds formats that
it omits, because it only reports tokens that it could verify.
"""

import re
import threading
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Final

from infill import storage
from infill.corpus.privacy import values
from infill.corpus.privacy.spans import PrivateSpan, places

if TYPE_CHECKING:
    from kingfisher_sdk import Scanner


def find(text: str) -> Iterator[PrivateSpan]:
    """Yield tokens in known formats and private keys."""
    yield from _published(text)
    yield from _known_forms(text)
    yield from _private_keys(text)


# Published formats


_LOADING: Final = threading.Lock()


def _scanner() -> "Scanner":
    """Return Kingfisher's scanner, which is safe to share between threads."""
    with _LOADING:  # compile only once, as it takes five seconds of processor time
        return _compiled()


@cache
def _compiled() -> "Scanner":
    """Return the scanner with compiled rules, from the user's cache if they are there."""
    from kingfisher_sdk import Rules, Scanner

    return Scanner(Rules(cache_dir=storage.cache() / "secret-rules"), base64=False)


def _published(text: str) -> Iterator[PrivateSpan]:
    for finding in _scanner().scan(text.encode("utf-8", "surrogatepass")):
        if not finding.visible or "private-key" in finding.rule_id or "credential-uri" in finding.rule_id:
            continue  # `_private_keys` and `contexts` find these more exactly
        if finding.secret and not values.is_placeholder(finding.secret):
            kind = "password" if "password" in finding.rule_id else "token"
            for place in places(text, finding.secret):
                yield PrivateSpan(place, place + len(finding.secret), kind)


_FORMS: Final = tuple(
    (literal, back, re.compile(form))
    for literal, back, form in (
        ("AKIA", 0, r"AKIA[A-Z2-7]{16}(?![A-Z0-9])"),
        ("ASIA", 0, r"ASIA[A-Z2-7]{16}(?![A-Z0-9])"),
        ("LTAI", 0, r"LTAI[A-Za-z0-9]{12,24}\b"),
        ("AKCp", 0, r"AKCp[A-Za-z0-9]{50,}\b"),
        ("ATBB", 0, r"ATBB[A-Za-z0-9]{32,}\b"),
        ("EAAC", 0, r"EAAC[A-Za-z0-9]{30,}\b"),
        ("GOCSPX-", 0, r"GOCSPX-[\w-]{28}"),
        ("NRAK-", 0, r"NRAK-[A-Z0-9]{27}\b"),
        ("PVT_", 0, r"PVT_[\w-]{40,}"),
        ("_test_", 2, r"[sr]k_test_[A-Za-z0-9]{16,}\b"),
        ("access_token$", 0, r"access_token\$production\$[a-z0-9]{16}\$[0-9a-f]{32}\b"),
        ("fo1_", 0, r"fo1_[\w-]{43}(?![\w-])"),
        ("key-", 0, r"key-[0-9a-f]{32}\b"),
        ("nfp_", 0, r"nfp_[A-Za-z0-9]{36,40}\b"),
        ("ntn_", 0, r"ntn_[A-Za-z0-9]{40,50}\b"),
        ("secret_", 0, r"secret_[A-Za-z0-9]{43}\b"),
        ("sk.eyJ", 0, r"sk\.eyJ[\w-]{20,}\.[\w-]{20,}"),
        ("sl.", 0, r"sl\.(?:u\.)?[\w-]{130,}"),
        ("sntry", 0, r"sntry[su]_[\w+/=-]{40,}"),
        ("sq0", 0, r"sq0[a-z]{3}-[\w-]{22,43}"),
        ("sqa_", 0, r"sqa_[0-9a-f]{40}\b"),
        ("sqp_", 0, r"sqp_[0-9a-f]{40}\b"),
        ("squ_", 0, r"squ_[0-9a-f]{40}\b"),
        ("whsec_", 0, r"whsec_[A-Za-z0-9+/=]{24,}"),
        ("ya29.", 0, r"ya29\.[\w-]{30,}"),
        ("-us", 33, r"\b[0-9a-f]{32}-us\d{1,2}\b"),
        ("8Q~", 4, r"(?<![\w.~-])[\w.~-]{3,4}8Q~[\w.~-]{31,34}(?![\w.~-])"),
        (":AA", 11, r"\b\d{8,10}:AA[\w-]{33}\b"),
        (":APA91b", 12, r"\b[\w-]{11}:APA91b[\w-]{100,}"),
        ("NRAL", 37, r"\b[0-9a-f]{36}NRAL\b"),
        ("msh", 11, r"\b[0-9a-f]{10}msh[0-9a-f]{15}p1[0-9a-f]{6}jsn[0-9a-f]{12}\b"),
        ("sig=", 0, r"(?<=[?&;]sig=)[A-Za-z0-9%/+]{40,}"),
        ("AccountKey=", 0, r"(?<=AccountKey=)[A-Za-z0-9+/]{40,}={0,2}"),
        ("SharedAccessKey=", 0, r"(?<=SharedAccessKey=)[A-Za-z0-9+/]{40,}={0,2}"),
        ("/api/webhooks/", 40, r"https://(?:\w+\.)?discord(?:app)?\.com/api/webhooks/\d+/[\w-]{30,}"),
    )
)
"""A literal in a token, the maximum number of characters before it, and the pattern of the token."""
_DISCORD: Final = re.compile(r"[MNO][DTjz][\w-]{21,25}\.[\w-]{6,7}\.[\w-]{27,38}(?![\w-])")
_ENCODED_KEY: Final = re.compile(r"LS0tLS1CRUdJTi[A-Za-z0-9+/=]{40,}")


def _known_forms(text: str) -> Iterator[PrivateSpan]:
    for literal, back, form in _FORMS:
        for place in places(text, literal):
            match = form.search(text, max(0, place - back), place + 600)
            if match is None or match.start() > place + len(literal) or _is_continuation(text, match.start()):
                continue
            if not values.is_placeholder(match[0]):
                yield PrivateSpan(*match.span(), "token")
                yield from _amazon_secrets(text, match.end()) if literal in {"AKIA", "ASIA"} else ()
    for match in _DISCORD.finditer(text):
        if not _is_continuation(text, match.start()) and values.is_random(match[0]):
            yield PrivateSpan(*match.span(), "token")
    for place in places(text, "LS0tLS1CRUdJTi"):
        match = _ENCODED_KEY.match(text, place)
        if match and values.decodes_to(match[0], b"PRIVATE KEY"):
            yield PrivateSpan(*match.span(), "private_key")


_AMAZON: Final = re.compile(r"(?<![\w+/])[A-Za-z0-9+/]{40}(?![\w+/=])")


def _amazon_secrets(text: str, start: int) -> Iterator[PrivateSpan]:
    """Yield the secrets that follow the ID of an Amazon access key."""
    for match in _AMAZON.finditer(text, start, start + 200):
        if values.is_random(match[0]):
            yield PrivateSpan(*match.span(), "token")


def _is_continuation(text: str, place: int) -> bool:
    """Return whether the word at `place` starts before it, since base64 data have every short literal somewhere."""
    return place > 0 and (text[place - 1].isalnum() or text[place - 1] in "+_")


# Private keys

_KEY_START: Final = re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_KEY_STOP: Final = re.compile(r"-----(?:BEGIN|END) ")
_KEY_LINE: Final = re.compile(r"(?:(?<=\\n)|(?<=\\r)|(?<![A-Za-z0-9+/=\\]))[A-Za-z0-9+/=]{12,}")
_KEY_CHARS: Final = 20_000
_KEY_LEAST: Final = 60
"""Minimum number of characters of a key's body; a shorter one is a template, or code that only tests for a key."""
_PUTTY: Final = re.compile(
    r"Private-Lines: \d{1,4}\r?\n(?P<body>(?:[A-Za-z0-9+/=]+\r?\n?){1,2000})(?:Private-MAC: (?P<mac>\w+))?"
)


def _private_keys(text: str) -> Iterator[PrivateSpan]:
    """Yield the lines of the keys' bodies, without what surrounds them in a string (quotes, `\\n`, plus signs)."""
    for place in places(text, "PRIVATE KEY"):
        if start := _KEY_START.search(text, max(0, place - 60), place + 30):
            lines = _body(text, start.end())
            if sum(last - first for first, last in lines) >= _KEY_LEAST:
                yield from (PrivateSpan(first, last, "private_key") for first, last in lines)
    for place in places(text, "Private-Lines: "):
        if match := _PUTTY.match(text, place):
            for line in _KEY_LINE.finditer(text, *match.span("body")):
                yield PrivateSpan(*line.span(), "private_key")
            if match["mac"]:
                yield PrivateSpan(*match.span("mac"), "private_key")


def _body(text: str, start: int) -> list[tuple[int, int]]:
    """Return the base64 lines up to the key's end marker or, without one, to the first long text between them."""
    stop = _KEY_STOP.search(text, start, start + _KEY_CHARS)
    lines: list[tuple[int, int]] = []
    end = start
    for match in _KEY_LINE.finditer(text, start, stop.start() if stop else start + _KEY_CHARS):
        if stop is None and match.start() - end > 40:
            break
        if len(match[0]) >= 40 or any(sign.isdigit() or sign in "+/=" for sign in match[0]):
            lines.append(match.span())
        end = match.end()
    return lines
