"""The gate's decision: the artifact of the register stage."""

from typing import Any, Final

from infill import storage

FILE: Final = "decision.json"


def read(folder: str) -> dict[str, Any]:
    """Return the decision from the artifact at `folder`."""
    value: dict[str, Any] = storage.read_json(storage.join(folder, FILE))
    return value


def write(folder: str, decision: dict[str, Any]) -> None:
    """Write the decision to the artifact at `folder`."""
    storage.write_json(storage.join(folder, FILE), decision)


def digest(folder: str) -> str:
    """Return the SHA-256 of the decision's file in the artifact at `folder`."""
    return storage.sha256(storage.join(folder, FILE))
