"""The record of an evaluation as a table for people: metrics by language and by kind of hole, with their intervals."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from infill import manifest
from infill.artifacts import evaluation as artifact
from infill.errors import InputError

SHOWN: Final = ("exact_match", "kk", "edit_similarity", "chrf")
_GROUPS: Final = ("by_language", "by_unit")


def read(uri: str) -> dict[str, Any]:
    """Return the numbers of holes and the metrics of the evaluation at `uri`, over all holes and by group.

    Raises InputError if there is no finished evaluation.
    """
    evaluation = manifest.load(uri)
    if evaluation.stage != "evaluate":
        raise InputError(f"{uri} holds the result of the stage {evaluation.stage}; name a finished evaluation")
    record = artifact.read_record(evaluation.uri)
    return {name: record[name] for name in ("holes", "metrics", *_GROUPS, "held_back") if name in record}


def text(record: Mapping[str, Any]) -> str:
    """Return the table in Markdown."""
    return "\n".join([*_rows(record), ""])


def _rows(record: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"| | holes | {' | '.join(SHOWN)} |", "| --- " * (2 + len(SHOWN)) + "|")
    yield _row("all", record)
    for group in _GROUPS:
        yield from (_row(f"{group.removeprefix('by_')}: {name}", each) for name, each in record.get(group, {}).items())
    if "held_back" in record:
        hidden = record["held_back"]
        yield _row("held back", {"holes": hidden["holes"], "metrics": {"exact_match": hidden["exact_match"]}})


def _row(name: str, group: Mapping[str, Any]) -> str:
    return f"| {name} | {group['holes']} | {' | '.join(_cell(group['metrics'].get(metric)) for metric in SHOWN)} |"


def _cell(figure: Mapping[str, float] | None) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]" if figure else ""
