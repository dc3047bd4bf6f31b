"""The file of API keys: hashed, so that whoever reads it can use none of them.

A key is `infill_ID_SECRET`. The secret is 256 random bits, so SHA-256 is enough to keep it: there is nothing to guess
that a slow hash would protect.
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from infill.errors import InputError
from infill.text import read_text

PREFIX: Final = "infill_"
TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class Key:
    """One entry of the file."""

    id: str
    """The name of the key in logs: a part of the key, but not secret."""
    tenant: str
    sha256: str
    """Of the secret, in hexadecimal."""
    created: str
    """A date, as 2026-11-26."""
    expires: str = ""
    """The first day on which the key is refused; empty for none."""
    note: str = ""

    def expired(self, today: date) -> bool:
        """Return whether the key is past its last day."""
        return bool(self.expires) and date.fromisoformat(self.expires) <= today


def today() -> date:
    """Return the date in UTC."""
    return datetime.now(UTC).date()


def load(file: Path) -> dict[str, Key]:
    """Return the keys in `file` by their ids. Raise InputError when it cannot be read or understood."""
    try:
        entries = json.loads(read_text(file))["keys"]
        keys = [Key(**entry) for entry in entries]
        for key in keys:
            date.fromisoformat(key.expires or key.created)
            _check(key)
    except OSError as error:
        raise InputError(f"the key file {file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is not a key file ({error}); make one with infill keys add") from error
    return {key.id: key for key in keys}


def _check(key: Key) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", key.sha256):
        raise ValueError(f"the sha256 of key {key.id} is not 64 hexadecimal digits")
    if not TENANT.fullmatch(key.tenant):
        raise ValueError(f"tenant {key.tenant!r} of key {key.id} is not a name")


def find(keys: dict[str, Key], text: str, today: date) -> Key | None:
    """Return the entry of the key `text`; None when there is none or it is past its day. The time tells no secret."""
    identifier, _, secret = text.removeprefix(PREFIX).partition("_")
    key = keys.get(identifier)
    expected = key.sha256 if key else "0" * 64
    right = hmac.compare_digest(expected, _hash(secret))
    return key if key and right and not key.expired(today) else None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def add(file: Path, tenant: str, *, expires: str = "", note: str = "") -> str:
    """Add a key of `tenant` to `file` and return it; nobody can read it again. Raise InputError for a wrong value."""
    if not TENANT.fullmatch(tenant):
        raise InputError(
            f"tenant must be a name of letters, digits and . _ @ - (at most 63), got {tenant!r}; as team-a"
        )
    if expires:
        try:
            if date.fromisoformat(expires) <= today():
                raise InputError(f"the key would be expired already: {expires} is not after today")
        except ValueError as error:
            raise InputError(f"expires must be a date such as 2027-01-31, got {expires!r}") from error
    identifier, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    created = today().isoformat()
    key = Key(id=identifier, tenant=tenant, sha256=_hash(secret), created=created, expires=expires, note=note)
    with _alone(file):
        keys = load(file) if file.exists() else {}
        _save(file, [*keys.values(), key])
    return f"{PREFIX}{identifier}_{secret}"


def revoke(file: Path, identifier: str) -> Key:
    """Remove the key with this id from `file`. Raise InputError when there is none."""
    with _alone(file):
        keys = load(file)
        if identifier not in keys:
            raise InputError(f"{file} holds no key with the id {identifier!r}; infill keys list shows them")
        key = keys.pop(identifier)
        _save(file, list(keys.values()))
    return key


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Let nobody else change `file` meanwhile: its folder is locked, since the file itself is replaced."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InputError(f"the key file {file} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _save(file: Path, keys: Sequence[Key]) -> None:
    """Write the file whole, readable by its owner alone."""
    text = json.dumps({"keys": [asdict(key) for key in keys]}, indent=2) + "\n"
    try:
        with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.", delete=False) as partial:
            partial.write(text)
            partial.flush()
            os.fsync(partial.fileno())
        os.replace(partial.name, file)
    except OSError as error:
        raise InputError(f"the key file {file} cannot be written: {error.strerror}") from error
