"""The schemas of the corpus's tables, apart from `corpus`, which light modules import without pyarrow.

The schema of the signals of quality is that of the fields of `infill.corpus.signals.Signals`.
"""

from typing import Any, Final

import pyarrow as pa

SIGNATURE_VALUES: Final = 255
"""Values of a MinHash signature, of 16 bits each. Corpora with another number cannot be compared."""


def strings(*names: str) -> "list[pa.Field[Any]]":
    """Return a column of strings for each name."""
    return [pa.field(name, pa.string()) for name in names]


SIGNATURE: Final = pa.binary(2 * SIGNATURE_VALUES)
"""The low 16 bits of the minimum hash of each permutation."""
REDACTIONS: Final = pa.struct(
    [*strings("kind"), pa.field("line", pa.int64()), pa.field("column", pa.int64()), *strings("placeholder")]
)
"""The place of a replaced value, and its placeholder; the value is not recorded."""
DOCUMENTS: Final = pa.schema(
    [
        *strings("repo", "path", "language", "licence", "content", "sha256", "split", "commit", "date"),
        *strings("source", "licence_evidence"),
        pa.field("order", pa.int32()),
    ]
)
"""`commit` and `date` (2024-02-29T12:00:00Z) are those of the commit that a file was read from, null if unknown;
`source` is an entry of `corpus.sources`; `licence_evidence` names the file that states the licence, and the words.
Along `order`, a document of a repository comes after those that it imports."""
SIGNATURES: Final = pa.schema(
    [
        *strings("repo", "path", "language"),
        pa.field("bytes", pa.int64()),
        *strings("copy_digest"),
        pa.field("signature", SIGNATURE),
        pa.field("shingles", pa.int32()),
        *strings("split"),
    ]
)
"""A row for each document, which a later corpus reads instead of the text. `copy_digest` is equal for exact copies,
`shingles` is the number of different shingles; `signature` is null for a document without shingles."""
REDACTED: Final = pa.schema([*strings("repo", "path"), *REDACTIONS])
"""A row for each replaced value of each document."""
REMOVED: Final = pa.schema(
    [
        *strings("repo", "path", "licence"),
        pa.field("bytes", pa.int64()),
        *strings("reason", "detail", "source", "licence_evidence"),
    ]
)
"""A row for each removed file, or for a removed folder or repository."""
