"""What a chart renders to, as one thing: its objects, its pods (also those that operators will make), its values."""

import copy
import functools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from infill.release import frame, route
from infill.release.frame import Frame
from infill.release.route import Route
from tests.kube.store import merged

Thing = dict[str, Any]
ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "charts"
HELM = Path(sys.executable).parent / "helm"
CASES = sorted((path.parents[1].name, path.stem) for path in CHARTS.glob("*/ci/*.yaml"))
NAMESPACE = "ml"
RELEASE = "infill"


@dataclass(frozen=True, kw_only=True)
class Pod:
    where: str
    labels: Mapping[str, str]
    spec: Thing
    replicas: int = 1
    serves: bool = True
    """Whether it runs until it is stopped, so that it needs probes."""


@dataclass(kw_only=True)
class Bundle:
    things: list[Thing]
    values: Thing = field(default_factory=dict)

    def of(self, *kinds: str) -> list[Thing]:
        return [thing for thing in self.things if thing["kind"] in kinds]

    def names(self, kind: str) -> set[str]:
        return {thing["metadata"]["name"] for thing in self.of(kind)}

    @property
    def pods(self) -> list[Pod]:
        return [pod for thing in self.things for pod in pods_of(thing, self)]

    def external(self) -> set[str]:
        """Names of what the values declare as made by somebody else: Secrets and priority classes."""
        return set(_declared(self.values))


def _declared(values: Any, key: str = "") -> Iterator[str]:
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _declared(value, name)
    elif key == "imagePullSecrets":
        yield from values
    elif key in ("secretName", "databaseSecret", "keysSecret", "priorityClass") and values:
        yield values


def title(thing: Thing) -> str:
    return f"{thing['kind']}/{thing['metadata']['name']}"


def pods_of(thing: Thing, bundle: Bundle) -> Iterator[Pod]:
    """The pods that this object makes or has made."""
    kind, spec, where = thing["kind"], thing.get("spec", {}), title(thing)
    if kind in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
        template, count = spec["template"], int(spec.get("replicas", 1))
        labels = template["metadata"].get("labels", {})
        yield Pod(where=where, labels=labels, spec=template["spec"], replicas=count, serves=kind != "Job")
    elif kind == "Pod":
        yield Pod(where=where, labels=thing["metadata"].get("labels", {}), spec=spec)
    elif kind == "RayJob":
        cluster = spec["rayClusterSpec"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            yield _ray(where, group["template"])
        yield _ray(where, spec["submitterPodTemplate"])
    elif kind == "InferenceService":
        yield from (_served(thing, name, bundle) for name in ("predictor", "transformer") if name in spec)


def _ray(where: str, template: Thing) -> Pod:
    return Pod(where=where, labels=template["metadata"]["labels"], spec=template["spec"], serves=False)


def _served(thing: Thing, component: str, bundle: Bundle) -> Pod:
    """A component's pod as KServe makes it in Standard mode: labels added, the runtime's containers merged in."""
    spec = copy.deepcopy(thing["spec"][component])
    if "model" in spec:
        runtimes = [
            each for each in bundle.of("ServingRuntime") if each["metadata"]["name"] == spec["model"]["runtime"]
        ]
        runtime = copy.deepcopy(runtimes[0]["spec"]) if runtimes else {"containers": []}
        for container in runtime["containers"]:
            container.update({name: spec["model"][name] for name in ("image", "resources") if name in spec["model"]})
            container["args"] = [*container.get("args", []), *spec["model"].get("args", [])]  # as KServe does
        for name in ("containers", "volumes"):
            spec[name] = [*runtime.get(name, []), *spec.get(name, [])]
    labels = {**thing["metadata"].get("labels", {}), **spec.get("labels", {})}
    labels |= {"serving.kserve.io/inferenceservice": thing["metadata"]["name"], "component": component}
    where = f"{title(thing)} {component}"
    return Pod(where=where, labels=labels, spec=spec, replicas=int(spec.get("minReplicas", 1)))


def frame_of(thing: Thing) -> Frame | None:
    """The frame in a ConfigMap of the chart infill-serving; None for any other object."""
    text = thing.get("data", {}).get(frame.FILE) if thing["kind"] == "ConfigMap" else None
    return Frame(**json.loads(text)) if text else None


MODEL = {
    "model_uri": "s3://infill/store/dpo/0123456789abcdef",
    "model_digest": "1" * 64,
    "deployment": "s3://infill/store/deploy/0123456789abcdef/deployment.json",
}


def deployed(thing: Thing) -> Iterator[Thing]:
    """What `infill deploy` makes of a frame, for each engine."""
    resource = frame_of(thing)
    for number, shape in enumerate(resource.engines.values() if resource else ()):
        yield frame.fill(shape, {**MODEL, "name": f"{RELEASE}-{number:010}"})


def _point(things: list[Thing]) -> None:
    """Shift the route as `infill deploy` does."""
    names = [thing["metadata"]["name"] for thing in things if thing["kind"] == "InferenceService"]
    for number, thing in enumerate(things):
        if thing["kind"] == "Service" and "selector" not in thing["spec"] and names:
            things[number] = merged(thing, route.change(Route(active=names[0])))


@functools.cache
def _rendered(chart: str, values: str, *settings: str) -> str:
    """YAML of one combination; each is rendered once per session."""
    command = [str(HELM), "template", RELEASE, str(CHARTS / chart), "--namespace", NAMESPACE]
    command += ["--values", str(CHARTS / chart / "ci" / f"{values}.yaml"), *(f"--set={each}" for each in settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def helm(chart: str, values: str, *settings: str) -> list[Thing]:
    """A fresh copy of what Helm renders, and nothing else."""
    return [thing for thing in yaml.load_all(_rendered(chart, values, *settings), Loader=yaml.CSafeLoader) if thing]


def render(chart: str, values: str) -> Bundle:
    """A fresh copy of the objects of one combination, with the values that made them.

    Where the chart leaves the InferenceService to `infill deploy`, one of each engine is among them, and the Service
    points to the first: what a namespace holds after deployments.
    """
    things = helm(chart, values)
    things += [service for thing in things for service in deployed(thing)]
    _point(things)
    defaults = yaml.safe_load((CHARTS / chart / "values.yaml").read_text(encoding="utf-8"))
    given = yaml.safe_load((CHARTS / chart / "ci" / f"{values}.yaml").read_text(encoding="utf-8"))
    return Bundle(things=things, values=merge(defaults, given))


def merge(old: Thing, new: Thing) -> Thing:
    """Values as Helm merges them."""
    result = dict(old)
    for name, value in new.items():
        both = isinstance(value, dict) and isinstance(old.get(name), dict)
        result[name] = merge(old[name], value) if both else value
    return result
