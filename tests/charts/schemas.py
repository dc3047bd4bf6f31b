"""Strict validation: Kubernetes' own schemas, the CRDs, and the few fields that we use of missing CRDs."""

from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]

from tests.kube import crds

KUBERNETES = "1.37"
Thing = dict[str, Any]

TEXT = {"type": "string"}
SELECTOR = {"type": "object", "properties": {"matchLabels": {"type": "object"}, "matchExpressions": {"type": "array"}}}
KEY_OF_SECRET = {"type": "object", "required": ["key"], "properties": {"name": TEXT, "key": TEXT}}
ENDPOINTS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["port"],
        "properties": {
            "port": TEXT,
            "path": TEXT,
            "interval": TEXT,
            "basicAuth": {"type": "object", "properties": {"username": KEY_OF_SECRET, "password": KEY_OF_SECRET}},
        },
    },
}
RULE = {
    "type": "object",
    "required": ["alert", "expr"],
    "properties": {
        "alert": TEXT,
        "expr": TEXT,
        "for": TEXT,
        "labels": {"type": "object"},
        "annotations": {"type": "object"},
    },
}
GROUP = {
    "type": "object",
    "required": ["name", "rules"],
    "properties": {"name": TEXT, "rules": {"type": "array", "items": RULE}},
}
OTHERS: dict[str, tuple[str, Thing]] = {
    "ServiceMonitor": (
        "monitoring.coreos.com/v1",
        {"required": ["selector", "endpoints"], "properties": {"selector": SELECTOR, "endpoints": ENDPOINTS}},
    ),
    "PodMonitor": (
        "monitoring.coreos.com/v1",
        {
            "required": ["selector", "podMetricsEndpoints"],
            "properties": {"selector": SELECTOR, "podMetricsEndpoints": ENDPOINTS},
        },
    ),
    "PrometheusRule": (
        "monitoring.coreos.com/v1",
        {"required": ["groups"], "properties": {"groups": {"type": "array", "items": GROUP}}},
    ),
    "LocalQueue": (
        "kueue.x-k8s.io/v1beta1",
        {"required": ["clusterQueue"], "properties": {"clusterQueue": TEXT}},
    ),
}
"""Written by hand from the projects' documentation, which a CRD would do better."""


def problems(thing: Thing) -> list[str]:
    """What a strict API server would refuse."""
    if thing["kind"] in crds.FILES:
        return crds.problems(thing)
    if thing["kind"] in OTHERS:
        version, spec = OTHERS[thing["kind"]]
        wrong = [] if thing["apiVersion"] == version else [f"apiVersion is not {version}"]
        return wrong + list(crds.check(thing["spec"], {"type": "object", **spec}, thing["kind"]))
    try:
        kubernetes_validate.validate(thing, KUBERNETES, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
        return [str(error)]
    return []
