"""Join finished example artifacts into one, so that a training reads holes of several kinds in every batch.

    python -m tools.join_examples out/adapter/lines out/adapter/blocks out/adapter/examples

The last folder is the output. The row groups of the training tables come in a random order; the tables of the other
splits follow one another.
"""

import argparse
import contextlib
import logging
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from infill import entry, manifest, storage
from infill.artifacts.examples import SPLITS, open_parquet, split_file, write_rows
from infill.manifest import Manifest

PROGRAM: Final = "python -m tools.join_examples"
log = logging.getLogger("join_examples")

VERSION: Final = 1


@dataclass(frozen=True, kw_only=True)
class JoinConfig:
    seed: int = 0
    """Seed of the order of the row groups."""


def main() -> None:
    """Join the artifacts that the arguments name."""
    parser = entry.Parser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples", nargs="+", type=storage.absolute)
    parser.add_argument("output", type=storage.absolute)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    artifact = join(options.examples, options.output, JoinConfig(seed=options.seed))
    log.info("%s %s", artifact.digest, artifact.metrics)


def join(sources: Sequence[str], output: str, config: JoinConfig) -> Manifest:
    """Write the examples of `sources` to `output` and return its manifest. Raises InputError for a missing artifact."""
    inputs = {f"examples_{number}": manifest.digest_of(source) for number, source in enumerate(sources)}

    def body() -> dict[str, float]:
        counts = {f"holes_{split}": float(_write(sources, output, split, config.seed)) for split in SPLITS}
        manifest.write_report(output, {"joined": inputs, "holes": counts})
        return counts

    key = manifest.key("examples", VERSION, config, inputs)
    return manifest.once(
        stage="examples", version=VERSION, key=key, config=config, inputs=inputs, output=output, body=body
    )


def _write(sources: Sequence[str], output: str, split: str, seed: int) -> int:
    """Write one table and return its number of holes."""
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(open_parquet(split_file(source, split))) for source in sources]
        groups = [(reader, group) for reader in readers for group in range(reader.num_row_groups)]
        if split == "train":
            random.Random(seed).shuffle(groups)
        write_rows(split_file(output, split), (reader.read_row_group(group) for reader, group in groups))
        return sum(reader.metadata.num_rows for reader in readers)


if __name__ == "__main__":
    sys.exit(entry.run(PROGRAM, main))
