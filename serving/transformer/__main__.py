"""`python -m serving.transformer --model URI --predictor URL`; also takes the options of KServe's controller."""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from infill import entry
from infill.cli_options import kind_of, optional_uri
from infill.errors import InfillError
from serving.transformer.transformer_config import TransformerConfig, prepare

KSERVE_NAMES: Final[Mapping[str, str]] = {"name": "model_name", "port": "http_port"}
"""Our fields, each with the option that KServe's controller passes for it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the transformer with the command line's arguments; return the exit code, 2 when it cannot start."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    try:
        config = read_config(vars(options))
    except ValueError as error:
        parser.error(str(error))
    try:
        prepared = prepare(config)  # before importing KServe, which takes seconds
    except InfillError as error:
        sys.stderr.write(f"transformer: {error}\n")
        return 2
    # KServe reads the command line when it is imported and would take --model as a short form of --model_name.
    sys.argv = [sys.argv[0], *rest, *(["--predictor_host", options.predictor_host] if options.predictor_host else [])]
    from kserve import logging, model_server

    model_server.parser.parse_args()  # rejects options that neither we nor KServe know
    logging.configure_logging()
    from serving.transformer.model_server import serve

    serve(config, prepared)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = entry.Parser(
        prog="python -m serving.transformer",
        description="Complete code with the project's files in the prompt.",
        epilog="KServe's own options (see kserve.model_server) are accepted too.",
        allow_abbrev=False,
    )
    for field in dataclasses.fields(TransformerConfig):
        option = KSERVE_NAMES.get(field.name, field.name)
        parser.add_argument(f"--{option}", dest=field.name, type=kind_of(field), default=field.default)
    parser.add_argument("--tokenizer", type=optional_uri, default="", help="another name for --model")
    parser.add_argument("--predictor_host", default="", help="host[:port] of the predictor, as KServe passes it")
    parser.add_argument("--predictor_use_ssl", default="false", choices=("true", "false", "True", "False"))
    parser.add_argument("--workers", help="ignored: one process holds the projects and sessions")
    return parser


def read_config(given: Mapping[str, Any]) -> TransformerConfig:
    """Return the configuration in parsed options. Raises ValueError for an invalid value."""
    values = {field.name: given[field.name] for field in dataclasses.fields(TransformerConfig)}
    values["model"] = values["model"] or given["tokenizer"]
    if host := given["predictor_host"]:
        scheme = "https" if given["predictor_use_ssl"].lower() == "true" else "http"
        values["predictor"] = host if "://" in host else f"{scheme}://{host}"
    return TransformerConfig(**values)


if __name__ == "__main__":
    sys.exit(entry.run("transformer", main))
