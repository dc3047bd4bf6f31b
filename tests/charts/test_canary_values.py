"""The candidate of a canary in the chart: the transformer's arguments, and the way to it through the policies."""

import dataclasses
from typing import Any

import pytest

from serving.transformer.__main__ import _parser, read_config
from serving.transformer.transformer_config import TransformerConfig
from tests.charts.bundle import helm

CANDIDATE = (
    "transformer.canary.predictor=http://infill-candidate-predictor.infill",
    "transformer.canary.release=infill-candidate",
    "transformer.canary.weight=5",
    "transformer.canary.shadowRequests=2",
)


def arguments(*settings: str) -> list[str]:
    (service,) = (
        each for each in helm("infill-serving", "access-values", *settings) if each["kind"] == "InferenceService"
    )
    every: list[str] = service["spec"]["transformer"]["containers"][0]["args"]
    return [each for each in every if each.startswith(("--candidate", "--canary", "--shadow"))]


def test_the_transformer_gets_the_candidate_of_the_values() -> None:
    assert arguments() == []
    wanted = [
        "--candidate_predictor=http://infill-candidate-predictor.infill",
        "--canary_weight=5",
        "--shadow_requests=2",
        *("--canary_requests=100", "--canary_window_s=600", "--canary_errors=0.02"),
        *("--canary_latency=1.5", "--canary_acceptance=0.05"),
    ]
    assert arguments(*CANDIDATE) == wanted
    other = "s3://infill/store/dpo/fedcba9876543210"
    assert arguments(*CANDIDATE, f"transformer.canary.model={other}") == [
        wanted[0],
        f"--candidate_model={other}",
        *wanted[1:],
    ]


def test_the_thresholds_are_those_of_the_configuration() -> None:
    given, _ = _parser().parse_known_args(["--model", "m", *arguments(*CANDIDATE)])
    config, default = read_config(vars(given)), TransformerConfig(model="m")
    names = [field.name for field in dataclasses.fields(config) if field.name.startswith("canary_")]
    assert {name: getattr(config, name) for name in names} == {
        **{name: getattr(default, name) for name in names},
        "canary_weight": 5.0,
    }


def policy(component: str, *settings: str) -> Any:
    (spec,) = (
        each["spec"]
        for each in helm("infill-serving", "access-values", *settings)
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"].endswith(f"-{component}")
    )
    return spec


def test_the_policies_let_the_transformer_reach_the_candidate() -> None:
    labels = {"app.kubernetes.io/instance": "infill-candidate", "infill.dev/component": "predictor"}
    peer = {"podSelector": {"matchLabels": labels}}
    assert [peer] in [rule.get("to") for rule in policy("transformer", *CANDIDATE)["egress"]]
    assert [peer] not in [rule.get("to") for rule in policy("transformer")["egress"]]
    setting = "networkPolicy.predictorClients[0].podSelector.matchLabels.app=caller"
    assert {"podSelector": {"matchLabels": {"app": "caller"}}} in policy("predictor", setting)["ingress"][0]["from"]


@pytest.mark.parametrize("setting", ["transformer.canary.weight=101", "transformer.canary.predictor=infill"])
def test_a_canary_without_sense_is_refused(setting: str) -> None:
    with pytest.raises(Exception, match="canary"):
        helm("infill-serving", "access-values", setting)
