"""Check the results of two runs of the pipeline on a cluster; deploy/kind/test.sh calls it step by step.

`assert` checks a run's RayJobs, its MLflow run, the registered model, the deployment, and a completion through it;
`rollback` returns to the previous deployment and checks the registered model and the deployment. Each prints one line
per problem, and exits with 1 if there is one.
"""

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from infill import entry, tracking
from infill.cli_options import number
from infill.cluster.api import Api, connect
from infill.cluster.stage_job import RUN_LABEL, STAGE_LABEL, label_value
from infill.errors import InfillError, ServiceError
from infill.release import frame, readiness, registry, rollout, route
from infill.stages import RAY_STAGES

PROMPT = {"prompt": "def area(width, height):\n    return ", "suffix": "\n", "path": "a.py", "max_tokens": 8}


def rayjobs(api: Api, run: str, stages: Sequence[str] = RAY_STAGES) -> Iterator[str]:
    """Yield a problem for each stage without a successful job in the run, and each Ray pod of it that still runs."""
    jobs = api.list("rayjobs", labels=f"{RUN_LABEL}={label_value(run)}")["items"]
    of_stage = {item["metadata"]["labels"][STAGE_LABEL].partition("-")[0]: item for item in jobs}
    for stage in stages:
        status = of_stage.get(stage, {}).get("status", {})
        if stage not in of_stage:
            yield f"stage {stage}: no RayJob of run {run}"
        elif (status.get("jobDeploymentStatus"), status.get("jobStatus")) != ("Complete", "SUCCEEDED"):
            yield f"stage {stage}: RayJob {of_stage[stage]['metadata']['name']} is {status or 'not started'}"
    for pod in api.list("pods", labels=f"{RUN_LABEL}={label_value(run)},infill.dev/role=worker")["items"]:
        if pod.get("status", {}).get("phase") == "Running":
            yield f"pod {pod['metadata']['name']} of a Ray cluster still runs"


def mlflow(run: str, stages: Sequence[str] = RAY_STAGES) -> Iterator[str]:
    """Yield a problem if the MLflow run is not finished, or lacks a nested run of one of the stages or of register."""
    parent = tracking.run_of(run)
    if parent is None:
        yield f"MLflow at {tracking.tracking_uri()} has no run of pipeline run {run}"
        return
    if parent.info.status != "FINISHED":
        yield f"the MLflow run of pipeline run {run} is {parent.info.status}"
    inside = f"tags.`{tracking.PARENT_TAG}` = '{parent.info.run_id}'"
    nested = tracking.client().search_runs([parent.info.experiment_id], inside)
    logged = {str(each.info.run_name).partition("-")[0] for each in nested}
    for stage in (*stages, "register"):
        if stage not in logged:
            yield f"MLflow has no run of stage {stage}"


def deployment(api: Api, release: str, model: str) -> Iterator[str]:
    """Yield a problem unless the Service points to a ready InferenceService that serves the champion."""
    champion = registry.champion(model)
    if champion is None:
        yield f"model {model} is not registered, or has no champion"
        return
    active = route.read(api, frame.read(api, release).service)[0].active
    service = api.get("inferenceservices", active) if active else None
    if service is None:
        yield f"release {release} serves nothing"
        return
    if not readiness.ready(service):
        yield f"InferenceService {active} is not ready: {service.get('status', {}).get('conditions')}"
    serves = service["metadata"].get("annotations", {}).get(frame.DIGEST)
    if serves != champion.model_digest:
        yield f"InferenceService {active} serves {serves}, the champion (version {champion.version}) is another model"


def completion(url: str) -> Iterator[str]:
    """Yield a problem unless the transformer returns a completion with the context's provenance."""
    answer = ask(f"{url}/v1/completions", PROMPT)
    if "text" not in (answer.get("choices") or [{}])[0]:
        yield f"{url} returns no completion: {answer}"
    if "infill" not in answer:
        yield f"{url} does not report the packed context: the answer is not the transformer's"


def ask(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON answer. Raises ServiceError if there is none."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return dict(json.loads(response.read()))
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise ServiceError(f"{url} does not answer: {error}") from error


def settled(check: Callable[[], Iterator[str]], seconds: float, pause: float = 5.0) -> list[str]:
    """Repeat a check until it finds no problem or the time is up; return the remaining problems."""
    until = time.monotonic() + seconds
    while True:
        try:
            left = list(check())
        except ServiceError as error:
            left = [str(error)]
        if not left or time.monotonic() >= until:
            return left
        time.sleep(pause)


def look(given: argparse.Namespace) -> list[str]:
    """Check a run; return a sentence for each problem."""
    api = connect(given.namespace)

    def everything() -> Iterator[str]:
        yield from rayjobs(api, given.run, given.stages) if given.run else ()
        yield from mlflow(given.run, given.stages) if given.run else ()
        yield from deployment(api, given.release, given.model)
        yield from completion(given.url) if given.url else ()

    return settled(everything, given.wait)


def roll_back(given: argparse.Namespace) -> list[str]:
    """Roll back; return a sentence for each problem, such as a model that is not the previous one."""
    api = connect(given.namespace)
    before = route.read(api, frame.read(api, given.release).service)[0]
    result = rollout.rollback(api, given.release, given.model)

    def everything() -> Iterator[str]:
        if result["active"] != before.previous or result["left"] != before.active:
            yield f"the rollback went to {result['active']}, but the previous deployment was {before.previous}"
        yield from deployment(api, given.release, given.model)

    return settled(everything, given.wait)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a check; print one line per problem, and return 1 if there is one, else 0."""
    parser = entry.Parser(prog="python -m deploy.kind.check", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, call, about in (
        ("assert", look, "check the results of a run"),
        ("rollback", roll_back, "return to the previous deployment, and check it"),
    ):
        command = commands.add_parser(name, help=about)
        command.set_defaults(call=call)
        command.add_argument("--namespace", default="")
        command.add_argument("--mlflow", required=True, help="URL of MLflow")
        command.add_argument("--model", default="infill", help="registered model")
        command.add_argument("--release", default="completions", help="name of the release of charts/infill-serving")
        command.add_argument("--wait", type=number("wait"), default=600.0, help="seconds until all checks must pass")
        if name == "assert":
            command.add_argument(
                "--run", default="", help="id of the pipeline run; without it only the deployment is checked"
            )
            command.add_argument("--stages", nargs="*", default=RAY_STAGES, help="stages of the run that are RayJobs")
            command.add_argument(
                "--url", default="", help="URL of the transformer; without it no completion is requested"
            )
    given = parser.parse_args(arguments)
    os.environ["MLFLOW_TRACKING_URI"] = given.mlflow
    try:
        left = given.call(given)
    except InfillError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.writelines(f"{problem}\n" for problem in left)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(entry.run("python -m deploy.kind.check", main))
