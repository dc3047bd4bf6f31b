"""The report adds up, and the page tells it."""

from typing import Any

import pytest

from infill.config import CorpusConfig
from infill.corpus import datasheet


def document(repo: str, split: str, size: int, language: str = "python") -> dict[str, Any]:
    traits = {"split": split, "language": language, "licence": "MIT", "source": "dir:/code", "commit": None}
    return {"repo": repo, "bytes": size, "redactions": [], **traits}


def removed(repo: str, reason: str, size: int, path: str = "x") -> dict[str, Any]:
    return {"repo": repo, "path": path, "reason": reason, "detail": "why", "bytes": size, "source": "dir:/code"}


KEPT = [document("a", "train", 10), document("a", "train", 20, "go"), document("b", "test", 5)]
REMOVED = [
    removed("a", "binary", 7),
    removed("c", "too_large", 500_000_000),
    removed("a", "duplicate", 3),
    removed("a", "duplicate", 4),
]


def test_the_report_counts_each_file_once() -> None:
    report = datasheet.summarise(iter(KEPT), iter(REMOVED), ["a", "b", "c", "d"], "repository")
    assert (report["documents_kept"], report["bytes_kept"]) == (3, 35)
    assert report["bytes_read"] == 35 + 7 + 3 + 4  # what is too large is not read
    assert report["removed"] == {
        "duplicate": {"documents": 2, "bytes": 7},
        "binary": {"documents": 1, "bytes": 7},
        "too_large": {"documents": 1, "bytes": 500_000_000},
    }
    assert report["by_split"]["train"] == {"documents": 2, "bytes": 30, "repositories": 1}
    assert report["by_split"]["validation"] == {"documents": 0, "bytes": 0, "repositories": 0}
    assert (report["repositories"], report["repositories_found"], report["empty_repositories"]) == (2, 4, ["d"])


def test_the_page_has_the_numbers_and_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFILL_BENCH_DIR", raising=False)
    report = datasheet.summarise(KEPT, REMOVED, ["a", "b", "c", "d"], "file")
    page = datasheet.render(report, CorpusConfig(sources=("dir:/code",), seed=7))
    for line in ("| python | 2 | 15 B |", "| too_large | 1 | 500.0 MB |", "read from `dir:/code`", "the seed 7"):
        assert line in page
    assert "may be in the test split" in page
    assert "were not searched for passages" in page


def test_examples_are_the_same_whatever_the_order_and_the_shards() -> None:
    rows = [removed("a", "binary", 1, path=f"{number}.bin") for number in range(50)]
    reports = [datasheet.summarise([], order, [], "file") for order in (rows, rows[::-1], rows[25:] + rows[:25])]
    assert len(reports[0]["examples"]["binary"]) == datasheet.EXAMPLES
    assert reports[0]["examples"] == reports[1]["examples"] == reports[2]["examples"]
    assert reports[0]["by_source"] == {"dir:/code": {"documents": 0, "bytes": 0, "removed": 50}}
