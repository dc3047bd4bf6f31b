"""The datasheet as one HTML file that needs no other: tables, examples of what was removed, and a search box."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from string import Template
from typing import Any, Final

from infill.config import CorpusConfig
from infill.corpus import datasheet
from infill.corpus.reasons import MEANING

REPOSITORIES: Final = 5_000
"""Repositories that the page lists, the largest first; `report.json` has all."""
Cells = Sequence[str | int]

_PAGE: Final = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Datasheet of this corpus</title>
<style>
:root { color-scheme: light; --ink: #111827; --soft: #6b7280; --line: #e5e7eb; --pale: #f6f7f9; --accent: #2f6fab; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 5rem; max-width: 72rem; color: var(--ink); background: #fff;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 1.9rem; letter-spacing: -0.02em; }
h2 { margin: 2.6rem 0 0.4rem; font-size: 1.2rem; }
h3 { margin: 1.4rem 0 0.2rem; font-size: 1rem; }
p { margin: 0.3rem 0 0.8rem; max-width: 62rem; }
.soft { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: 0.8rem; margin: 1.2rem 0; }
.tile { padding: 0.8rem 1rem; border: 1px solid var(--line); border-radius: 6px; }
.tile b { display: block; font-size: 1.45rem; font-weight: 600; letter-spacing: -0.01em; }
.tile span { color: var(--soft); font-size: 0.85rem; }
.find { position: sticky; top: 0; padding: 0.8rem 0; background: #fff; border-bottom: 1px solid var(--line); }
.find input { width: min(32rem, 100%); padding: 0.5rem 0.8rem; border: 1px solid #9ca3af; border-radius: 6px;
  font: inherit; }
.find output { margin-left: 0.8rem; color: var(--soft); }
table { width: 100%; border-collapse: collapse; margin: 0.4rem 0 1rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.28rem 0.8rem 0.28rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 500; font-size: 0.88rem; overflow-wrap: normal; }
td.number, th.number { text-align: right; white-space: nowrap; }
[hidden] { display: none; }
</style>
</head>
<body>
<h1>Datasheet of this corpus</h1>
<p>$about</p>
<div class="tiles">$tiles</div>
<div class="find"><input type="search" id="find" placeholder="Search repositories, paths, licences, reasons"
 aria-label="Search all tables" autocomplete="off"><output id="hits" for="find"></output></div>
$body
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
</body>
</html>
""")


def render(report: Mapping[str, Any], config: CorpusConfig) -> str:
    """Return the page for a corpus with this report."""
    sources = ", ".join(config.sources)
    return _PAGE.substitute(
        about=escape(
            f"Read from {sources}. Permitted licences: {', '.join(config.licences)}. Every removed file is in "
            "removed/ with its reason. infill corpus explain shows where a document came from and what was done to it."
        ),
        tiles="".join(map(_tile, _figures(report))),
        body="\n".join([*_counts(report), _removed(report), *_examples(report), _repositories(report)]),
    )


def _figures(report: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield f"{report['documents_kept']:,}", "documents kept"
    yield datasheet.size(report["bytes_kept"]), "of text kept"
    yield f"{report['documents_removed']:,}", "files removed"
    yield f"{report['repositories']:,} of {report['repositories_found']:,}", "repositories with a document"
    yield f"{sum(entry['places'] for entry in report['redacted'].values()):,}", "secrets and personal data replaced"


def _tile(figure: tuple[str, str]) -> str:
    return f'<div class="tile"><b>{escape(figure[0])}</b><span>{escape(figure[1])}</span></div>'


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
    return name, entry["documents"], datasheet.size(entry["bytes"])


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
