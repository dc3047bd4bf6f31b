"""Which ResourceQuotas a job fits into: scopes, counts of objects, quantities in every notation."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.cluster.admission import problems
from infill.cluster.api import Api, quantity
from infill.cluster.quota import demand, shortages
from infill.cluster.stage_job import Group, Placement, StageJob, build
from tests.unit.cluster.conftest import DIGEST
from tests.unit.cluster.test_preflight import provide

Thing = dict[str, Any]


def body(priority: str = "") -> Thing:
    """A RayJob of three pods: 4 + 2 x 8 + 1 cores, 8 + 2 x 16 + 1 GiB, 2 x 1 GPUs."""
    job = StageJob(
        run="r",
        stage="sft",
        config_hash="0",
        entrypoint=("true",),
        placement=Placement(image=f"i@{DIGEST}", priority_class=priority),
        head=Group(cpu=4, memory_gib=8),
        workers=(Group(replicas=2, cpu=8, memory_gib=16, gpus=1),),
    )
    return build(job)


def quota(hard: dict[str, str], used: dict[str, str] | None = None, **spec: Any) -> Thing:
    return {"metadata": {"name": "team"}, "spec": {"hard": hard, **spec}, "status": {"hard": hard, "used": used or {}}}


def selector(name: str, operator: str, *values: str) -> Thing:
    expression = {"scopeName": name, "operator": operator} | ({"values": list(values)} if values else {})
    return {"scopeSelector": {"matchExpressions": [expression]}}


NONE = {"pods": "0"}
SCOPES: list[tuple[Thing, str, bool]] = [
    ({}, "", True),
    ({"scopes": ["NotTerminating"]}, "", True),
    ({"scopes": ["Terminating"]}, "", False),
    ({"scopes": ["BestEffort"]}, "", False),
    ({"scopes": ["NotBestEffort"]}, "", True),
    ({"scopes": ["NotTerminating", "BestEffort"]}, "", False),
    ({"scopes": ["CrossNamespacePodAffinity"]}, "", False),
    ({"scopes": ["PriorityClass"]}, "", False),
    ({"scopes": ["PriorityClass"]}, "high", True),
    (selector("PriorityClass", "In", "high", "low"), "high", True),
    (selector("PriorityClass", "In", "low"), "high", False),
    (selector("PriorityClass", "NotIn", "low"), "high", True),
    (selector("PriorityClass", "NotIn", "high"), "high", False),
    (selector("PriorityClass", "Exists"), "high", True),
    (selector("PriorityClass", "DoesNotExist"), "high", False),
    (selector("PriorityClass", "DoesNotExist"), "", True),
    (selector("Terminating", "Exists"), "", False),
    (selector("NotBestEffort", "Exists"), "", True),
    ({"scopes": ["NotTerminating"], **selector("PriorityClass", "In", "low")}, "high", False),
    ({"scopes": ["SomethingNew"]}, "", False),
]


@pytest.mark.parametrize(("spec", "priority", "counts"), SCOPES)
def test_a_quota_counts_the_pods_in_all_of_its_scopes(spec: Thing, priority: str, counts: bool) -> None:
    assert bool(list(shortages(quota(NONE, **spec), [body(priority)]))) is counts


COUNTS = ["pods", "count/pods", "count/rayjobs.ray.io", "count/rayclusters.ray.io", "count/jobs.batch", "services"]


@pytest.mark.parametrize("name", [*COUNTS, "count/services"])
def test_objects_are_counted(name: str) -> None:
    need = 4 if name.endswith("pods") else 1
    assert list(shortages(quota({name: str(need + 2)}, {name: "2"}), [body()])) == []
    (line,) = shortages(quota({name: str(need + 1)}, {name: "2"}), [body()])
    assert f"has no room for {need} of {name} (used 2 of {need + 1})" in line


@pytest.mark.parametrize(
    "name", ["count/secrets", "count/deployments.apps", "persistentvolumeclaims", "requests.storage"]
)
def test_what_a_job_does_not_take_does_not_matter(name: str) -> None:
    assert list(shortages(quota({name: "0"}), [body()])) == []


AMOUNTS = [
    ("requests.cpu", "21", "20999m"),
    ("cpu", "21", "2.0999e1"),
    ("limits.memory", "41Gi", "40.99Gi"),
    ("requests.memory", "44023414784", "44023414783"),
    ("memory", "1Pi", "1Ki"),
    ("limits.cpu", "1e3", "1e1"),
    ("limits.cpu", "1E", "1u"),
    ("limits.cpu", "21000m", "500m"),
    ("limits.cpu", "1k", "1n"),
    ("requests.nvidia.com/gpu", "2", "1"),
    ("requests.ephemeral-storage", "1Ei", "1Mi"),
]


@pytest.mark.parametrize(("name", "enough", "short"), AMOUNTS)
def test_amounts_are_compared_in_every_notation(name: str, enough: str, short: str) -> None:
    assert list(shortages(quota({name: enough}), [body()])) == []
    assert len(list(shortages(quota({name: short}), [body()]))) == 1


SUFFIXES = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


@given(st.decimals(0, 10**6, places=3), st.sampled_from(sorted(SUFFIXES)))
def test_decimal_quantities_are_exact(number: Decimal, suffix: str) -> None:
    assert quantity(f"{number}{suffix}") == number * Decimal(10) ** SUFFIXES[suffix]


@given(st.integers(0, 10**6), st.sampled_from("KMGTPE"))
def test_binary_quantities_are_exact(number: int, letter: str) -> None:
    assert quantity(f"{number}{letter}i") == number * Decimal(1024) ** ("KMGTPE".index(letter) + 1)


@pytest.mark.parametrize("text", ["", "x", "1KiB", "Gi", "1e", "--1", "NaN", "Infinity", "1Zi"])
def test_what_is_not_a_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity(text)


def test_a_quota_that_no_controller_has_counted_yet_counts_from_its_spec() -> None:
    fresh = {"metadata": {"name": "team"}, "spec": {"hard": {"pods": "3"}}}
    assert len(list(shortages(fresh, [body()]))) == 1


def test_a_job_takes_what_its_pods_take() -> None:
    taken = demand(body())
    assert [int(taken[name]) for name in ("requests.cpu", "requests.nvidia.com/gpu", "pods")] == [21, 2, 4]
    assert taken["limits.memory"] == 41 * 2**30


def test_preflight_reads_quotas_of_the_server(api: Api) -> None:
    provide(api)
    for name, spec in (("terminating", {"scopes": ["Terminating"]}), ("all", {})):
        hard = {"pods": "0"}
        thing = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": name},
            "spec": {"hard": hard, **spec},
        }
        api.create("resourcequotas", thing)
    job = StageJob(
        run="r", stage="sft", config_hash="0", entrypoint=("true",), placement=Placement(image=f"i@{DIGEST}")
    )
    try:
        (line,) = problems(api, [job], deploys=False)
        assert "quota all has no room" in line
    finally:
        for name in ("terminating", "all"):
            api.delete("resourcequotas", name)
        for kind, name in (("secrets", "infill-object-store"), ("serviceaccounts", "infill-stage")):
            api.delete(kind, name)
