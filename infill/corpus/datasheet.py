"""The report on a corpus's content and origin: its numbers (`report.json`) and its page (`DATASHEET.md`)."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from infill import html_page
from infill.config import CorpusConfig
from infill.corpus import benchmarks, quality, splits

Row = Mapping[str, Any]
NONE: Final = {"documents": 0, "bytes": 0}
EXAMPLES: Final = 8
"""Number of removed files that the report names for each reason."""


def summarise(kept: Iterable[Row], removed: Iterable[Row], repositories: Sequence[str], unit: str) -> dict[str, Any]:
    """Return the documents and bytes kept and removed, by reason, licence, language, source, split and repository.

    `kept` and `removed` have the columns of `decide.kept` and `decide.removed`; each is read once.
    """
    documents = _Groups("licence", "language", "source", "split", "repo")
    reasons = _Groups("reason", "source", "repo")
    examples, traits = _Examples(), dict[str, dict[str, set[str]]]()
    redacted = {"places": Counter[str](), "documents": Counter[str]()}
    homes: dict[str, set[str]] = {split: set() for split in splits.PRIORITY}
    for row in kept:
        documents.add(row)
        homes[row["split"]].add(row["repo"])
        own = traits.setdefault(row["repo"], {name: set() for name in TRAITS})
        for name, column in TRAITS.items():
            own[name].add(row[column] or "")
        kinds = [place["kind"] for place in row["redactions"]]
        redacted["places"].update(kinds)
        redacted["documents"].update(set(kinds))
    for row in removed:
        reasons.add(row)
        examples.add(row)
    by_repository, by_reason, by_split = documents.of("repo"), reasons.of("reason"), documents.of("split")
    read = sum(entry["bytes"] for reason, entry in by_reason.items() if reason not in quality.UNREAD)
    empty = sorted(set(repositories) - set(by_repository) - set(reasons.of("repo")))
    return {
        "documents_kept": documents.documents,
        "documents_removed": reasons.documents,
        "bytes_kept": documents.bytes,
        "bytes_read": documents.bytes + read,
        "repositories": len(by_repository),
        "repositories_found": len(repositories),
        "repositories_empty": len(empty),
        "empty_repositories": empty,
        "removed": by_reason,
        "examples": examples.chosen(),
        "redacted": _by_kind(redacted),
        "by_licence": documents.of("licence"),
        "by_language": documents.of("language"),
        "by_source": {
            source: documents.of("source").get(source, NONE) | {"removed": removals["documents"]}
            for source, removals in _both(documents.of("source"), reasons.of("source")).items()
        },
        "by_split": {split: by_split.get(split, NONE) | {"repositories": len(homes[split])} for split in homes},
        "by_repository": {
            name: entry | {trait: sorted(values - {""}) for trait, values in traits[name].items()}
            for name, entry in by_repository.items()
        },
        "split_unit": unit,
    }


def _by_kind(redacted: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    """Return the places and documents of each kind of what was redacted."""
    return {
        kind: {counted: counter[kind] for counted, counter in redacted.items()} for kind in sorted(redacted["places"])
    }


TRAITS: Final = {"licences": "licence", "splits": "split", "sources": "source", "commits": "commit"}
"""Name of a repository's trait in the report -> column of its documents."""


def _both(kept: Mapping[str, Any], removed: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was removed, by the values of `kept` and then those of `removed` alone."""
    return {name: removed.get(name, NONE) for name in (*kept, *removed)}


class _Examples:
    """A random selection of removed files for each reason: those whose names have the lowest hashes."""

    def __init__(self) -> None:
        self._best: dict[str, list[tuple[bytes, dict[str, str]]]] = {}

    def add(self, row: Row) -> None:
        place = hashlib.blake2b(f"{row['repo']}/{row['path']}".encode(), digest_size=8).digest()
        best = self._best.setdefault(row["reason"], [])
        if len(best) < EXAMPLES or place < best[-1][0]:
            best.append((place, {name: row[name] for name in ("repo", "path", "detail")}))
            best.sort(key=lambda entry: entry[0])
            del best[EXAMPLES:]

    def chosen(self) -> dict[str, list[dict[str, str]]]:
        """Return reason -> selected files, sorted by name."""
        return {
            reason: sorted((row for _, row in best), key=lambda row: (row["repo"], row["path"]))
            for reason, best in sorted(self._best.items())
        }


class _Groups:
    """The number of documents and bytes, in total and by the values of some columns."""

    def __init__(self, *columns: str) -> None:
        self.documents = 0
        self.bytes = 0
        self._documents = {column: Counter[str]() for column in columns}
        self._bytes = {column: Counter[str]() for column in columns}

    def add(self, row: Row) -> None:
        self.documents += 1
        self.bytes += row["bytes"]
        for column, counter in self._documents.items():
            counter[row[column]] += 1
            self._bytes[column][row[column]] += row["bytes"]

    def of(self, column: str) -> dict[str, dict[str, int]]:
        """Return value -> documents and bytes, the most frequent value first."""
        counts = sorted(self._documents[column].items(), key=lambda item: (-item[1], item[0]))
        return {value: {"documents": count, "bytes": self._bytes[column][value]} for value, count in counts}


def render(report: Mapping[str, Any], config: CorpusConfig) -> str:
    """Return the datasheet as Markdown."""
    where = ", ".join(f"`{source}`" for source in config.sources)
    unit = report["split_unit"]
    kept, amount, repositories = report["documents_kept"], html_page.size(report["bytes_kept"]), report["repositories"]
    empty, listed = report["repositories_empty"], report["repositories_found"]
    lines = [
        "# Datasheet of this corpus",
        "",
        f"{kept:,} files ({amount}) from {repositories:,} repositories, read from {where}.",
        f"{report['documents_removed']:,} files were removed; `removed/` lists each with its reason.",
        f"{empty:,} of {listed:,} repositories were empty.",
        *_commits(report.get("commits", {}), listed),
        "",
        "## Licences",
        "",
        f"Permitted: {', '.join(config.licences)}. A licence is what the nearest licence",
        "file, build files, package metadata and the file's own header state; what is not recognised is not permitted.",
        "",
        *_table("licence", report["by_licence"]),
        "",
        "## Languages",
        "",
        *_table("language", report["by_language"]),
        "",
        "## Sources",
        "",
        *_table("source", {f"`{source}`": entry for source, entry in report["by_source"].items()}),
        "",
        "## Splits",
        "",
        f"By {unit}, from the hash of its name and the seed {config.seed}."
        + (" A file of a repository that is trained on may be in the test split." if unit == "file" else ""),
        "",
        *_table("split", report["by_split"]),
        "",
        "## Removed",
        "",
        *_table("reason", report["removed"]),
        "",
        "## Copies and benchmarks",
        "",
        *_copies(config, report.get("earlier_opted_out", {})),
        "",
        *_replaced(report["redacted"], config),
        "",
    ]
    return "\n".join(lines)


def _commits(commits: Mapping[str, Mapping[str, str]], repositories: int) -> list[str]:
    """Return the sentence about the commits at which repositories were read; an empty list if there are none."""
    if not commits:
        return []
    dates = sorted(entry["date"] for entry in commits.values() if entry["date"]) or ["unknown"]
    return [
        f"{len(commits):,} of {repositories:,} repositories were read at a commit, recorded with each document; "
        f"the commits' dates run from {dates[0]} to {dates[-1]}."
    ]


def _copies(config: CorpusConfig, earlier_opted_out: Mapping[str, int]) -> list[str]:
    """Return the section about copies, benchmarks and earlier corpora."""
    lines = ["Of equal texts, only one is kept (`duplicate`); line ends and trailing blanks are ignored."]
    if config.near_duplicate_similarity:
        lines.append(
            f"A document is also removed if the Jaccard similarity of its word 5-grams with those of a kept document"
            f" is at least {config.near_duplicate_similarity:g} (`near_duplicate`)."
        )
    if config.split_similarity:
        lines.append(
            f"No two documents with a similarity of at least {config.split_similarity:g} are in different splits"
            f" (`near_held_out`), as far as MinHash finds them."
        )
    if places := benchmarks.places(config):
        named = ", ".join(f"`{place}`" for place in places)
        lines.append(f"Documents with a passage of a benchmark were removed (`benchmark_overlap`): {named}.")
    else:
        lines.append("No benchmark was configured, so documents were not searched for passages of benchmarks.")
    if config.earlier:
        lines.append(f"Copies of documents in {', '.join(f'`{uri}`' for uri in config.earlier)} were removed, too.")
    for entry, documents in earlier_opted_out.items():
        lines.append(
            f"These earlier corpora still have {documents:,} documents that an owner withdrew since: `{entry}`."
        )
    return lines


def _replaced(redacted: Mapping[str, Mapping[str, int]], config: CorpusConfig) -> list[str]:
    """Return the section about secrets and personal data: counts by kind, and the rule for copyright notices."""
    if not config.redact:
        return ["## Secrets and personal data", "", "They were not searched for (`corpus.redact` is empty)."]
    rows = [f"| {kind} | {entry['places']:,} | {entry['documents']:,} |" for kind, entry in redacted.items()]
    return [
        "## Secrets and personal data",
        "",
        f"Kinds that were searched for: {', '.join(config.redact)}.",
        "Each value was replaced by a placeholder, equal values in a file by the same one; `redacted/` lists the",
        "places. The holder in a copyright notice is kept, because licences require it.",
        "",
        *(["| kind | places | files |", "| --- | ---: | ---: |", *rows] if rows else ["Nothing was found."]),
    ]


def _table(title: str, groups: Mapping[str, Mapping[str, int]]) -> list[str]:
    rows = sorted(groups.items(), key=lambda item: -item[1]["bytes"])
    lines = [f"| {name} | {entry['documents']:,} | {html_page.size(entry['bytes'])} |" for name, entry in rows]
    return [f"| {title} | files | size |", "| --- | ---: | ---: |", *lines]
