"""`infill pipeline ...`: compile, submit, schedule, status, logs, cancel. A command imports its needs when it runs."""

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
from pipelines import run_times

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
    submit.add_argument("--no-wait", action="store_true", help="do not follow the run")
    _run_options(submit)
    scheduled = _add_schedule(pipeline)

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
    for each in (submit, status, logs, cancel, *scheduled):
        about = f"the KFP API (default: {HOST}); set its token in KFP_TOKEN"
        each.add_argument("--host", type=url, metavar="URL", default=os.environ.get(HOST) or None, help=about)
        each.add_argument("--namespace", default="", help="your profile, if KFP has several users")


def _run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `_parameters` reads."""
    parser.add_argument(
        "--parameters", type=input_file, metavar="FILE", help="parameters as YAML; options take precedence"
    )
    parser.add_argument("--store", type=absolute_uri, metavar="URI", help="object-store prefix for all artifacts")
    budget(parser)
    parser.add_argument(
        "--service-account", default="", metavar="NAME", help="service account of the steps (default: KFP's)"
    )
    settings_options(parser, preset=None)
    _platform_options(parser)


def _add_schedule(pipeline: Commands) -> list[argparse.ArgumentParser]:
    """Add `infill pipeline schedule` and its subcommands; return their parsers."""
    group = pipeline.add_parser("schedule", help="repeated runs: see infill pipeline schedule --help")
    schedule = group.add_subparsers(metavar="COMMAND", required=True)
    about = "run the pipeline again and again on Kubeflow Pipelines; called again, it changes the schedule of that name"
    example = "infill pipeline schedule set --cron '0 3 * * *' --store s3://bucket/infill --preset small"
    put = command(schedule, "set", _schedule_set, about, example)
    put.add_argument("--name", type=word, default="infill", help="name of the schedule; default: %(default)s")
    times = put.add_mutually_exclusive_group(required=True)
    about = "minute, hour, day, month and weekday in KFP's time zone (UTC by default), such as '0 3 * * *'"
    times.add_argument("--cron", type=run_times.cron, metavar="TIMES", help=about)
    times.add_argument(
        "--every", type=run_times.interval, metavar="TIME", help="minutes, hours or days, such as 90m, 12h or 7d"
    )
    _run_options(put)
    listed = command(schedule, "list", _schedule_list, "list schedules: name, state, times, parameters")
    about = "start no more runs; a run that has started continues"
    disable = command(schedule, "disable", _schedule_switch, about, "infill pipeline schedule disable infill")
    enable = command(schedule, "enable", _schedule_switch, "start runs again after infill pipeline schedule disable")
    disable.set_defaults(on=False)
    enable.set_defaults(on=True)
    about = "delete a schedule; KFP may end a run of it that has not ended"
    delete = command(schedule, "delete", _schedule_delete, about)
    for each in (disable, enable, delete):
        each.add_argument("name", type=word, metavar="NAME", help="name in infill pipeline schedule list")
    return [put, listed, disable, enable, delete]


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


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters of a run in the options of a command, after the platform is set."""
    if BUILT.is_file() and not os.environ.get("INFILL_IMAGES"):
        options.images = options.images or BUILT
    _platform(options)
    from pipelines import submit

    parameters = submit.read_parameters(options.parameters) if options.parameters else {}
    overrides = {"preset": options.preset, "store": options.store, "budget": options.budget}
    parameters |= {name: value for name, value in overrides.items() if value is not None}
    settings = {**submit.settings_in(parameters), **settings_of(options)}
    parameters["settings"] = opt_out.with_usual(settings, on_cluster=True)
    return parameters


def _submit(options: argparse.Namespace) -> dict[str, Any]:
    parameters = _parameters(options)
    from rich.console import Console

    from pipelines import run_table, submit

    kfp = _connect(options)
    run = submit.submit(kfp, parameters, service_account=options.service_account)
    console = Console(stderr=True)
    console.print(f"run {run['run']}: {run['url']}", highlight=False, soft_wrap=True)
    return run if options.no_wait else run_table.follow(kfp, run["run"], console)


def _schedule_set(options: argparse.Namespace) -> dict[str, Any]:
    parameters = _parameters(options)
    from pipelines import schedule

    when = run_times.trigger(options.cron, options.every)
    kfp = _connect(options)
    return schedule.put(kfp, options.name, when, parameters, service_account=options.service_account)


def _schedule_list(options: argparse.Namespace) -> list[dict[str, Any]]:
    from pipelines import schedule

    return [schedule.describe(each) for each in schedule.named(_connect(options))]


def _schedule_switch(options: argparse.Namespace) -> dict[str, str]:
    from pipelines import schedule

    return schedule.switch(_connect(options), options.name, on=options.on)


def _schedule_delete(options: argparse.Namespace) -> dict[str, str]:
    from pipelines import schedule

    return schedule.delete(_connect(options), options.name)


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
    from pipelines import run_table

    kfp = _connect(options)
    if kfp.run(options.run).get("state") not in run_table.ENDED:  # KFP calls a run that has ended not found
        kfp.terminate(options.run)
    return {"run": options.run, "state": kfp.run(options.run).get("state")}
