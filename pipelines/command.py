"""`infill pipeline ...`: compile, submit, status, logs, cancel. A command imports what it needs when it runs."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infill.cli_options import (
    Commands,
    absolute_uri,
    budget,
    command,
    input_file,
    output_file,
    settings_of,
    settings_options,
    url,
    word,
)
from infill.corpus import opt_out
from infill.errors import InputError

if TYPE_CHECKING:
    from pipelines.service import KfpClient

HOST: Final = "KFP_HOST"
BUILT: Final = Path("dist/images.json")
"""The file to which images/build.sh writes the references of the pushed images."""


def add(commands: Commands) -> None:
    """Add `infill pipeline` and its subcommands."""
    pipeline = commands.add_parser("pipeline", help="the KFP pipeline; see infill pipeline --help").add_subparsers(
        metavar="COMMAND", required=True
    )
    compiled = command(
        pipeline, "compile", _compile, "compile the pipeline", "infill pipeline compile --to infill.yaml"
    )
    compiled.add_argument("--to", type=output_file, default="out/pipeline.yaml", metavar="FILE")
    _platform_options(compiled)

    submit = command(
        pipeline,
        "submit",
        _submit,
        "run the pipeline on Kubeflow Pipelines and follow it to its end",
        "infill pipeline submit --host http://localhost:8888 --store s3://bucket/infill --preset small",
    )
    submit.add_argument(
        "--parameters", type=input_file, metavar="FILE", help="parameters as YAML; options take precedence"
    )
    submit.add_argument("--store", type=absolute_uri, metavar="URI", help="object-store prefix for all artifacts")
    budget(submit)
    submit.add_argument(
        "--service-account", default="", metavar="NAME", help="service account of the steps (default: KFP's)"
    )
    submit.add_argument("--no-wait", action="store_true", help="do not follow the run")
    settings_options(submit, preset=None)
    _platform_options(submit)

    status = command(pipeline, "status", _run_status, "show a run's steps, states and times")
    status.add_argument("--follow", action="store_true", help="follow the run to its end")
    logs = command(pipeline, "logs", _run_logs, "print the log of a step", "infill pipeline logs RUN pretrain --follow")
    cancel = command(pipeline, "cancel", _run_cancel, "stop a run")
    for each in (status, logs, cancel):
        each.add_argument("run", type=word, metavar="RUN", help="the run's id")
    logs.add_argument(
        "step", type=word, metavar="STEP", help="name of the step in the table: corpus, evaluate-base, ..."
    )
    logs.add_argument("--follow", action="store_true", help="follow the log to the step's end")
    for each in (submit, status, logs, cancel):
        about = f"the KFP API (default: {HOST}); set its token in KFP_TOKEN"
        each.add_argument("--host", type=url, metavar="URL", default=os.environ.get(HOST) or None, help=about)
        each.add_argument("--namespace", default="", help="your profile, if KFP has several users")


def _platform_options(parser: argparse.ArgumentParser) -> None:
    about = "images by digest, as written by images/build.sh (default: INFILL_IMAGES"
    parser.add_argument("--images", type=input_file, metavar="FILE", help=f"{about}; for submit also {BUILT})")
    about = "values with which charts/infill-platform was installed (default: INFILL_VALUES)"
    parser.add_argument("--values", type=input_file, metavar="FILE", help=about)


def _platform(options: argparse.Namespace) -> None:
    """Set the variables that the pipeline's modules read when they are imported. Raises InputError for bad images."""
    for name, file in (("INFILL_IMAGES", options.images), ("INFILL_VALUES", options.values)):
        if file:
            os.environ[name] = str(file)
    from components import images

    for name in images.NAMES:
        images.image(name)


def _connect(options: argparse.Namespace) -> "KfpClient":
    """Return the KFP at --host or KFP_HOST. Raises InputError if neither is set."""
    from pipelines import service

    if not options.host:
        raise InputError(f"the address of Kubeflow Pipelines is missing: give --host URL, or set {HOST}")
    return service.connect(options.host, options.namespace)


def _compile(options: argparse.Namespace) -> dict[str, str]:
    if options.to.suffix != ".yaml":
        raise InputError(f"KFP reads the pipeline as YAML: --to must end with .yaml, got {options.to}")
    _platform(options)
    from pipelines.full import compile_pipeline

    compile_pipeline(options.to)
    return {"pipeline": str(options.to)}


def _submit(options: argparse.Namespace) -> dict[str, Any]:
    if BUILT.is_file() and not os.environ.get("INFILL_IMAGES"):
        options.images = options.images or BUILT
    _platform(options)
    from rich.console import Console

    from pipelines import run_table, submit

    parameters = submit.read_parameters(options.parameters) if options.parameters else {}
    overrides = {"preset": options.preset, "store": options.store, "budget": options.budget}
    parameters |= {name: value for name, value in overrides.items() if value is not None}
    settings = {**submit.settings_in(parameters), **settings_of(options)}
    parameters["settings"] = opt_out.with_usual(settings, on_cluster=True)
    kfp = _connect(options)
    run = submit.submit(kfp, parameters, service_account=options.service_account)
    console = Console(stderr=True)
    console.print(f"run {run['run']}: {run['url']}", highlight=False, soft_wrap=True)
    return run if options.no_wait else run_table.follow(kfp, run["run"], console)


def _run_status(options: argparse.Namespace) -> dict[str, Any]:
    from rich.console import Console

    from pipelines import run_table

    kfp = _connect(options)
    if options.follow:
        return run_table.follow(kfp, options.run, Console(stderr=True))
    return run_table.status(kfp, options.run, Console(stderr=True))


def _run_logs(options: argparse.Namespace) -> None:
    from pipelines import run_table

    kfp = _connect(options)
    for line in run_table.logs(kfp, options.run, options.step, follow=options.follow):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _run_cancel(options: argparse.Namespace) -> dict[str, Any]:
    kfp = _connect(options)
    kfp.terminate(options.run)
    return {"run": options.run, "state": kfp.run(options.run).get("state")}
