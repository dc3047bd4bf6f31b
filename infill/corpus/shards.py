"""The work on one shard of the corpus: read its files, and later write its part of the corpus.

A shard is a list of files in corpus order. `read` turns it into candidates and rejected files in the scratch folder.
When all shards are read and copies and splits are decided, `finish` writes its part of the corpus. Both write complete
files whose names depend only on the shard's number, so an existing part is never written again.
"""

import hashlib
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from infill import file_kinds, storage
from infill.artifacts import corpus as artifact
from infill.artifacts.corpus_tables import DOCUMENTS, REDACTED, REDACTIONS, REMOVED, SIGNATURE, SIGNATURES, strings
from infill.config import CorpusConfig
from infill.corpus import (
    benchmarks,
    dedup,
    imports,
    licences,
    notebooks,
    privacy,
    quality,
    reading_order,
    signals,
    sources,
)
from infill.corpus.benchmarks import Benchmarks
from infill.corpus.known_signals import NOTHING, KnownSignals
from infill.corpus.quality import CorpusDocument, Removal
from infill.corpus.reading_order import Importer
from infill.corpus.sources import SourceFile
from infill.foreign import UnreadableError

log: Final = logging.getLogger(__name__)
GROUP_BYTES: Final = 8_000_000
"""Bytes of text per row group, which a streaming reader holds in memory."""
WITHIN: Final = -1
"""In place of a number that a shard computes itself."""

CANDIDATES: Final = pa.schema(
    [
        *strings("repo", "path", "language", "licence", "content", "sha256", "copy_digest"),
        pa.field("bytes", pa.int64()),
        *strings("commit", "date"),
        pa.field("signature", SIGNATURE),
        pa.field("shingles", pa.int32()),
        pa.field("overlaps", pa.list_(pa.int64())),
        pa.field("redactions", pa.list_(REDACTIONS)),
        *strings("source", "licence_evidence", "opted_out"),
        pa.field("imports", pa.list_(pa.string())),
    ]
)
"""Documents before copies and splits are decided. `copy_digest` is equal for exact copies (`dedup.digest`), `overlaps`
are the runs of words that a benchmark also has, `opted_out` is the entry that excludes the document and its copies,
`imports` are the paths that it imports (`imports.targets`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileJob:
    """A file and its properties that are known before it is read."""

    repo: str
    root: str
    source: str = ""
    """The entry of `corpus.sources` that the file is from."""
    licence: licences.Statement | None
    """The licence that covers the file; None if none is stated."""
    file: SourceFile
    removal: Removal | None = None
    opted_out: str = ""
    """The entry that excludes the file, which is read nevertheless, so that its copies are found."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    number: int
    jobs: tuple[FileJob, ...]
    known: tuple[str, ...] = ()
    """Files of an earlier corpus that may have the signals of these files."""


@dataclass(frozen=True, kw_only=True)
class ShardVerdict:
    """The decisions about a shard's candidates, made when all shards are read."""

    number: int
    splits: tuple[str, ...]
    """Split of each candidate, in order; empty for a removed one."""
    removals: Mapping[int, Removal]
    """Number of a removed candidate in the shard -> reason."""
    order: tuple[int, ...]
    """Place of each candidate in the reading order of a repository that is in several shards, WITHIN for others."""


def cut(jobs: Iterable[FileJob], shard_bytes: int, known: KnownSignals = NOTHING) -> Iterator[Shard]:
    """Yield shards with at most `shard_bytes` to read each, or with a single larger file."""
    for number, batch in enumerate(_batches(jobs, shard_bytes)):
        names = [(job.repo, job.file.path) for job in batch if job.repo]
        parts = known.parts(names[0], names[-1]) if names else ()
        yield Shard(number=number, jobs=tuple(batch), known=parts)


def _batches(jobs: Iterable[FileJob], shard_bytes: int) -> Iterator[list[FileJob]]:
    batch, size = list[FileJob](), 0
    for job in jobs:
        cost = 0 if job.removal else job.file.size
        if batch and size + cost > shard_bytes:
            yield batch
            batch, size = [], 0
        batch.append(job)
        size += cost
    if batch:
        yield batch


def benchmarks_uri(scratch: str) -> str:
    return storage.join(scratch, "benchmarks.parquet")


def candidates_uri(scratch: str, number: int) -> str:
    return storage.join(scratch, "candidates", f"part-{number:05d}.parquet")


def rejected_uri(scratch: str, number: int) -> str:
    return storage.join(scratch, "rejected", f"part-{number:05d}.parquet")


def documents_uri(output: str, number: int) -> str:
    return artifact.part(output, artifact.DOCUMENTS, number)


def signatures_uri(output: str, number: int) -> str:
    return artifact.part(output, artifact.SIGNATURES, number)


def redacted_uri(output: str, number: int) -> str:
    return artifact.part(output, artifact.REDACTED, number)


def removed_uri(output: str, number: int) -> str:
    return artifact.part(output, artifact.REMOVED, number)


def read(shard: Shard, config: CorpusConfig, scratch: str, output: str) -> int:
    """Read the files of `shard` and write its candidates, its rejected files and all signals; returns its number.

    Signals that `shard.known` has are not measured again.
    """
    target = candidates_uri(scratch, shard.number)
    if storage.exists(target):
        return shard.number
    rejected: list[tuple[FileJob, Removal]] = []
    measured = signals.Store(signals.read(shard.known))
    passages = benchmarks.load(benchmarks_uri(scratch)) if storage.exists(benchmarks_uri(scratch)) else None
    with storage.open_write(target) as file, pq.ParquetWriter(file, CANDIDATES, compression="zstd") as writer:
        for group in _groups(_examine(shard.jobs, config, rejected, measured)):
            writer.write_table(_candidates(group, config, passages))
        storage.write_table(rejected_uri(scratch, shard.number), _removed(rejected))
        storage.write_table(signals.part(output, shard.number), signals.table(measured.used))
    if shard.known:
        counts = len(measured.used) - measured.measured, len(measured.used)
        log.info(
            "corpus: shard %d: signals of %d of %d texts are those of %s",
            *(shard.number, *counts, storage.parent(storage.parent(shard.known[0]))),
        )
    return shard.number


def _examine(
    jobs: Iterable[FileJob], config: CorpusConfig, rejected: list[tuple[FileJob, Removal]], measured: signals.Store
) -> Iterator[CorpusDocument]:
    """Yield the documents that pass every rule, and append the other files to `rejected`."""
    for root, group in itertools.groupby(jobs, key=lambda job: job.root):
        listed = list(group)
        read = sources.reader(root, [job.file for job in listed if job.removal is None], config)
        for job in listed:
            outcome = job.removal or examine(job, read, config, measured)
            if isinstance(outcome, CorpusDocument):
                yield outcome
            else:
                rejected.append((job, Removal("opted_out", job.opted_out) if job.opted_out else outcome))


def examine(
    job: FileJob, read: sources.Read, config: CorpusConfig, measured: signals.Store
) -> CorpusDocument | Removal:
    """Return the document in a file, or why it is removed. A licence in its header replaces the one that covers it."""
    text = quality.read_text(read, job.file)
    if isinstance(text, Removal):
        return text
    language = file_kinds.language_of(job.file.path, text) or ""
    if notebooks.is_notebook(job.file.path):
        try:
            text, language = notebooks.script(text)
        except UnreadableError as error:
            return Removal("notebook", str(error))
    document = CorpusDocument(
        repo=job.repo,
        path=job.file.path,
        language=language,
        licence=licences.of_source(text) or job.licence or licences.NOTHING_STATED,
        content=text,
        commit=job.file.commit or None,
        date=job.file.date or None,
        source=job.source,
        opted_out=job.opted_out or None,
    )
    removal = quality.judge(document, measured.of(text, language), config)
    if removal and removal.reason != "encoded_data":
        return removal
    redacted = redact(document, config)  # also of encoded data, which may be keys: that is the reason to report
    return redacted if isinstance(redacted, Removal) else removal or redacted


def redact(document: CorpusDocument, config: CorpusConfig) -> CorpusDocument | Removal:
    """Replace secrets and personal data, so that two copies that differ only in a key are equal afterwards."""
    redaction = privacy.redact(document.content, document.language, config.redact)
    if redaction.secret_share > privacy.MOSTLY:
        kinds = ", ".join(sorted({place.kind for place in redaction.places}))
        return Removal("mostly_secrets", f"{redaction.secret_share:.0%} of it ({kinds})")
    return replace(document, content=redaction.text, redactions=redaction.places) if redaction.places else document


def _groups(documents: Iterable[CorpusDocument]) -> Iterator[list[CorpusDocument]]:
    group, size = list[CorpusDocument](), 0
    for document in documents:
        group.append(document)
        size += len(document.content)
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _candidates(documents: Sequence[CorpusDocument], config: CorpusConfig, passages: Benchmarks | None) -> pa.Table:
    contents = [document.content.encode() for document in documents]
    looks_for_similar = config.near_duplicate_similarity or config.split_similarity
    signatures = [dedup.sign(content) if looks_for_similar else dedup.UNSIGNED for content in contents]
    columns = {
        "repo": [document.repo for document in documents],
        "path": [document.path for document in documents],
        "language": [document.language for document in documents],
        "licence": [document.licence.expression for document in documents],
        "content": pa.array(contents, pa.binary()).cast(pa.string()),
        "sha256": [hashlib.sha256(content).hexdigest() for content in contents],
        "copy_digest": [dedup.digest(document.content) for document in documents],
        "bytes": [len(content) for content in contents],
        "commit": [document.commit for document in documents],
        "date": [document.date for document in documents],
        "signature": [signature.values for signature in signatures],
        "shingles": [signature.shingles for signature in signatures],
        "overlaps": [passages.overlap(content) if passages else [] for content in contents],
        "source": [document.source for document in documents],
        "licence_evidence": [document.licence.evidence for document in documents],
        "opted_out": [document.opted_out for document in documents],
        "redactions": [[asdict(place) for place in document.redactions] for document in documents],
        "imports": [imports.targets(document.content, document.language) for document in documents],
    }
    return pa.table(columns, schema=CANDIDATES)


def _removed(rejected: Sequence[tuple[FileJob, Removal]]) -> pa.Table:
    columns = {
        "repo": [job.repo for job, _ in rejected],
        "path": [job.file.path for job, _ in rejected],
        "licence": [job.licence.expression if job.licence else licences.UNKNOWN for job, _ in rejected],
        "bytes": [job.file.size for job, _ in rejected],
        "reason": [removal.reason for _, removal in rejected],
        "detail": [removal.detail for _, removal in rejected],
        "source": [job.source for job, _ in rejected],
        "licence_evidence": [job.licence.evidence if job.licence else "" for job, _ in rejected],
    }
    return pa.table(columns, schema=REMOVED)


def finish(verdict: ShardVerdict, scratch: str, output: str) -> int:
    """Write the documents, their signatures and the removed files of one shard; returns its number."""
    target = documents_uri(output, verdict.number)
    if storage.exists(target):
        return verdict.number
    removed, signatures = [storage.read_table(rejected_uri(scratch, verdict.number))], [SIGNATURES.empty_table()]
    redacted = [REDACTED.empty_table()]
    order = _order(verdict, scratch)
    fs, path = storage.filesystem(candidates_uri(scratch, verdict.number))
    with (
        fs.open(path, "rb") as source,
        storage.open_write(target) as file,
        pq.ParquetWriter(file, DOCUMENTS, compression="zstd") as writer,
    ):
        parquet = pq.ParquetFile(source)
        first = 0
        for number in range(parquet.num_row_groups):
            group = parquet.read_row_group(number)
            splits = verdict.splits[first : first + group.num_rows]
            removals = [verdict.removals.get(row) for row in range(first, first + group.num_rows)]
            documents = (
                group.append_column("split", pa.array(splits, pa.string()))
                .append_column("order", pa.array(order[first : first + group.num_rows], pa.int32()))
                .filter(pa.array([removal is None for removal in removals], pa.bool_()))
            )
            writer.write_table(documents.select(DOCUMENTS.names).cast(DOCUMENTS))
            signatures.append(documents.select(SIGNATURES.names).cast(SIGNATURES))
            redacted.append(_redacted(documents))
            removed.append(_removed_candidates(group, removals))
            first += group.num_rows
        storage.write_table(signatures_uri(output, verdict.number), pa.concat_tables(signatures))
        storage.write_table(redacted_uri(output, verdict.number), pa.concat_tables(redacted))
        storage.write_table(removed_uri(output, verdict.number), pa.concat_tables(removed))
    return verdict.number


def _order(verdict: ShardVerdict, scratch: str) -> list[int]:
    """Return the place of each candidate of a shard in the reading order of its repository."""
    rows = importers(scratch, verdict.number)
    result = list(verdict.order)
    for _, group in itertools.groupby(range(len(rows)), key=lambda row: rows[row][0]):
        numbers = list(group)
        if result[numbers[0]] == WITHIN:
            places = reading_order.places([rows[row][1] for row in numbers])
            result[numbers[0] : numbers[-1] + 1] = places
    return result


def importers(scratch: str, number: int) -> list[tuple[str, Importer]]:
    """Return the repository of each candidate of a shard, and the candidate with its imports."""
    table = storage.read_table(candidates_uri(scratch, number), ["repo", *Importer._fields])
    columns = (table[name].to_pylist() for name in Importer._fields)
    return list(zip(map(str, table["repo"].to_pylist()), map(Importer, *columns), strict=True))


def _redacted(documents: pa.Table) -> pa.Table:
    """Return the replaced places of the documents, one row for each."""
    rows = documents.select(["repo", "path", "redactions"]).to_pylist()
    places = [{"repo": row["repo"], "path": row["path"]} | place for row in rows for place in row["redactions"]]
    return pa.Table.from_pylist(places, schema=REDACTED)


def _removed_candidates(group: pa.Table, removals: Sequence[Removal | None]) -> pa.Table:
    """Return the candidates that are removed, as rows of removed files."""
    out = [removal for removal in removals if removal is not None]
    table = group.select([name for name in REMOVED.names if name not in Removal._fields]).filter(
        pa.array([removal is not None for removal in removals], pa.bool_())
    )
    for number, name in enumerate(Removal._fields):
        table = table.append_column(name, pa.array([removal[number] for removal in out], pa.string()))
    return table.select(REMOVED.names).cast(REMOVED)
