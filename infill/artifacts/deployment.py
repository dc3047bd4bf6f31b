"""The deployment record, which names the model to serve: the artifact of the deploy stage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from infill import manifest, storage

_FILE: Final = "deployment.json"


def file(folder: str) -> str:
    """Return the URI of the record in the artifact at `folder`."""
    return storage.join(folder, _FILE)


def write(folder: str, record: Mapping[str, Any]) -> None:
    """Write the record into the artifact at `folder`."""
    storage.write_json(file(folder), record)


def newest(store: Path) -> str | None:
    """Return the newest record in a local store, also of a rollback; None if there is none."""
    return manifest.newest(store, "deploy", _FILE)
