"""Running an experiment: cell by cell, each kept when it is measured, so that a killed run continues with the next."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import pyarrow as pa

from infill import manifest, storage
from infill.artifacts import experiment as artifact
from infill.experiments import experiment_report
from infill.experiments.conclusion import findings
from infill.experiments.experiment import CELL, HOLE, Experiment, Row
from infill.manifest import Manifest

VERSION: Final = 1
"""Increased when a measure or the statistics change."""
log: Final = logging.getLogger(__name__)


def run(experiment: Callable[[], Experiment], *, config: Any, inputs: Mapping[str, str], output: str) -> Manifest:
    """Write the experiment to the folder `output`, unless it is there; return its manifest.

    `experiment` makes it, when it must run; `config` and the digests in `inputs` decide its results.
    """
    key = manifest.key(artifact.STAGE, VERSION, config, inputs)
    return manifest.once(
        stage=artifact.STAGE,
        version=VERSION,
        key=key,
        config=config,
        inputs=inputs,
        output=output,
        body=lambda: _write(experiment(), storage.absolute(output), key),
    )


def _write(experiment: Experiment, output: str, key: str) -> Mapping[str, float]:
    rows = [
        {CELL: cell, **row}
        for number, cell in enumerate(experiment.cells)
        for row in _measured(experiment, cell, artifact.cell_file(output, key, number))
    ]
    results = findings(experiment, rows)
    artifact.write(
        output,
        page=experiment_report.page(experiment, results),
        figures=experiment_report.figures(experiment, results),
        record=experiment_report.record(experiment, results),
        rows=rows,
    )
    return {"cells": float(len(experiment.cells)), "holes": float(len({row[HOLE] for row in rows}))}


def _measured(experiment: Experiment, cell: str, file: str) -> list[Row]:
    """Return the rows of a cell, from `file` if an earlier run measured it."""
    if not storage.exists(file):
        log.info("experiment %s: measuring %s", experiment.name, cell)
        storage.write_table(file, pa.Table.from_pylist([dict(row) for row in experiment.run(cell)]))
    return [*storage.read_table(file).to_pylist()]


def digest(uri: str) -> str:
    """Return the digest of the artifact at `uri`; of a folder without a manifest, from its files' sizes and times."""
    known = manifest.find(uri)
    return storage.fingerprint(uri) if known is None else known.digest
