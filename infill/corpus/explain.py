"""The history of a file of a corpus, and the changes between two corpora."""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from infill.artifacts.corpus import DOCUMENTS, REDACTED, REMOVED
from infill.corpus import records, sources
from infill.errors import InputError
from infill.manifest import Manifest

COLUMNS: Final = (
    "repo",
    "path",
    "language",
    "licence",
    "licence_evidence",
    "sha256",
    "split",
    "commit",
    "date",
    "source",
)
REMOVED_COLUMNS: Final = ("repo", "path", "licence", "licence_evidence", "bytes", "reason", "detail", "source")
PLACES: Final = ("repo", "path", "kind", "line", "column", "placeholder")
MOST: Final = 20
"""Maximum number of files to explain; if more match, the name must be more exact."""
_HASH: Final = re.compile(r"[0-9a-f]{8,64}", re.IGNORECASE)
_SIMILARITY: Final = ", similarity "

Row = dict[str, Any]


def explain(uri: str, wanted: str) -> list[Row]:
    """Return what is known of the files of the corpus at `uri` that `wanted` names, one entry a file.

    `wanted` is a path with or without the repository before it, the SHA-256 of a document, or its first digits. Raises
    InputError where it names nothing, or more than MOST files.
    """
    corpus = records.load(uri)
    matches = _by_hash(wanted) if _HASH.fullmatch(wanted) else _by_name(wanted)
    kept = [row | {"kept": True} for row in records.rows(corpus, DOCUMENTS, COLUMNS) if matches(row)]
    removed = [row | {"kept": False} for row in records.rows(corpus, REMOVED, REMOVED_COLUMNS) if matches(row)]
    entries = [*kept, *removed]
    exact = [row for row in entries if name_of(row) == wanted]
    entries = exact or entries
    if not entries:
        raise InputError(_nothing(corpus, wanted))
    if len(entries) > MOST:
        names = ", ".join(name_of(row) for row in entries[:3])
        raise InputError(f"{len(entries):,} files are called {wanted}: {names} ...; put the repository before the path")
    _add_history(corpus, entries)
    places = sources.labels(corpus.config.get("sources", []))
    entries = [row | {"source": places.get(row["source"], row["source"])} for row in entries]
    return [{"corpus": corpus.uri, "corpus_digest": corpus.digest, **row} for row in entries]


def name_of(row: Row) -> str:
    """Return "repository/path" of a file; its path alone where it is in no repository."""
    return f"{row['repo']}/{row['path']}" if row["repo"] else str(row["path"])


def _by_hash(wanted: str) -> Callable[[Row], bool]:
    digits = wanted.lower()
    return lambda row: str(row.get("sha256") or "").startswith(digits) or _by_name(wanted)(row)


def _by_name(wanted: str) -> Callable[[Row], bool]:
    """Return whether a file is named by the last parts of a path, or by more than its name (as on disk).

    A folder that was removed whole stands for what is in it.
    """
    asked = f"/{wanted.removeprefix('./').lstrip('/')}"

    def matches(row: Row) -> bool:
        name = f"/{name_of(row)}"
        if name.endswith("/"):
            return name in f"{asked}/" or asked.startswith(f"/{row['path']}")
        return name.endswith(asked) or asked.endswith(name)

    return matches


def _nothing(corpus: Manifest, wanted: str) -> str:
    """Return the sentence for a file that is neither among the documents nor among the removed files."""
    if _HASH.fullmatch(wanted) and "/" not in wanted and "." not in wanted:
        return (
            f"no document of {corpus.uri} has the SHA-256 {wanted}, which is that of the redacted text; give its path"
        )
    names = {name_of(row) for folder in (DOCUMENTS, REMOVED) for row in records.rows(corpus, folder, ["repo", "path"])}
    near = records.nearest(wanted, names)
    return f"{corpus.uri} has no file {wanted}, kept or removed{near or '; check the path'}"


def _add_history(corpus: Manifest, entries: list[Row]) -> None:
    """Add to each entry what was replaced in it (`redactions`) and what was removed as its copy (`copies`)."""
    by_name = {name_of(row): row for row in entries}
    for row in entries:
        row.update({"redactions": [], "copies": []} if row["kept"] else {})
        if not row["kept"] and (original := _original(row)):
            row["copy_of"] = original
    for place in records.rows(corpus, REDACTED, PLACES):
        if (entry := by_name.get(name_of(place))) and entry["kept"]:
            entry["redactions"].append({name: place[name] for name in PLACES[2:]})
    for row in records.rows(corpus, REMOVED, ["repo", "path", "reason", "detail"]):
        if (entry := by_name.get(_original(row))) and entry["kept"]:
            entry["copies"].append({"name": name_of(row), "reason": row["reason"]})


def _original(row: Row) -> str:
    """Return the document of which a removed file is a copy; empty where it is none."""
    detail = str(row["detail"] or "")
    if row["reason"] == "duplicate":
        return detail
    if row["reason"] == "near_duplicate":
        return detail.partition(_SIMILARITY)[0]
    return (
        re.sub(r" in the \w+ split$", "", detail.partition(_SIMILARITY)[0]) if row["reason"] == "near_held_out" else ""
    )


# Two corpora


def compare(old: str, new: str) -> dict[str, Any]:
    """Return what changed from the corpus at `old` to that at `new`.

    `in` and `out` list documents, `licence`, `split` and `content` documents of both, with the values `before` and
    `after`. What is out has the `reason` for which the new corpus removed it, or `not in the sources`.
    """
    before, after = (records.load(uri) for uri in (old, new))
    documents = {name_of(row): row for row in records.rows(before, DOCUMENTS, COLUMNS)}
    result: dict[str, Any] = {
        "old": before.uri,
        "new": after.uri,
        "in": [],
        "out": [],
        **{name: [] for name in CHANGES},
    }
    for row in records.rows(after, DOCUMENTS, COLUMNS):
        known = documents.pop(name_of(row), None)
        if known is None:
            result["in"].append(_identity(row))
            continue
        for change, column in CHANGES.items():
            if known[column] != row[column]:
                values = {"before": known[column], "after": row[column]}
                result[change].append({"repo": row["repo"], "path": row["path"], **values})
    reasons = dict(_reasons(after, documents))
    for name, row in documents.items():
        reason, detail = reasons.get(name, ("not in the sources", ""))
        result["out"].append(_identity(row) | {"reason": reason, "detail": detail})
    result["unchanged"] = before.digest == after.digest
    result["counts"] = {name: len(result[name]) for name in ("in", "out", *CHANGES)}
    return result


CHANGES: Final = {"licence": "licence", "content": "sha256", "split": "split"}
"""Kind of change in a document -> the column that shows it."""


def _identity(row: Row) -> Row:
    return {name: row[name] for name in ("repo", "path", "licence", "split")}


def _reasons(corpus: Manifest, gone: dict[str, Row]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield name and reason of what `gone` has among the removed files of `corpus`, folders for what was in them."""
    if not gone:
        return
    folders: dict[str, tuple[str, str]] = {}
    for row in records.rows(corpus, REMOVED, ["repo", "path", "reason", "detail"]):
        name, reason = name_of(row), (str(row["reason"]), str(row["detail"] or ""))
        if name.endswith("/"):
            folders[name] = reason
        elif name in gone:
            yield name, reason
    for name in gone if folders else ():
        for place in re.finditer("/", name):
            if name[: place.end()] in folders:
                yield name, folders[name[: place.end()]]
