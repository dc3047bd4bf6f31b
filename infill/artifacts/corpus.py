"""The corpus as an artifact: the names of its folders and files, and the way to its documents.

The schemas of its tables are in `corpus_tables`.
"""

from collections.abc import Iterable
from typing import Final

from infill import storage

DOCUMENTS: Final = "documents"
SIGNATURES: Final = "signatures"
"""MinHash signatures, a row for each document, with which a later corpus compares its own documents."""
REDACTED: Final = "redacted"
REMOVED: Final = "removed"
SIGNALS: Final = "signals"
"""Signals of quality of each text that was read, from which a later corpus takes those of unchanged texts."""
FOLDERS: Final = (DOCUMENTS, REDACTED, REMOVED, SIGNALS, SIGNATURES)
DATASHEET_FILE: Final = "DATASHEET.md"
PAGE_FILE: Final = "DATASHEET.html"
BILL_FILE: Final = "bom.cdx.json"
"""The bill of training data (CycloneDX)."""


def part(corpus: str, folder: str, number: int) -> str:
    """Return the URI of the table that shard `number` writes into one of the folders; see `in_order`."""
    return storage.join(corpus, folder, f"part-{number:05d}.parquet")


def in_order(names: Iterable[str]) -> list[str]:
    """Return the names or URIs of a folder's tables by number of the shard, which may have more than five digits."""
    return sorted(names, key=lambda name: (len(name), name))


def documents(corpus: str) -> list[str]:
    """Return the URIs of the corpus's tables of documents, in order."""
    return in_order(storage.list_files(storage.join(corpus, DOCUMENTS), ".parquet"))
