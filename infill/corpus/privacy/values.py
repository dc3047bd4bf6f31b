"""Distinguish secrets from values that only stand for one: placeholders, templates, default passwords and words."""

import base64
import binascii
import re
from itertools import pairwise
from typing import Final

_PLACEHOLDER: Final = re.compile(
    r"example|placeholder|change[-_ ]?(?:me|it|this)|your[-_ ]|yourkey|replace|redacted|insert|dummy|sample|xxxx|"
    r"\*\*\*|\.\.\.|not[-_ ]?(?:a[-_ ])?secret|todo|fixme|"
    r"[<>]|\$[{(]|\{\{|%[({]|^\$\w*$|^%\w+%$|^@\w+@$|^\{.*\}$|^(?:none|null|nil|undefined|true|false)$|"
    r"^[\w.]+[(\[].*[)\]]$|\{\w+\}|process\.env|(?:^|:)[A-Z_]+_\d+$",
    re.IGNORECASE,
)
"""Matches templates, and words that show that a value is not real; the last alternative matches our placeholders."""
_WORDS_WORDS: Final = (
    "access admin api apikey auth bar baz bearer client credential credentials default demo empty fake foo"
    " guest hidden key login me mock my mypass mypassword myself mysecret name none of one pass passwd"
    " passphrase passwort password pg postgres private public pw pwd rabbitmq redis root s secret service simple"
    " some str string temp test testing the this token two user username value word wrong"
)
_WORDS: Final = frozenset(_WORDS_WORDS.split())
"""A password that consists of these words and a number is a default or from a test, and does not protect anything."""
_ALGORITHMS: Final = re.compile(
    r"(?:md|sha|hs|rs|es|ps|utf|base|oauth|aes|rsa|ecdsa|ed|rc|hmac|pbkdf|scrypt|bcrypt|argon|rfc|http|v|p|x|s|k|h|t|u)"
    r"[-_/]?\d+(?:[-_/][A-Za-z0-9]{1,8}){0,3}(?:hex|sum|digest|key|b|bit)?",
    re.IGNORECASE,
)
_PIECES: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SEQUENCES: Final = (
    "0123456789",
    "1234567890",
    "abcdefghij",
    "abcdef0123",
    "zyxwvu",
    "987654",
    "qwertyuiop",
    "deadbeef",
)
_CLASSES: Final = bytes(
    1 if chr(code).isdigit() else 2 if chr(code).isupper() else 3 if chr(code).islower() else 4 for code in range(128)
)


def is_placeholder(value: str) -> bool:
    """Return whether the value only stands for a secret: a template, "changeme", "xxxx" or "12345"."""
    return bool(_PLACEHOLDER.search(value)) or len(set(value)) <= 3 or _is_counted(value)


def _is_counted(value: str) -> bool:
    text = value.lower()
    return sum(sequence in text for sequence in _SEQUENCES) > 0


def is_password(value: str) -> bool:
    """Return whether a value named "password" can be one, and is not a name, a word, a path or a default.

    A word of letters only is far more often a caption or an identifier than a password.
    """
    if not 5 <= len(value) <= 200 or any(sign.isspace() for sign in value) or is_placeholder(value):
        return False
    if not value.isascii() or not any(sign.isalpha() for sign in value) or _ALGORITHMS.fullmatch(value):
        return False
    if _is_path(value) or is_default(value):
        return False
    strong = any(sign in "!#$%^&*+~?@" for sign in value)
    return strong or (any(sign.isdigit() for sign in value) and not _is_identifier(value))


def _is_path(value: str) -> bool:
    return value.startswith(("/", "./", "../", "~", "#", "--", "@")) or "://" in value or value.count("/") > 2


def is_default(value: str) -> bool:
    """Return whether a password consists of common words and a number."""
    words = [piece.lower() for piece in re.findall(r"[A-Za-z]+", value)]
    joined = "".join(words)
    return all(word in _WORDS for word in words) or joined in _WORDS


def _is_identifier(value: str) -> bool:
    """Return whether a value is words and numbers between separators, as in `user_1_password`, `config.v2.key`."""
    if not re.fullmatch(r"[A-Za-z][\w]*(?:[.:/-]+\w+|\(\)|\[\w*\])+|[A-Za-z]+(?:_[A-Za-z0-9]+)+", value):
        return False
    pieces = [piece for piece in re.split(r"[\W_]+", value) if piece]
    return all(piece.isalpha() or (piece.isdigit() and len(piece) <= 2) for piece in pieces)


def is_random(value: str, least: int = 16) -> bool:
    """Return whether a value of at least `least` characters looks random, as an opaque token or a key does.

    Letters and digits alternate far more often in it than in names, paths and versions.
    """
    if not least <= len(value) <= 4_000 or not value.isascii() or is_placeholder(value):
        return False
    text = value.removeprefix("0x")
    digits = sum(sign.isdigit() for sign in text)
    if not digits or len(set(text)) < 8 or digits == len(text):
        return False
    return _changes(text) / len(text) >= 0.2 and not is_worded(text)


def _changes(text: str) -> int:
    """Return how often the class of the character (digit, upper case, lower case, other) changes."""
    classes = text.encode().translate(_CLASSES + bytes(128))
    return sum(first != second for first, second in pairwise(classes))


def is_worded(text: str) -> bool:
    """Return whether a text mostly consists of words of four letters or more, as in `S3BucketAccess-eu-west-1`."""
    pieces = _PIECES.findall(text)
    long = sum(len(piece) for piece in pieces if piece.isalpha() and len(piece) >= 4)
    return long > len(text) / 2


def decodes_to(value: str, part: bytes) -> bool:
    """Return whether the decoded base64 of `value` contains `part`."""
    try:
        return part in base64.b64decode(value[: len(value) // 4 * 4], validate=False)
    except (binascii.Error, ValueError):
        return False
