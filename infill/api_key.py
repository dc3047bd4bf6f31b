"""The key that this machine's clients send to an Infill server, from the environment."""

import os
import re
from typing import Final

from infill.errors import InputError

KEY_VARIABLE: Final = "INFILL_API_KEY"
"""Environment variable with the key. Keys are never arguments: every user of the machine sees those."""


def api_key() -> str:
    """Return the key in the environment; empty when there is none. Raise InputError for one that no header can hold."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not re.fullmatch(r"[!-~]*", key):
        raise InputError(f"{KEY_VARIABLE} must hold printable ASCII without blanks; check how it was copied")
    return key


def headers(key: str) -> dict[str, str]:
    """Return the headers of a request with `key`; none for an empty one."""
    return {"authorization": f"Bearer {key}"} if key else {}
