"""Results of earlier evaluations of the same model, so that a hole that is added costs only itself."""

from collections.abc import Iterator
from typing import Any, Final

from infill import manifest, storage
from infill.artifacts import evaluation as artifact
from infill.errors import InputError
from infill.manifest import Manifest

KEY: Final = "hole"
"""The column with the digest of all that a row depends on besides the model."""


def beside(output: str, model_digest: str) -> dict[str, dict[str, Any]]:
    """Return the rows of results by `KEY` of the finished evaluations of a model in the folder of `output`.

    An evaluation that is damaged, or whose rows have no such column, costs a second computation, nothing else.
    """
    rows: dict[str, dict[str, Any]] = {}
    for folder in sorted(storage.list_folders(storage.parent(output))):
        if folder != output and _evaluates(folder, model_digest):
            rows |= {row[KEY]: row for row in _rows(folder)}
    return rows


def _evaluates(folder: str, model_digest: str) -> bool:
    try:
        if _manifest(folder) is None:
            return False
        return bool(artifact.read_record(folder).get("model_digest") == model_digest)
    except (InputError, AttributeError):
        return False


def _manifest(folder: str) -> Manifest | None:
    return manifest.find(folder) if storage.exists(artifact.results_file(folder)) else None


def _rows(folder: str) -> Iterator[dict[str, Any]]:
    for file in (artifact.results_file(folder), artifact.held_back_file(folder)):
        try:
            table = storage.read_table(file)
        except InputError:  # damaged, or without holes that are held back
            continue
        if KEY in table.column_names:
            yield from table.to_pylist()
