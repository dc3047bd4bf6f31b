"""The RayJob as a dict: name, sizes, security, and the CRD's own opinion."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill import manifest
from infill.cluster.stage_job import RUN_LABEL, Group, Placement, StageJob, build, job_name, label_value
from infill.config import PRESETS, resolve
from infill.errors import InputError
from infill.stages import RAY_STAGES
from infill.stages.sizing import SHAPES, driver_gpus, gpus, groups, on_ray
from tests.kube import crds
from tests.unit.cluster.conftest import DIGEST

PLACEMENT = Placement(
    image=f"infill/train@{DIGEST}",
    pull_secrets=("registry",),
    secrets=("infill-object-store",),
    config_maps=("infill-settings",),
    env={"GREETING": "costs $(HOME) and 'quotes'"},
    node_selector={"pool": "batch"},
    gpu_node_selector={"gpu": "h200"},
    tolerations=({"key": "batch", "operator": "Exists"},),
    priority_class="infill-training",
)
OWNER = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run", "uid": "1-2"}
JOB = StageJob(
    run="run-7", stage="pretrain", config_hash="ab" * 32, entrypoint=("python", "-m", "infill.run"), placement=PLACEMENT
)


def pods(body: dict[str, Any]) -> list[dict[str, Any]]:
    spec = body["spec"]
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [spec["submitterPodTemplate"], *(group["template"] for group in groups)]


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_names_are_short_labels(run: str, stage: str, digest: str) -> None:
    name = job_name(run, stage, digest)
    assert len(name) <= 47
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert name == job_name(run, stage, digest)
    assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", label_value(run))


def test_names_differ_by_run_stage_and_configuration() -> None:
    long = "x" * 80
    names = {job_name(run, stage, digest) for run in (long, long + "y") for stage in ("sft", "dpo") for digest in "ab"}
    assert len(names) == 8
    assert label_value(long) != label_value(long + "y")


@pytest.mark.parametrize("preset", [*SHAPES, "mellum_4b_gqa"])
@pytest.mark.parametrize("stage", RAY_STAGES)
def test_every_preset_and_stage_passes_the_crd(preset: str, stage: str) -> None:
    config = PRESETS[preset]()
    head, workers = groups(preset, config, stage)
    driver = driver_gpus(preset, config, stage)
    body = build(replace(JOB, stage=stage, head=head, workers=workers, driver_gpus=driver, queue="team", owner=OWNER))
    assert crds.problems(body) == []
    wanted = sum(group.replicas * group.gpus for group in workers)
    assert wanted == gpus(preset, config, stage)
    generates = stage in ("preferences", "evaluate")
    assert body["spec"].get("entrypointNumGpus", 0) == driver == (1 if generates and wanted else 0)


def test_work_goes_to_the_pods_that_are_there() -> None:
    assert on_ray("small", "corpus") == {"corpus.runtime": "ray"}
    assert on_ray("debug", "corpus") == on_ray("small", "pretrain") == {}
    here, there = resolve("small").corpus, resolve("small", on_ray("small", "corpus")).corpus
    assert (here.runtime, there.runtime) == ("local", "ray")
    assert manifest.key("corpus", 1, here, {}) == manifest.key("corpus", 1, there, {}), "the same artifact"


def test_claims_are_mounted_read_only_everywhere() -> None:
    place = replace(JOB.placement, claims={"team.code": "/sources", "models": "/models"})
    body = build(replace(JOB, placement=place, workers=(Group(),)))
    assert crds.problems(body) == []
    for pod in pods(body):
        volumes = {each["name"]: each.get("persistentVolumeClaim") for each in pod["spec"]["volumes"]}
        mounts = {each["mountPath"]: each for each in pod["spec"]["containers"][0]["volumeMounts"]}
        assert volumes[mounts["/sources"]["name"]] == {"claimName": "team.code", "readOnly": True}
        assert mounts["/models"]["readOnly"] is True


def test_a_driver_cannot_have_more_gpus_than_a_worker() -> None:
    with pytest.raises(ValueError, match="the driver asks for 2 GPUs, a worker has 1"):
        replace(JOB, workers=(Group(gpus=1),), driver_gpus=2)


def test_the_crd_refuses_what_it_does_not_know() -> None:
    body = build(JOB)
    body["spec"]["preRunningDeadline"] = 5
    body["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    complaints = crds.problems(body)
    assert "RayJob.spec.preRunningDeadline: unknown field" in complaints
    assert any("num-cpus" in problem and "string" in problem for problem in complaints)


def test_the_job_ends_by_itself_and_is_found_again() -> None:
    body = build(replace(JOB, owner=OWNER, queue="team", workload_priority="high"))
    spec = body["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["preRunningDeadlineSeconds"] > 0
    assert spec["activeDeadlineSeconds"] > 0
    assert body["metadata"]["ownerReferences"] == [OWNER]
    labels = body["metadata"]["labels"]
    assert labels[RUN_LABEL] == "run-7"
    assert labels["kueue.x-k8s.io/queue-name"] == "team"
    assert labels["kueue.x-k8s.io/priority-class"] == "high"
    assert not any("kueue" in name for name in build(JOB)["metadata"]["labels"])


def test_pods_are_restricted_and_share_memory() -> None:
    group = Group(cpu=8, memory_gib=64, gpus=2, replicas=3)
    for pod in pods(build(replace(JOB, workers=(group,)))):
        spec = pod["spec"]
        (container,) = spec["containers"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["automountServiceAccountToken"] is False
        assert spec["priorityClassName"] == "infill-training"
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"] == container["resources"]["limits"]
        volumes = {volume["name"]: volume["emptyDir"] for volume in spec["volumes"]}
        assert volumes["shm"]["medium"] == "Memory"
        assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]


def test_gpu_groups_get_gpus_selectors_and_tolerations() -> None:
    body = build(replace(JOB, workers=(Group(cpu=8, memory_gib=64, gpus=2, replicas=3),)))
    head, (worker,) = (
        body["spec"]["rayClusterSpec"]["headGroupSpec"],
        body["spec"]["rayClusterSpec"]["workerGroupSpecs"],
    )
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert worker["replicas"] == worker["minReplicas"] == worker["maxReplicas"] == 3
    spec = worker["template"]["spec"]
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert spec["nodeSelector"] == {"pool": "batch", "gpu": "h200"}
    assert [toleration["key"] for toleration in spec["tolerations"]] == ["batch", "nvidia.com/gpu"]
    assert "nvidia.com/gpu" not in head["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_values_with_dollars_and_quotes_arrive_as_they_are() -> None:
    env = {item["name"]: item["value"] for item in pods(build(JOB))[0]["spec"]["containers"][0]["env"]}
    assert env["GREETING"] == "costs $$(HOME) and 'quotes'"


@pytest.mark.parametrize("word", ["a b", "$HOME", "it's", '{"a": 1}', "`id`", "é", ""])
def test_an_entrypoint_that_a_shell_would_change_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="entrypoint"):
        replace(JOB, entrypoint=("python", word))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entrypoint": ()}, "entrypoint must not be empty"),
        ({"head": Group(memory_gib=2)}, "at least 4 GiB"),
        ({"active_deadline": 0}, "deadlines"),
        ({"retries": -1}, "negative"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(JOB, **change)
    with pytest.raises(ValueError, match="positive"):
        Group(cpu=0)
    with pytest.raises(ValueError, match="gpus"):
        Group(gpus=-1)


def test_sizes_refuse_what_they_do_not_know() -> None:
    config = PRESETS["debug"]()
    with pytest.raises(InputError, match="no sizes of pods"):
        groups("other", config, "sft")
    with pytest.raises(InputError, match="does not run as a RayJob"):
        groups("debug", config, "report")
    uneven = replace(config, sft=replace(config.sft, train=replace(config.sft.train, workers=9, batch_tokens=9_216)))
    with pytest.raises(InputError, match="multiple"):
        groups("mellum_4b", uneven, "sft")


def test_half_a_node_is_half_of_everything() -> None:
    config = PRESETS["debug"]()
    four = replace(config, sft=replace(config.sft, train=replace(config.sft.train, workers=4, batch_tokens=4_096)))
    _, (group,) = groups("mellum_4b", four, "sft")
    assert (group.replicas, group.gpus, group.cpu, group.memory_gib) == (1, 4, 48, 512)
