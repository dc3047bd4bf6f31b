"""Requests of owners to be left out: recorded in the list of opt-outs, and checked against a corpus."""

from collections import Counter
from typing import Any

from infill import storage
from infill.artifacts.corpus import DOCUMENTS, REMOVED
from infill.corpus import lineage, opt_out, records
from infill.corpus.opt_out import OptOutEntry
from infill.errors import InputError
from infill.manifest import Manifest


def remove(uri: str, repository: str, *, path: str = "", reason: str = "", corpus: str = "") -> dict[str, Any]:
    """Record a request in the list of opt-outs at `uri`; return what the next corpus will leave out.

    With a `corpus` the names are checked against it: raises InputError where they cover nothing in it.
    """
    entry = opt_out.entry(repository, path, reason)
    checked = _checked(records.load(corpus), entry) if corpus else {}
    added = opt_out.add(uri, entry)
    return {
        "list": uri,
        "added": added,
        "repository": entry.repository,
        "path": entry.path,
        "reason": entry.reason,
        "date": entry.date,
        **checked,
    }


def _checked(corpus: Manifest, entry: OptOutEntry) -> dict[str, Any]:
    """Return the number of documents that `entry` covers, and the repositories of documents and removed files."""
    documents = lineage.covered(corpus, [entry]).get(entry, Counter())
    removed = {
        row["repo"] for row in records.rows(corpus, REMOVED, ["repo", "path"]) if entry.covers(row["repo"], row["path"])
    }
    if not documents and not removed:
        raise InputError(_nothing(corpus, entry))
    return {
        "documents": documents.total(),
        "repositories": sorted({*documents, *removed}),
    }


def _nothing(corpus: Manifest, entry: OptOutEntry) -> str:
    """Return the sentence for an entry that covers nothing in `corpus`, with the names most like it."""
    names, paths = set[str](), set[str]()
    for folder in (DOCUMENTS, REMOVED):
        for table in records.tables(corpus, folder, ["repo", "path"]):
            names.update(map(str, table["repo"].unique().to_pylist()))
            if entry.path:
                paths.update(row["path"] for row in table.to_pylist() if entry.covers_repository(row["repo"]))
    names.discard("")
    if any(map(entry.covers_repository, names)):
        near = records.nearest(entry.path, paths)
        return f"no file of {entry.repository} in {corpus.uri} has a path like {entry.path}{near or '; check the path'}"
    near = records.nearest(entry.repository, names)
    return f"no repository in {corpus.uri} is called {entry.repository}{near or '; check the name'}"


def listed(uri: str) -> opt_out.OptOuts:
    """Return the opt-outs at `uri`, by default the usual list; empty where that is missing."""
    place = uri or opt_out.usual()
    return opt_out.load(place) if uri or (place and storage.exists(place)) else opt_out.OptOuts()
