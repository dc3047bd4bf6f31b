"""What a corpus holds and where it came from: the numbers (`report.json`) and the page that tells them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infill.config import CorpusConfig
from infill.corpus import quality, splits

Row = Mapping[str, Any]


def summarise(
    kept: Sequence[Row], duplicates: Sequence[Row], rejected: Sequence[pa.Table], repositories: Sequence[str], unit: str
) -> dict[str, Any]:
    """The report: documents and bytes kept and removed, by reason, licence, language, split and repository.

    `kept` and `duplicates` are candidates with `bytes`; `rejected` are tables in the schema of removed files.
    """
    removed, read_bytes = _removed(rejected, duplicates)
    empty = sorted(set(repositories) - _names(rejected) - {row["repo"] for row in [*kept, *duplicates]})
    by_repository = _group(kept, "repo")
    return {
        "documents_kept": len(kept),
        "documents_removed": sum(entry["documents"] for entry in removed.values()),
        "bytes_kept": sum(row["bytes"] for row in kept),
        "bytes_read": read_bytes + sum(row["bytes"] for row in [*kept, *duplicates]),
        "repositories": len(by_repository),
        "repositories_found": len(repositories),
        "repositories_empty": len(empty),
        "empty_repositories": empty,
        "removed": removed,
        "by_licence": _group(kept, "licence"),
        "by_language": _group(kept, "language"),
        "by_split": _by_split(kept),
        "by_repository": by_repository,
        "split_unit": unit,
    }


def _names(tables: Iterable[pa.Table]) -> set[str]:
    return {name for table in tables for name in map(str, pc.unique(table["repo"]).to_pylist())}


def _group(rows: Sequence[Row], column: str) -> dict[str, dict[str, int]]:
    documents, size = Counter[str](), Counter[str]()
    for row in rows:
        documents[row[column]] += 1
        size[row[column]] += row["bytes"]
    return {name: {"documents": documents[name], "bytes": size[name]} for name in sorted(documents)}


def _by_split(kept: Sequence[Row]) -> dict[str, dict[str, int]]:
    groups = _group(kept, "split")
    names: dict[str, set[str]] = {split: set() for split in splits.SPLITS}
    for row in kept:
        names[row["split"]].add(row["repo"])
    return {
        split: {**groups.get(split, {"documents": 0, "bytes": 0}), "repositories": len(names[split])}
        for split in splits.PRIORITY
    }


def _removed(rejected: Sequence[pa.Table], duplicates: Sequence[Row]) -> tuple[dict[str, dict[str, int]], int]:
    """Reason -> documents and bytes, and the bytes that were read of files that were rejected."""
    documents, size = Counter[str](), Counter[str]()
    for table in rejected:
        for row in table.select(["reason", "bytes"]).to_pylist():
            documents[row["reason"]] += 1
            size[row["reason"]] += row["bytes"]
    read = sum(count for reason, count in size.items() if reason not in quality.UNREAD)
    if duplicates:
        documents["duplicate"] = len(duplicates)
        size["duplicate"] = sum(row["bytes"] for row in duplicates)
    order = sorted(documents, key=lambda reason: (-documents[reason], reason))
    return {reason: {"documents": documents[reason], "bytes": size[reason]} for reason in order}, read


def render(report: Mapping[str, Any], config: CorpusConfig) -> str:
    """The datasheet as Markdown."""
    where = ", ".join(f"`{source}`" for source in config.sources)
    unit = report["split_unit"]
    kept, size, repositories = report["documents_kept"], _size(report["bytes_kept"]), report["repositories"]
    empty, found = report["repositories_empty"], report["repositories_found"]
    lines = [
        "# Datasheet of this corpus",
        "",
        f"{kept:,} files ({size}) from {repositories:,} repositories, read from {where}.",
        f"{report['documents_removed']:,} files were removed; each stands in `removed/` with its reason.",
        f"{empty:,} of {found:,} repositories were empty.",
        "",
        "## Licences",
        "",
        f"Permitted: {', '.join(config.licences)}. A licence is that of the nearest licence file, of the",
        "package's metadata, or of the file's own SPDX header.",
        "",
        *_table("licence", report["by_licence"]),
        "",
        "## Languages",
        "",
        *_table("language", report["by_language"]),
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
        "## What was not done",
        "",
        "Near copies, personal data, secrets and public benchmarks have not been looked for.",
        "",
    ]
    return "\n".join(lines)


def _table(title: str, groups: Mapping[str, Mapping[str, int]]) -> list[str]:
    rows = sorted(groups.items(), key=lambda item: -item[1]["bytes"])
    lines = [f"| {name} | {entry['documents']:,} | {_size(entry['bytes'])} |" for name, entry in rows]
    return [f"| {title} | files | size |", "| --- | ---: | ---: |", *lines]


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
