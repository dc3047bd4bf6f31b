"""Running an experiment: hole by hole, in blocks that are kept, so that a killed run continues with the next one.

At each hole the cells take turns, and another one begins: what else the machine does meanwhile meets all of them alike.
"""

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

VERSION: Final = 2
"""Increased when a measure or the statistics change."""
BLOCK: Final = 4
"""Holes that are measured in all cells before they are kept."""
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
        row
        for start in range(0, len(experiment.holes), BLOCK)
        for row in _block(experiment, start, artifact.block_file(output, key, start))
    ]
    results = findings(experiment, rows)
    others = findings(experiment.against_second, rows) if experiment.second else []
    artifact.write(
        output,
        page=experiment_report.page(experiment, results, others),
        figures=experiment_report.figures(experiment, results),
        record=experiment_report.record(experiment, results, others),
        rows=rows,
    )
    return {"cells": float(len(experiment.cells)), "holes": float(len({row[HOLE] for row in rows}))}


def _block(experiment: Experiment, start: int, file: str) -> list[Row]:
    """Return the rows of a block of holes, from `file` if an earlier run measured it."""
    if not storage.exists(file):
        places = range(start, min(start + BLOCK, len(experiment.holes)))
        rows = [row for place in places for row in _turn(experiment, place)]
        storage.write_table(file, pa.Table.from_pylist(rows))
        log.info("experiment %s: %d of %d holes", experiment.name, places.stop, len(experiment.holes))
    return [*storage.read_table(file).to_pylist()]


def _turn(experiment: Experiment, place: int) -> list[dict[str, Any]]:
    """Return the row of each cell at one hole; the cell that begins is another one at the next hole."""
    first = place % len(experiment.cells)
    cells = [*experiment.cells[first:], *experiment.cells[:first]]
    return [{CELL: cell, HOLE: experiment.holes[place], **experiment.measure(cell, place)} for cell in cells]


def digest(uri: str) -> str:
    """Return the digest of the artifact at `uri`; of a folder without a manifest, from its files' sizes and times."""
    known = manifest.find(uri)
    return storage.fingerprint(uri) if known is None else known.digest
