"""The report and the card of a benchmark: what it is, where it is from, its licences, what was left out and why."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, Final

from infill import storage
from infill.artifacts import benchmark as artifact
from infill.artifacts.examples import split_file
from infill.corpus import sources
from infill.corpus.sources import Repository
from infill.manifest import config_dict

_HEAD: Final = """# Benchmark from history

Holes are lines that commits since {after} added. The text around a hole and its context are those of the parent
commit, so an answer is in the prompt only if it was in the repository before. {public} holes have their answer; of
{hidden} only a salted hash is kept, with which an exact match can be counted (a short answer can be guessed from it).

The code belongs to its authors, under the licences below: pass the benchmark on only where they allow it. Do not train
on it: name this folder in `corpus.benchmarks` when you build a corpus.

"""
_TRAIN_HEAD: Final = """# Holes to learn from

Holes are lines that commits since {after} added. The text around a hole and its context are those of the parent
commit. {public} holes are there to learn from (`preferences.history`): do not measure on them.

The code belongs to its authors, under the licences below: pass it on only where they allow it.

"""
_SUMS: Final = "| file | SHA-256 |\n| --- | --- |\n"


def report(
    config: Any,
    repositories: Sequence[Repository],
    rows: Sequence[Mapping[str, Any]],
    hidden: Set[str],
    counts: Mapping[str, Counter[str]],
) -> dict[str, Any]:
    """Return the content of `report.json`."""
    by_repo = Counter(row["repo"] for row in rows)
    revisions = sources.commits(repositories)
    origin = [
        {
            "name": each.name,
            **revisions.get(each.name, {}),
            "licence": _licences([row for row in rows if row["repo"] == each.name], each),
            "holes": by_repo[each.name],
        }
        for each in repositories
    ]
    private = ("sources", "without")  # paths
    settings = {name: value for name, value in config_dict(config).items() if name not in private}
    return {
        "settings": settings,
        "asked": config.holes,
        "holes": len(rows) - len(hidden),
        "held_back": len(hidden),
        "repositories": origin,
        **{name: Counter(row[name] for row in rows) for name in ("language", "unit")},
        "counts": {name: dict(reasons.most_common()) for name, reasons in counts.items()},
    }


def _licences(rows: Sequence[Mapping[str, Any]], repository: Repository) -> list[str]:
    statements = [repository.coverage.of(path) for path in {row["path"] for row in rows}]
    return sorted({each.expression if each else "nothing stated" for each in statements})


def write(output: str, report: Mapping[str, Any]) -> None:
    """Write the card into the benchmark's folder, next to its tables."""
    settings = report["settings"]
    text = _TRAIN_HEAD if settings["train"] else _HEAD
    head = text.format(after=settings["after"], public=report["holes"], hidden=report["held_back"]) + _SUMS
    files = [
        split_file(output, "train" if settings["train"] else "test"),
        *(storage.join(output, name) for name in _TABLES),
    ]
    root = len(storage.join(output, ""))
    sums = [f"| `{file[root:]}` | `{storage.sha256(file)}` |" for file in files]
    text = "\n".join([head + "\n".join(sums), "", *_sections(report)])
    storage.write_bytes(storage.join(output, artifact.CARD_FILE), text.encode())


_TABLES: Final = (artifact.HELD_BACK_FILE, artifact.ORIGINS_FILE)


def _sections(report: Mapping[str, Any]) -> Iterator[str]:
    columns = ("name", "commit", "date", "licence", "holes")
    yield from ("## Repositories", "", f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|")
    for each in report["repositories"]:
        cells = {**each, "licence": ", ".join(each["licence"])}
        yield f"| {' | '.join(str(cells.get(name, '')) for name in columns)} |"
    yield ""
    for title, name in (("Holes by language", "language"), ("Holes by unit", "unit")):
        yield from _table(title, report[name])
    for name, reasons in report["counts"].items():
        yield from _table(f"What became of {name}", reasons)


def _table(title: str, numbers: Mapping[str, int]) -> Iterator[str]:
    yield from (f"## {title}", "", "| | number |", "| --- | --- |")
    yield from (f"| {name} | {n} |" for name, n in sorted(numbers.items(), key=lambda item: (-item[1], item[0])) if n)
    yield ""
