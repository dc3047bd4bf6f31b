"""`python -m serving.predictor --model URI --port P`."""

import dataclasses
import logging
import sys
from collections.abc import Sequence

from infill import entry, manifest
from infill.cli_options import kind_of
from infill.errors import InfillError
from serving.predictor.predictor_config import PredictorConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the predictor with the command line's arguments; return the exit code, 2 when it cannot start."""
    parser = entry.Parser(prog="python -m serving.predictor", description="Serve one model.")
    for field in dataclasses.fields(PredictorConfig):
        required = field.default is dataclasses.MISSING
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, dest=field.name, type=kind_of(field), required=required, default=field.default)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    values = vars(parser.parse_args(arguments))
    try:
        config = PredictorConfig(**values)
    except ValueError as error:
        parser.error(str(error))
    try:
        folder = manifest.fetch(config.model)  # before importing torch, which takes seconds
        from serving.predictor.startup import serve

        serve(config, folder)
    except InfillError as error:
        sys.stderr.write(f"predictor: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(entry.run("predictor", main))
