"""The frame of an InferenceService, as the chart infill-serving renders it, and its completion for a model.

The chart alone defines images, probes, resources and scaling. It writes the frame to a ConfigMap, with `${...}` in the
places of a model's names, so that filling them in needs no Helm.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from infill import manifest
from infill.cluster.api import Api, Manifest, quantity
from infill.errors import InputError

FILE: Final = "frame.json"
GIB: Final = 2**30

RELEASE_LABEL: Final = "app.kubernetes.io/instance"
MANAGER_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "infill"
"""Label and field manager of the objects that `infill deploy` creates; it removes no others."""
DIGEST: Final = "infill.dev/model-digest"
URI: Final = "infill.dev/model-uri"
DEPLOYMENT: Final = "infill.dev/deployment"
"""Annotations of an InferenceService: the model that it serves, and the deployment record."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The settings for InferenceServices in a release of charts/infill-serving."""

    release: str
    service: str
    """The Service that clients use; its selector names the active InferenceService."""
    url: str
    """Address of the transformer of the InferenceService `${name}`."""
    ready_seconds: int
    smoke_latency_ms: int
    embedded_max_gib: float
    """Maximum size of weights for the embedded predictor, if there is a choice."""
    engines: Mapping[str, Manifest]
    """The InferenceService with placeholders by engine: `embedded` and `vllm`, as far as the release has them."""
    canary: Sequence[str]
    """Further arguments of a transformer that tries the model `${model_uri}` of its own InferenceService `${name}`."""

    def address(self, name: str) -> str:
        """Return the base URL of the transformer of the InferenceService `name`."""
        return self.url.replace("${name}", name)

    def engine(self, weights: int) -> str:
        """Return the name of the predictor for `weights` bytes of weights."""
        if len(self.engines) == 1:
            return next(iter(self.engines))
        return "embedded" if weights <= self.embedded_max_gib * GIB else "vllm"


def read(api: Api, release: str) -> Frame:
    """Return the frame of a release. Raises InputError when the namespace has none, or one of another version."""
    name = f"{release}-deploy"
    config_map = api.get("configmaps", name)
    if config_map is None:
        raise InputError(
            f"namespace {api.namespace} has no ConfigMap {name}: install charts/infill-serving there as release"
            f" {release} with model.uri empty, or name another release in deploy.release"
        )
    try:
        value = json.loads(config_map["data"][FILE])
        frame = Frame(**value)
        if not frame.engines or {field.name for field in dataclasses.fields(Frame)} != set(value):
            raise ValueError("it offers no engine")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"ConfigMap {name} is of another version of charts/infill-serving ({error}): upgrade that release"
        ) from error
    return frame


def weights(model_uri: str) -> int:
    """Return the bytes of the weights in a model's folder, from its manifest."""
    files = manifest.load(model_uri).files
    return sum(int(entry["bytes"]) for name, entry in files.items() if name.endswith(".safetensors"))


def inference_service(
    frame: Frame, *, model_uri: str, model_digest: str, deployment: str, stable: Manifest | None = None
) -> Manifest:
    """Return the InferenceService of a model, named by the release and ten digits of a hash of everything else.

    So the same model in the same frame has the same name, and any change (of the model, an image, a limit) gives a
    second InferenceService and does not change the one that serves. With `stable`, the champion's InferenceService, its
    transformer serves the champion, with the champion's predictor, and tries the model on some users. Raises InputError
    for weights that do not fit in the predictor's memory.
    """
    size = weights(model_uri)
    engine = frame.engine(size)
    shape = frame.engines[engine]
    room = float(quantity(_server(shape)["resources"]["limits"]["memory"]))
    if size > room:
        raise InputError(
            f"the weights of {model_uri} take {size / GIB:.1f} GiB, but the predictor has {room / GIB:.1f}: raise"
            f" predictor.{engine}.resources of release {frame.release}"
        )
    if stable is not None:
        shape = _beside(frame, shape, stable)
    body = fill(shape, {"model_uri": model_uri, "model_digest": model_digest, "deployment": deployment})
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:10]
    result: Manifest = fill(body, {"name": f"{frame.release}-{digest}"})
    return result


def _server(shape: Manifest) -> Manifest:
    """Return where `shape` states the predictor's resources: its container, or the `model` that a runtime completes."""
    predictor: Manifest = shape["spec"]["predictor"]
    server: Manifest = predictor["model"] if "model" in predictor else predictor["containers"][0]
    return server


def _beside(frame: Frame, shape: Manifest, stable: Manifest) -> Manifest:
    """Return `shape` with a transformer that serves the model of `stable` and tries its own InferenceService's."""
    metadata, spec = stable["metadata"], shape["spec"]
    notes = metadata["annotations"]
    names = {"name": metadata["name"], "model_uri": notes[URI], "deployment": notes[DEPLOYMENT]}
    transformer = fill(spec["transformer"], names)
    (container,) = transformer["containers"]
    container["args"] = [*container["args"], *frame.canary]
    return {**shape, "spec": {**spec, "transformer": transformer}}


def fill(value: Any, names: Mapping[str, str]) -> Any:
    """Return `value` with `${name}` replaced in each of its strings."""
    if isinstance(value, dict):
        return {key: fill(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, names) for item in value]
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace("${" + name + "}", text)
    return value
