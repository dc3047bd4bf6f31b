"""`infill pipeline ...`: compile, submit, status, logs, cancel. A command imports what it needs when it is run."""

import argparse
import os
import sys
from typing import Any

from infill.cli_options import Commands, absolute_path, absolute_uri, command, settings_of, settings_options
from infill.errors import InputError


def add(commands: Commands) -> None:
    """Add `infill pipeline` and what stands below it."""
    pipeline = commands.add_parser("pipeline", help="the KFP pipeline: see infill pipeline --help").add_subparsers(
        metavar="COMMAND", required=True
    )
    compiled = command(
        pipeline, "compile", _compile, "compile the pipeline", "infill pipeline compile --to infill.yaml"
    )
    compiled.add_argument("--to", type=absolute_path, default="out/pipeline.yaml", metavar="FILE")
    _platform_options(compiled)

    submit = command(
        pipeline,
        "submit",
        _submit,
        "run the pipeline on Kubeflow Pipelines and follow it to its end",
        "infill pipeline submit --host http://localhost:8888 --store s3://bucket/infill --preset small",
    )
    submit.add_argument(
        "--parameters", type=absolute_path, metavar="FILE", help="parameters as YAML; options go before them"
    )
    submit.add_argument("--store", type=absolute_uri, metavar="URI", help="object-store prefix for all artifacts")
    submit.add_argument(
        "--budget", type=float, metavar="HOURS", help="GPU-hours; a run that would take more is refused"
    )
    submit.add_argument("--service-account", default="", metavar="NAME", help="of the steps; default: KFP's")
    submit.add_argument("--no-wait", action="store_true", help="do not follow the run")
    settings_options(submit, preset=None)
    _platform_options(submit)

    status = command(pipeline, "status", _run_status, "show a run's steps, states and times")
    status.add_argument("--follow", action="store_true", help="until it has ended")
    logs = command(pipeline, "logs", _run_logs, "print the log of a step", "infill pipeline logs RUN pretrain --follow")
    cancel = command(pipeline, "cancel", _run_cancel, "stop a run")
    for each in (status, logs, cancel):
        each.add_argument("run", metavar="RUN", help="the run's id")
    logs.add_argument("step", metavar="STEP", help="as the table names it: corpus, evaluate-base, ...")
    logs.add_argument("--follow", action="store_true", help="until the step has ended")
    host = os.environ.get("KFP_HOST", "")
    for each in (submit, status, logs, cancel):
        about = "the KFP API (default: KFP_HOST); its token in KFP_TOKEN"
        each.add_argument("--host", metavar="URL", default=host, required=not host, help=about)
        each.add_argument("--namespace", default="", help="your profile, where KFP has users")


def _platform_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        type=absolute_path,
        metavar="FILE",
        help="images by digest, as dist/images.json (default: INFILL_IMAGES)",
    )
    about = "the values that charts/infill-platform was installed with (default: INFILL_VALUES)"
    parser.add_argument("--values", type=absolute_path, metavar="FILE", help=about)


def _platform(options: argparse.Namespace) -> None:
    """Tell the modules that define the pipeline, which read them when they are imported."""
    for name, file in (("INFILL_IMAGES", options.images), ("INFILL_VALUES", options.values)):
        if file:
            if not file.is_file():
                raise InputError(f"there is no file {file}")
            os.environ[name] = str(file)


def _compile(options: argparse.Namespace) -> dict[str, str]:
    _platform(options)
    from pipelines.full import compile_pipeline

    compile_pipeline(options.to)
    return {"pipeline": str(options.to)}


def _submit(options: argparse.Namespace) -> dict[str, Any]:
    _platform(options)
    from rich.console import Console

    from pipelines import service, submit, watch

    parameters = submit.read_parameters(options.parameters) if options.parameters else {}
    given = {"preset": options.preset, "store": options.store, "budget": options.budget}
    parameters |= {name: value for name, value in given.items() if value is not None}
    parameters["settings"] = {**submit.settings_in(parameters), **settings_of(options)}
    kfp = service.connect(options.host, options.namespace)
    made = submit.submit(kfp, parameters, service_account=options.service_account)
    console = Console(stderr=True)
    console.print(f"run {made['run']}: {made['url']}", highlight=False, soft_wrap=True)
    return made if options.no_wait else watch.follow(kfp, made["run"], console)


def _run_status(options: argparse.Namespace) -> dict[str, Any]:
    from rich.console import Console

    from pipelines import service, watch

    kfp = service.connect(options.host, options.namespace)
    if options.follow:
        return watch.follow(kfp, options.run, Console(stderr=True))
    return watch.status(kfp, options.run, Console(stderr=True))


def _run_logs(options: argparse.Namespace) -> None:
    from pipelines import service, watch

    kfp = service.connect(options.host, options.namespace)
    for line in watch.logs(kfp, options.run, options.step, follow=options.follow):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _run_cancel(options: argparse.Namespace) -> dict[str, Any]:
    from pipelines import service

    kfp = service.connect(options.host, options.namespace)
    kfp.terminate(options.run)
    return {"run": options.run, "state": kfp.run(options.run).get("state")}
