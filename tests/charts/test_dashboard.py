"""The dashboard: every metric and label that it asks for is exposed by the transformer."""

import json
import re
from typing import Any, Final

import pytest
from prometheus_client import CollectorRegistry

from serving.transformer.completion_cache import CompletionCacheMetrics
from serving.transformer.service import TransformerMetrics
from serving.transformer.sides import CanaryMetrics
from serving.transformer.telemetry.counts import Counts
from tests.charts.bundle import CHARTS, helm

FILE: Final = CHARTS / "infill-serving" / "dashboards" / "suggestions.json"
DASHBOARD: Final[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
QUERIES: Final = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
QUERIES.extend(each["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query")


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """The transformer's samples and their labels."""
    registry = CollectorRegistry()
    owners: list[Any] = [TransformerMetrics(registry), Counts(registry)]
    owners += [CanaryMetrics(registry), CompletionCacheMetrics(registry)]
    samples: dict[str, set[str]] = {}
    for metric in [each for owner in owners for each in vars(owner).values()]:
        endings = ("_bucket", "_sum", "_count") if metric._type == "histogram" else ("_total",)
        for ending in endings:
            samples[metric._name + ending] = {*metric._labelnames, *(("le",) if ending == "_bucket" else ())}
    return samples


@pytest.mark.parametrize("query", QUERIES)
def test_every_metric_and_label_of_the_dashboard_is_exposed(query: str, exposed: dict[str, set[str]]) -> None:
    asked = re.findall(r"\b(infill_\w+)(?:\{([^}]*)\})?", query)
    assert asked
    for name, selector in asked:
        assert set(re.findall(r"(\w+)\s*(?:=~|=|!=|!~)", selector)) <= exposed[name]
    for by in re.findall(r"\bby \(([^)]*)\)", query):
        assert {each.strip() for each in by.split(",")} <= set.intersection(*(exposed[name] for name, _ in asked))
    if result := re.search(r"label_values\(\w+, (\w+)\)", query):
        assert result[1] in exposed[asked[0][0]]
    assert query.count("(") == query.count(")")


def test_the_dashboard_shows_every_metric_of_suggestions(exposed: dict[str, set[str]]) -> None:
    shown = {name for query in QUERIES for name in re.findall(r"\binfill_telemetry_\w+", query)}
    wanted = {name for name in exposed if name.startswith("infill_telemetry") and not name.endswith(("_sum", "_count"))}
    assert shown == wanted


def test_panels_do_not_overlap_and_legends_name_labels_that_remain() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        mine = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not mine & cells
        assert place["x"] + place["w"] <= 24
        cells |= mine
        for target in panel["targets"]:
            kept = {name.strip() for by in re.findall(r"\bby \(([^)]*)\)", target["expr"]) for name in by.split(",")}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept


def test_the_chart_holds_the_dashboard_where_it_is_asked_for() -> None:
    (shown,) = (
        each
        for each in helm("infill-serving", "access-values")
        if each["kind"] == "ConfigMap" and "grafana_dashboard" in each["metadata"]["labels"]
    )
    assert json.loads(shown["data"]["infill-suggestions.json"]) == DASHBOARD
    without = helm("infill-serving", "access-values", "monitoring.dashboard=false")
    assert not [each for each in without if "grafana_dashboard" in each["metadata"].get("labels", {})]


def test_the_transformer_gets_what_the_values_say() -> None:
    for settings, wanted in (
        ((), ["--telemetry=feedback", "--feedback=s3://infill/feedback"]),
        (("transformer.telemetry.mode=metrics",), ["--telemetry=metrics"]),
        (("transformer.telemetry.mode=off",), []),
    ):
        (service,) = (
            each for each in helm("infill-serving", "access-values", *settings) if each["kind"] == "InferenceService"
        )
        arguments = service["spec"]["transformer"]["containers"][0]["args"]
        assert [each for each in arguments if each.startswith(("--telemetry", "--feedback"))] == wanted
