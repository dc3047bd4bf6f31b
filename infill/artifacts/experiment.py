"""An experiment as an artifact: what was measured at each hole, the report for people, and its figure.

`report.json`, the artifact's figures, has the means, differences and sentences of the report as values.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from infill import manifest, storage
from infill.text import decode

if TYPE_CHECKING:
    from infill.manifest import Manifest

STAGE: Final = "experiment"
PAGE_FILE: Final = "report.md"
FIGURE_FILES: Final = ("figure.svg", "figure.png")
_MEASUREMENTS_FILE: Final = "measurements.parquet"


def write(
    folder: str,
    *,
    page: str,
    figures: Mapping[str, bytes],
    record: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Write the files of an experiment; `figures` has the content of each of FIGURE_FILES."""
    storage.write_table(storage.join(folder, _MEASUREMENTS_FILE), pa.Table.from_pylist(list(rows)))
    for name in FIGURE_FILES:
        storage.write_bytes(storage.join(folder, name), figures[name])
    manifest.write_report(folder, record)
    storage.write_bytes(storage.join(folder, PAGE_FILE), page.encode())


def read_measurements(folder: str) -> list[dict[str, Any]]:
    """Return a row for each cell and hole of the experiment at `folder`."""
    rows: list[dict[str, Any]] = storage.read_table(storage.join(folder, _MEASUREMENTS_FILE)).to_pylist()
    return rows


def read_page(artifact: "Manifest") -> str:
    """Return the report of an experiment, in Markdown."""
    return decode(storage.read_bytes(storage.join(artifact.uri, PAGE_FILE)))


def block_file(output: str, key: str, start: int) -> str:
    """Return the file that keeps the block of holes from `start` on until the experiment is finished."""
    return storage.join(output, manifest.SCRATCH, key, f"{start:08d}.parquet")
