"""The datasheet as one HTML file that needs no other: tables, examples of what was removed, and a search box."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from infill import html_page
from infill.config import CorpusConfig
from infill.corpus.reasons import MEANING

REPOSITORIES: Final = 5_000
"""Repositories that the page lists, the largest first; `report.json` has all."""
Cells = Sequence[str | int]

_STYLE: Final = """\
.find { position: sticky; top: 0; padding: 0.8rem 0; background: #fff; border-bottom: 1px solid var(--line); }
.find input { width: min(32rem, 100%); padding: 0.5rem 0.8rem; border: 1px solid #9ca3af; border-radius: 6px;
  font: inherit; }
.find output { margin-left: 0.8rem; color: var(--soft); }
th, td { overflow-wrap: anywhere; }
th { overflow-wrap: normal; }
[hidden] { display: none; }
"""
_SEARCH: Final = """\
<div class="find"><input type="search" id="find" placeholder="Search repositories, paths, licences, reasons"
 aria-label="Search all tables" autocomplete="off"><output id="hits" for="find"></output></div>
"""
_SCRIPT: Final = """\
<script>
"use strict";
const box = document.getElementById("find"), hits = document.getElementById("hits");
const rows = Array.from(document.querySelectorAll("tbody tr"), row => [row, row.textContent.toLowerCase()]);
const parts = Array.from(document.querySelectorAll("section"));
box.addEventListener("input", () => {
  const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let count = 0;
  for (const [row, text] of rows) {
    row.hidden = !words.every(word => text.includes(word));
    count += row.hidden ? 0 : 1;
  }
  for (const part of parts) part.hidden = words.length > 0 && !part.querySelector("tbody tr:not([hidden])");
  hits.textContent = words.length ? count.toLocaleString("en") + (count === 1 ? " row" : " rows") : "";
});
</script>
"""


def render(report: Mapping[str, Any], config: CorpusConfig) -> str:
    """Return the page for a corpus with this report."""
    title, sources = "Datasheet of this corpus", ", ".join(config.sources)
    about = (
        f"Read from {sources}. Permitted licences: {', '.join(config.licences)}. Every removed file is in "
        "removed/ with its reason. infill corpus explain shows where a document came from and what was done to it."
    )
    tables = [*_counts(report), _removed(report), *_examples(report), _repositories(report)]
    head = f"<h1>{title}</h1>\n<p>{escape(about)}</p>\n{html_page.tiles(_figures(report))}\n{_SEARCH}"
    return html_page.render(title, "\n".join([head, *tables, _SCRIPT]), _STYLE)


def _figures(report: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield f"{report['documents_kept']:,}", "documents kept"
    yield html_page.size(report["bytes_kept"]), "of text kept"
    yield f"{report['documents_removed']:,}", "files removed"
    yield f"{report['repositories']:,} of {report['repositories_found']:,}", "repositories with a document"
    yield f"{sum(entry['places'] for entry in report['redacted'].values()):,}", "secrets and personal data replaced"


def _counts(report: Mapping[str, Any]) -> Iterable[str]:
    for title, column, name in (
        ("Licences", "licence", "by_licence"),
        ("Languages", "language", "by_language"),
        ("Splits", "split", "by_split"),
    ):
        rows = [_amount(value, entry) for value, entry in report[name].items()]
        yield _section(title, _table((column, "documents", "size"), rows))
    by_source = [(*_amount(source, entry), entry["removed"]) for source, entry in report["by_source"].items()]
    yield _section("Sources", _table(("source", "documents", "size", "removed"), by_source))
    replaced = [(kind, entry["places"], entry["documents"]) for kind, entry in report["redacted"].items()]
    if replaced:
        yield _section("Secrets and personal data", _table(("kind", "places", "documents"), replaced))


def _amount(name: str, entry: Mapping[str, int]) -> tuple[str, int, str]:
    return name, entry["documents"], html_page.size(entry["bytes"])


def _removed(report: Mapping[str, Any]) -> str:
    rows = [(*_amount(reason, entry), MEANING.get(reason, "")) for reason, entry in report["removed"].items()]
    return _section("Removed", _table(("reason", "files", "size", "meaning"), rows))


def _examples(report: Mapping[str, Any]) -> Iterable[str]:
    """Yield the examples of each reason, in the order of the table of reasons."""
    for reason, entry in report["removed"].items():
        files = report["examples"].get(reason, [])
        title = f"Examples: {reason}" + (f" ({len(files)} of {entry['documents']:,})" if files else "")
        rows = [(row["repo"], row["path"], row["detail"]) for row in files]
        yield _section(title, _table(("repository", "path", "why"), rows))


def _repositories(report: Mapping[str, Any]) -> str:
    entries = sorted(report["by_repository"].items(), key=lambda item: (-item[1]["bytes"], item[0]))
    rows = [
        (
            *_amount(name, entry),
            ", ".join(entry["licences"]),
            ", ".join(entry["splits"]),
            ", ".join(commit[:12] for commit in entry["commits"]),
        )
        for name, entry in entries[:REPOSITORIES]
    ]
    note = f"The {REPOSITORIES:,} largest of {len(entries):,}; report.json has all." if len(entries) > len(rows) else ""
    table = _table(("repository", "documents", "size", "licences", "splits", "commit"), rows)
    return _section("Repositories", (f"<p>{note}</p>" if note else "") + table)


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _table(columns: Sequence[str], rows: Sequence[Cells]) -> str:
    numbers = {"documents", "files", "size", "removed", "places"}
    kinds = [' class="number"' if column in numbers else "" for column in columns]
    head = "".join(f"<th{kind}>{escape(column)}</th>" for column, kind in zip(columns, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{_cell(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>\n"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def _cell(value: str | int) -> str:
    return escape(f"{value:,}" if isinstance(value, int) else value)
