"""Compute the table of docs/how-to/large-corpus.md: time and memory of a large corpus, from measured rates.

The workers list the repositories and read, judge and write the shards; the driver cuts the list and decides about all
documents, alone. A corpus whose list does not fit the driver's memory is built in batches, each of which extends the
ones before it (`corpus.earlier`), so that deciding about batch n looks at the documents of n batches.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

GB: Final = 1e9


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Figures of `python -m benchmarks.corpus --megabytes 460 --no-peers` and of two larger builds (docs/log.md)."""

    bytes_per_core: float = 6.0e6
    """Text that a core reads, judges and writes per second; everything is switched on."""
    document: float = 9e3
    """Bytes of a document."""
    files_per_document: float = 2.0
    """Files that are listed for each that is read: the others are removed by name, size or licence."""
    listing: float = 31e-6
    """Seconds of a core per listed file, in a folder; Parquet is listed by the driver."""
    cutting: float = 15e-6
    """Seconds of the driver per listed file for taking over the lists and cutting them into shards."""
    deciding: float = 25e-6
    """Seconds of the driver per document that is compared."""
    counting: float = 9e-6
    """Seconds of the driver per listed file for reasons, splits and the report."""
    listed_bytes: float = 660
    """Memory of the driver per listed file."""
    decided_bytes: float = 200
    """Memory of the driver per document that is compared."""
    mapped_bytes: float = 918
    """Temporary disk of the driver per document that is compared, mapped into memory."""
    worker_bytes: float = 0.7e9
    """Memory of a core of a worker."""


MEASURED: Final = Rates()


@dataclass(frozen=True, kw_only=True)
class Build:
    """A corpus, and what builds it."""

    name: str
    size: float
    """Bytes of text that are read."""
    nodes: int
    cores: int = 16
    batches: int = 1


BUILDS: Final = (
    Build(name="100 GB", size=100 * GB, nodes=4),
    Build(name="10 TB", size=10_000 * GB, nodes=64, batches=10),
)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The time, memory and disk of a build, over all batches."""

    hours: dict[str, float]
    """Hours by step."""
    worker_gb: float
    """Memory of a worker node."""
    driver_gb: float
    disk_gb: float
    """Temporary disk of the driver."""

    @property
    def slowest(self) -> str:
        return max(self.hours, key=self.hours.__getitem__)


def cost(build: Build, rates: Rates) -> Cost:
    """Return the cost of `build` at `rates`."""
    documents = build.size / rates.document
    files = documents * rates.files_per_document
    compared = documents * (build.batches + 1) / 2  # the first batch decides about one part, the last one about all
    seconds = {
        "listing (workers)": files * rates.listing / (build.nodes * build.cores),
        "cutting the list (driver)": files * rates.cutting,
        "reading, judging, writing (workers)": build.size / rates.bytes_per_core / (build.nodes * build.cores),
        "deciding (driver)": compared * rates.deciding,
        "counting (driver)": files * rates.counting,
    }
    listed = files / build.batches * rates.listed_bytes
    return Cost(
        hours={step: each / 3_600 for step, each in seconds.items()},
        worker_gb=build.cores * rates.worker_bytes / GB,
        driver_gb=(listed + documents * rates.decided_bytes) / GB,
        disk_gb=documents * rates.mapped_bytes / GB,
    )


def table(rates: Rates = MEASURED) -> str:
    """Return the table in Markdown."""
    rows = [list(_column(build, cost(build, rates))) for build in BUILDS]
    lines = [" | ".join([name, *(row[number][1] for row in rows)]) for number, (name, _) in enumerate(rows[0])]
    head = " | ".join(["", *(build.name for build in BUILDS)])
    return (
        "\n".join(f"| {line} |" for line in [head.strip(), " | ".join(["---", *["---:"] * len(rows)]), *lines]) + "\n"
    )


def _column(build: Build, each: Cost) -> Iterator[tuple[str, str]]:
    yield "batches", str(build.batches)
    yield "worker nodes of 16 cores", str(build.nodes)
    for step, hours in each.hours.items():
        yield f"{step}, hours", _short(hours)
    yield "together, hours", _short(sum(each.hours.values()))
    yield "memory of a worker node, GB", _short(each.worker_gb)
    yield "memory of the driver, GB", _short(each.driver_gb)
    yield "temporary disk of the driver, GB", _short(each.disk_gb)
    yield "slowest step", each.slowest


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
