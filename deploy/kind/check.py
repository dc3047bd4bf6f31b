"""What the `debug` pipeline must have left behind on a cluster; `make kind-test` and `make cluster-test` run it.

`submit` starts the pipeline and waits; `assert` looks at RayJobs, MLflow, the InferenceService and a completion, and
prints one line for each thing that does not hold.
"""

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from infill.cluster.api import Api, connect
from infill.cluster.job import RUN_LABEL, STAGE_LABEL
from infill.cluster.sizing import RAY_STAGES
from infill.errors import InfillError, ServiceError

PROMPT = {"prompt": "def area(width, height):\n    return ", "suffix": "\n", "path": "a.py", "max_tokens": 8}


def rayjobs(api: Api, run: str = "") -> Iterator[str]:
    """Every Ray stage had a job that succeeded, and its cluster is gone."""
    found = api.list("rayjobs", labels=f"{RUN_LABEL}={run}" if run else "app.kubernetes.io/managed-by=infill")["items"]
    stages = {item["metadata"]["labels"][STAGE_LABEL].partition("-")[0]: item for item in found}
    for stage in RAY_STAGES:
        status = stages.get(stage, {}).get("status", {})
        if stage not in stages:
            yield f"stage {stage}: no RayJob"
        elif (status.get("jobDeploymentStatus"), status.get("jobStatus")) != ("Complete", "SUCCEEDED"):
            yield f"stage {stage}: RayJob {stages[stage]['metadata']['name']} is {status or 'not started'}"
    for pod in api.list("pods", labels="infill.dev/role=worker")["items"]:
        if pod.get("status", {}).get("phase") == "Running":
            yield f"pod {pod['metadata']['name']} of a Ray cluster still runs"


def inferenceservice(api: Api, name: str) -> Iterator[str]:
    """It is ready and says which model it serves."""
    found = api.get("inferenceservices", name)
    if found is None:
        yield f"InferenceService {name} does not exist"
        return
    conditions = {each["type"]: each["status"] for each in found.get("status", {}).get("conditions", [])}
    if conditions.get("Ready") != "True":
        yield f"InferenceService {name} is not ready: {conditions}"
    if not found["metadata"].get("annotations", {}).get("infill.dev/model-digest"):
        yield f"InferenceService {name} does not say the digest of its model"


def mlflow(url: str, model: str) -> Iterator[str]:
    """A finished run is there, and a registered version that carries the champion alias."""
    runs = ask(f"{url}/api/2.0/mlflow/experiments/search", {"max_results": 10}).get("experiments", [])
    if not [each for each in runs if each.get("name") != "Default"]:
        yield f"MLflow at {url} has no experiment of ours"
    try:
        found = ask(f"{url}/api/2.0/mlflow/registered-models/get?name={model}").get("registered_model", {})
    except ServiceError as error:
        yield f"model {model} is not registered: {error}"
        return
    if "champion" not in [each["alias"] for each in found.get("aliases", [])]:
        yield f"model {model} has no champion"


def completion(url: str) -> Iterator[str]:
    """A completion through the transformer, with the context's provenance."""
    answer = ask(f"{url}/v1/completions", PROMPT)
    if "text" not in (answer.get("choices") or [{}])[0]:
        yield f"{url} gives no completion: {answer}"
    if "infill" not in answer:
        yield f"{url} does not say what it packed: the answer is not the transformer's"


def ask(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON answer. Raises ServiceError when there is none."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return dict(json.loads(response.read()))
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise ServiceError(f"{url} does not answer: {error}") from error


def settled(check: Callable[[], Iterator[str]], seconds: float, pause: float = 5.0) -> list[str]:
    """The problems that are left when the check holds or the time is over."""
    until = time.monotonic() + seconds
    while (left := list(check())) and time.monotonic() < until:
        time.sleep(pause)
    return left


def submit(host: str, store: str) -> int:
    """Runs the `debug` pipeline and waits for it; 1 unless it succeeded."""
    from kfp import Client

    from pipelines.submit import submit as start

    made = start(host, store, "debug", {})
    done = Client(host=host).wait_for_run_completion(made["run"], timeout=3_600)
    sys.stdout.write(f"run {made['run']}: {done.state}\n")
    return 0 if str(done.state) == "SUCCEEDED" else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when everything holds, 1 with one line for each thing that does not."""
    parser = argparse.ArgumentParser(prog="python -m deploy.kind.check", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("submit", help="run the debug pipeline and wait")
    run.add_argument("--host", required=True, help="URL of the KFP API")
    run.add_argument("--store", required=True, help="prefix of the artifacts")
    look = commands.add_parser("assert", help="look at what the run left behind")
    look.add_argument("--namespace", default="")
    look.add_argument("--mlflow", default="", help="URL of MLflow; without it MLflow is not looked at")
    look.add_argument("--url", default="", help="URL of the transformer; without it no completion is asked for")
    look.add_argument("--service", default="infill", help="the InferenceService")
    look.add_argument("--wait", type=float, default=600.0, help="seconds that things may take to settle")
    given = parser.parse_args(arguments)
    try:
        return submit(given.host, given.store) if given.command == "submit" else look_at(given)
    except InfillError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def look_at(given: argparse.Namespace) -> int:
    """Prints what does not hold; 1 when there is something."""
    api = connect(given.namespace)

    def everything() -> Iterator[str]:
        yield from rayjobs(api)
        yield from inferenceservice(api, given.service)
        yield from mlflow(given.mlflow, "infill") if given.mlflow else ()
        yield from completion(given.url) if given.url else ()

    left = settled(everything, given.wait)
    sys.stdout.writelines(f"{problem}\n" for problem in left)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
