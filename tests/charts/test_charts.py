"""Both charts with every ci/ values file: valid for a strict API server, and to our own rules."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from infill.cluster import admission, quota
from infill.cluster.job_settings import read
from infill.cluster.stage_job import Group, build
from infill.release.frame import fill
from tests.charts import policies, schemas
from tests.charts.bundle import (
    CASES,
    CHARTS,
    HELM,
    MODEL,
    RELEASE,
    ROOT,
    Bundle,
    Thing,
    frame_of,
    helm,
    merge,
    render,
    title,
)
from tests.charts.policies import Rule
from tests.unit.cluster.test_job import JOB, OWNER

IDS = [f"{chart}-{values}" for chart, values in CASES]


@pytest.mark.parametrize(("chart", "values"), CASES, ids=IDS)
def test_every_object_passes_its_schema(chart: str, values: str) -> None:
    complaints = {title(thing): schemas.problems(thing) for thing in render(chart, values).things}
    assert {name: problems for name, problems in complaints.items() if problems} == {}


@pytest.mark.parametrize("rule", policies.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize(("chart", "values"), CASES, ids=IDS)
def test_every_rule_holds(chart: str, values: str, rule: Rule) -> None:
    assert list(rule(render(chart, values))) == []


def test_keda_must_find_the_pods_by_their_names() -> None:
    """Kubernetes cuts the names of pods after 58 characters and adds five of its own."""
    command = [str(HELM), "template", "x" * 37, str(CHARTS / "infill-serving"), "-f"]
    command.append(str(CHARTS / "infill-serving/ci/vllm-values.yaml"))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "at most 36 characters" in done.stderr


@pytest.mark.parametrize("chart", sorted({chart for chart, _ in CASES}))
def test_helm_lints(chart: str) -> None:
    values = sorted((CHARTS / chart / "ci").glob("*.yaml"))[0]
    done = subprocess.run(
        [HELM, "lint", "--strict", CHARTS / chart, "-f", values], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_readmes_are_current() -> None:
    done = subprocess.run(
        [sys.executable, CHARTS / "readme.py", "--check"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr


def test_rayjobs_obey_the_same_rules() -> None:
    head = JOB.head
    job = build(replace(JOB, workers=(replace(head, gpus=1),), owner=OWNER))
    platform = render("infill-platform", "queue-values")
    values = merge(platform.values, {"x": {"secretName": "infill-object-store", "priorityClass": "infill-training"}})
    external = merge(values, {"imagePullSecrets": ["registry"], "y": {"secretName": "infill-settings"}})
    bundle = Bundle(things=[*platform.things, job], values=external)
    for rule in policies.RULES:
        if rule is not policies.ports:  # KubeRay's pods open what Ray chooses
            assert [problem for problem in rule(bundle) if "RayJob" in problem] == [], rule.__name__


# -- Values: unknown ones and nonsense are refused ---------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["vllm", "auto"])
def test_vllm_needs_its_image(engine: str) -> None:
    assert "images.vllm" in refused("infill-serving", f"predictor.engine={engine}")


def test_kserve_takes_no_target_above_a_hundred_per_cent() -> None:
    assert "at most 100" in refused("infill-serving", "autoscaling.kind=hpa", "autoscaling.target=101")


def test_the_engine_of_a_model_that_helm_deploys_must_be_said() -> None:
    image = f"images.vllm=vllm@sha256:{'1' * 64}"
    assert "to embedded or vllm" in refused("infill-serving", "predictor.engine=auto", "model.uri=s3://a/b", image)


def refused(chart: str, *settings: str) -> str:
    """Helm's words about values that do not fit."""
    base = sorted((CHARTS / chart / "ci").glob("default-*.yaml"))[0]
    command = [
        str(HELM),
        "template",
        "x",
        str(CHARTS / chart),
        "-f",
        str(base),
        *(f"--set={each}" for each in settings),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0, f"{settings} was accepted"
    return str(done.stderr)


@pytest.mark.parametrize(
    ("chart", "setting"),
    [
        ("infill-platform", "mlflow.replica=2"),
        ("infill-platform", "images.pipeline=infill-pipeline:latest"),
        ("infill-platform", "images.pipeline="),
        ("infill-platform", "mlflow.database=mysql"),
        ("infill-platform", "mlflow.replicas=2"),
        ("infill-platform", "jobs.onStop=stop"),
        ("infill-platform", "kueue.enabled=true"),
        ("infill-platform", "objectStore.store="),
        ("infill-serving", "predictor.engine=triton"),
        ("infill-serving", "model.uri=folder"),
        ("infill-serving", "deploy.readySeconds=0"),
        ("infill-serving", "route.host=UPPER"),
        ("infill-serving", "predictor.embedded.arg=--x"),
        ("infill-serving", "autoscaling.kind=keda"),
        ("infill-serving", "transformer.minReplicas=0"),
        ("infill-serving", "images.transformer=infill-transformer:0.1.0"),
    ],
)
def test_values_that_make_no_sense_are_refused(chart: str, setting: str) -> None:
    path = setting.split("=", maxsplit=1)[0].split(".")
    assert path[0] in refused(chart, setting)


@pytest.mark.parametrize("chart", sorted({chart for chart, _ in CASES}))
def test_schema_and_values_name_the_same_things(chart: str) -> None:
    values = yaml.safe_load((CHARTS / chart / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text(encoding="utf-8"))

    def compare(rule: Thing, value: Any, path: str) -> None:
        assert rule.get("additionalProperties") is False, f"{path} takes unknown values"
        assert set(rule["properties"]) - {"global"} == set(value), path
        for name, inner in value.items():
            if "properties" in rule["properties"][name] and name not in ("resources",):
                compare(rule["properties"][name], inner, f"{path}.{name}")

    compare(schema, values, chart)


# -- What the chart renders and what `infill deploy` makes of it ------------------------------------------------------


def test_deploy_fills_in_what_helm_would_have_rendered() -> None:
    """The chart's one template, used both ways, gives the same InferenceService."""
    uris = [f"model.uri={MODEL['model_uri']}", f"model.digest={MODEL['model_digest']}"]
    rendered = helm("infill-serving", "default-values", *uris, f"model.deployment={MODEL['deployment']}")
    (helms,) = (each for each in rendered if each["kind"] == "InferenceService")
    (frame,) = filter(None, map(frame_of, helm("infill-serving", "default-values")))
    ours = fill(frame.engines["embedded"], {**MODEL, "name": RELEASE})
    assert ours["metadata"]["labels"].pop("app.kubernetes.io/managed-by") == "infill"
    assert helms["metadata"]["labels"].pop("app.kubernetes.io/managed-by") == "Helm"
    assert ours == helms
    assert "${" not in json.dumps(ours)


def test_the_servers_call_services_by_the_port_that_kserve_gives_them() -> None:
    """KServe's Services have port 80 before the containers' 8080 unless its configuration makes them headless."""
    (frame,) = filter(None, map(frame_of, helm("infill-serving", "default-values")))
    arguments = frame.engines["embedded"]["spec"]["transformer"]["containers"][0]["args"]
    urls = [frame.url, *(each.partition("=")[2] for each in [*arguments, *frame.canary] if "_predictor=http" in each)]
    urls += [f"http://{each.partition('=')[2]}" for each in arguments if each.startswith("--predictor_host=")]
    assert len(urls) == 3
    assert {urlsplit(url).port for url in urls} == {80}


def test_keda_gets_a_trigger_for_each_component() -> None:
    (frame,) = filter(None, map(frame_of, helm("infill-serving", "auto-values")))
    spec = frame.engines["vllm"]["spec"]
    kinds = {name: [each["type"] for each in spec[name]["autoScaling"]["metrics"]] for name in spec}
    assert kinds == {"predictor": ["External"], "transformer": ["Resource"]}


def test_mlflow_lets_prometheus_in() -> None:
    bundle = render("infill-platform", "monitoring-values")
    [container] = mlflow(bundle)["containers"]
    [endpoint] = thing(bundle, "ServiceMonitor", "mlflow")["spec"]["endpoints"]
    hosts = next(each["value"] for each in container["env"] if each["name"] == "MLFLOW_SERVER_ALLOWED_HOSTS")
    assert "$(POD_IP):5000" in hosts.split(",")
    assert "--app-name=basic-auth" in container["args"]
    assert {each["name"] for each in endpoint["basicAuth"].values()} == {"infill-mlflow-client"}


def test_each_workspace_can_be_sent_to_one_replica() -> None:
    (ingress,) = (each for each in helm("infill-serving", "auto-values") if each["kind"] == "Ingress")
    (header,) = ingress["metadata"]["annotations"].values()
    assert header.startswith("$http_x_infill_workspace")


def test_an_upgrade_does_not_move_the_route() -> None:
    (service,) = (each for each in helm("infill-serving", "default-values") if each["kind"] == "Service")
    assert "selector" not in service["spec"]


def test_the_roles_give_the_rights_that_the_code_asks_for_and_no_more() -> None:
    roles = render("infill-platform", "default-values").of("Role")
    given = {
        (resource, verb)
        for role in roles
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    needed = {*admission.RIGHTS, *admission.DEPLOY_RIGHTS}
    assert needed <= given <= needed | {*admission.LOOKED_UP}


@pytest.mark.parametrize("values", ["default-values", "external-values"])
def test_preflight_may_look_at_what_the_jobs_name_and_at_no_other_secret(values: str) -> None:
    bundle = render("infill-platform", values)
    rules = [rule for role in bundle.of("Role") for rule in role["rules"]]
    allowed = {
        (resource, name)
        for rule in rules
        for resource in rule["resources"]
        for name in rule.get("resourceNames", ["*"])
        if "get" in rule["verbs"]
    }
    (settings,) = (each for each in bundle.of("ConfigMap") if each["metadata"]["name"] == "infill-cluster")
    job = read(settings["data"]).job(  # type: ignore[union-attr]
        run="r", stage="sft", config_hash="0", entrypoint=("true",), env={}, groups=(Group(), ())
    )
    named = {each for _, pod in quota.pods(build(job)) for each in admission.references(pod["spec"])}
    assert {each for each in named if each not in allowed and (each[0], "*") not in allowed} == set()
    assert ("secrets", "*") not in allowed


# -- Each rule refuses a manifest that is broken in its way ------------------------------------------------------------

PLATFORM, SERVING = ("infill-platform", "postgresql-values"), ("infill-serving", "vllm-values")
AUTO = ("infill-serving", "auto-values")


def thing(bundle: Bundle, kind: str, part: str = "") -> Thing:
    return next(each for each in bundle.of(kind) if part in each["metadata"]["name"])


def mlflow(bundle: Bundle) -> Any:
    """The pod specification of MLflow."""
    return thing(bundle, "Deployment")["spec"]["template"]["spec"]


def transformer(bundle: Bundle) -> Any:
    return thing(bundle, "InferenceService")["spec"]["transformer"]


def by_runtime(bundle: Bundle) -> Any:
    """The `model` of an InferenceService whose predictor a ServingRuntime completes."""
    predictors = [each["spec"]["predictor"] for each in bundle.of("InferenceService")]
    return next(each["model"] for each in predictors if "model" in each)


def runtime(bundle: Bundle) -> Any:
    """The predictor's container."""
    return thing(bundle, "ServingRuntime")["spec"]["containers"][0]


def add(bundle: Bundle, kind: str, name: str, **content: Any) -> None:
    bundle.things.append({"kind": kind, "metadata": {"name": name, "labels": {}}, **content})


def remove(bundle: Bundle, kind: str, *parts: str) -> None:
    for part in parts:
        bundle.things.remove(thing(bundle, kind, part))


Break = Callable[[Bundle], Any]
BROKEN: list[tuple[Rule, tuple[str, str], str, Break]] = [
    (policies.restricted, PLATFORM, "host-network", lambda b: mlflow(b).update(hostNetwork=True)),
    (policies.restricted, PLATFORM, "root", lambda b: mlflow(b)["securityContext"].update(runAsUser=0)),
    (policies.restricted, PLATFORM, "no-seccomp", lambda b: mlflow(b)["containers"][0].pop("securityContext")),
    (
        policies.restricted,
        PLATFORM,
        "host-path",
        lambda b: mlflow(b)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    ),
    (
        policies.restricted,
        SERVING,
        "capability",
        lambda b: runtime(b)["securityContext"].update(capabilities={"drop": ["ALL"], "add": ["NET_RAW"]}),
    ),
    (
        policies.read_only,
        SERVING,
        "writable",
        lambda b: runtime(b)["securityContext"].update(readOnlyRootFilesystem=False),
    ),
    (policies.read_only, PLATFORM, "no-limit", lambda b: mlflow(b)["volumes"][0]["emptyDir"].clear()),
    (policies.resources, PLATFORM, "no-limits", lambda b: mlflow(b)["containers"][0]["resources"].pop("limits")),
    (
        policies.resources,
        SERVING,
        "more-memory-than-promised",
        lambda b: transformer(b)["containers"][0]["resources"]["limits"].update(memory="64Gi"),
    ),
    (policies.probes, SERVING, "no-end", lambda b: transformer(b)["containers"][0].pop("lifecycle")),
    (policies.probes, SERVING, "no-startup", lambda b: runtime(b).pop("startupProbe")),
    (policies.probes, SERVING, "too-short", lambda b: runtime(b)["startupProbe"].update(failureThreshold=2)),
    (
        policies.probes,
        SERVING,
        "too-short-for-a-model",
        lambda b: runtime(b)["startupProbe"].update(failureThreshold=12),
    ),
    (policies.probes, PLATFORM, "no-liveness", lambda b: mlflow(b)["containers"][0].pop("livenessProbe")),
    (policies.digests, PLATFORM, "tag", lambda b: mlflow(b)["containers"][0].update(image="infill-pipeline:0.1.0")),
    (policies.no_secrets, PLATFORM, "secret", lambda b: add(b, "Secret", "s", stringData={"a": "b"})),
    (
        policies.no_secrets,
        PLATFORM,
        "variable",
        lambda b: mlflow(b)["containers"][0]["env"].append({"name": "PGPASSWORD", "value": "hunter2"}),
    ),
    (
        policies.no_secrets,
        PLATFORM,
        "argument",
        lambda b: mlflow(b)["containers"][0]["args"].append("--backend-store-uri=postgresql://u:hunter2@db/mlflow"),
    ),
    (
        policies.no_secrets,
        PLATFORM,
        "config-map",
        lambda b: thing(b, "ConfigMap")["data"].update(AWS_SECRET_ACCESS_KEY="x"),
    ),
    (policies.token_free, PLATFORM, "token", lambda b: mlflow(b).pop("automountServiceAccountToken")),
    (policies.token_free, SERVING, "default-account", lambda b: transformer(b).pop("serviceAccountName")),
    (policies.least_rights, PLATFORM, "wildcard", lambda b: thing(b, "Role")["rules"][0].update(verbs=["*"])),
    (
        policies.least_rights,
        PLATFORM,
        "secrets",
        lambda b: thing(b, "Role")["rules"][0].update(resources=["secrets"]),
    ),
    (policies.least_rights, PLATFORM, "cluster-wide", lambda b: add(b, "ClusterRole", "r", rules=[])),
    (
        policies.selectors,
        PLATFORM,
        "service",
        lambda b: thing(b, "Service", "mlflow")["spec"].update(selector={"a": "b"}),
    ),
    (
        policies.selectors,
        PLATFORM,
        "network-policy",
        lambda b: thing(b, "NetworkPolicy", "mlflow")["spec"].update(podSelector={"matchLabels": {"a": "b"}}),
    ),
    (
        policies.selectors,
        SERVING,
        "budget",
        lambda b: thing(b, "PodDisruptionBudget")["spec"]["selector"].update(matchLabels={"a": "b"}),
    ),
    (
        policies.selectors,
        SERVING,
        "monitor",
        lambda b: thing(b, "PodMonitor")["spec"]["selector"].update(matchLabels={"a": "b"}),
    ),
    (policies.references, PLATFORM, "account", lambda b: mlflow(b).update(serviceAccountName="missing")),
    (
        policies.references,
        PLATFORM,
        "secret",
        lambda b: mlflow(b)["containers"][0]["envFrom"].append({"secretRef": {"name": "missing"}}),
    ),
    (
        policies.references,
        PLATFORM,
        "config-map",
        lambda b: mlflow(b)["containers"][0]["envFrom"].append({"configMapRef": {"name": "missing"}}),
    ),
    (
        policies.references,
        PLATFORM,
        "claim",
        lambda b: mlflow(b)["volumes"].append({"name": "x", "persistentVolumeClaim": {"claimName": "missing"}}),
    ),
    (
        policies.references,
        SERVING,
        "runtime",
        lambda b: thing(b, "InferenceService")["spec"]["predictor"]["model"].update(runtime="missing"),
    ),
    (policies.references, SERVING, "priority", lambda b: transformer(b).update(priorityClassName="missing")),
    (policies.references, PLATFORM, "role", lambda b: thing(b, "RoleBinding")["roleRef"].update(name="missing")),
    (
        policies.ports,
        PLATFORM,
        "service",
        lambda b: thing(b, "Service", "mlflow")["spec"]["ports"][0].update(targetPort="web"),
    ),
    (
        policies.ports,
        PLATFORM,
        "network-policy",
        lambda b: thing(b, "NetworkPolicy", "mlflow")["spec"]["ingress"][0]["ports"][0].update(port=5001),
    ),
    (policies.ports, SERVING, "probe", lambda b: runtime(b)["readinessProbe"]["httpGet"].update(port=9000)),
    (
        policies.ports,
        SERVING,
        "monitor",
        lambda b: thing(b, "PodMonitor")["spec"]["podMetricsEndpoints"][0].update(port="web"),
    ),
    (policies.network, PLATFORM, "no-policy", lambda b: remove(b, "NetworkPolicy", "default-deny", "mlflow")),
    (
        policies.network,
        PLATFORM,
        "open",
        lambda b: thing(b, "NetworkPolicy", "mlflow")["spec"]["ingress"][0].pop("from"),
    ),
    (
        policies.network,
        SERVING,
        "predictor-open-to-the-namespace",
        lambda b: thing(b, "NetworkPolicy", "predictor")["spec"]["ingress"][0]["from"].append({"podSelector": {}}),
    ),
    (
        policies.network,
        SERVING,
        "predictor-may-call-out",
        lambda b: thing(b, "NetworkPolicy", "predictor")["spec"]["policyTypes"].remove("Egress"),
    ),
    (policies.budgets, SERVING, "missing", lambda b: remove(b, "PodDisruptionBudget", "")),
    (policies.budgets, PLATFORM, "useless", lambda b: thing(b, "Deployment")["spec"].update(replicas=1)),
    (policies.mounts, PLATFORM, "no-volume", lambda b: mlflow(b)["volumes"].pop()),
    (
        policies.mounts,
        SERVING,
        "not-mounted",
        lambda b: transformer(b)["volumes"].append({"name": "x", "emptyDir": {"sizeLimit": "1Gi"}}),
    ),
    (
        policies.references,
        AUTO,
        "ingress",
        lambda b: thing(b, "Ingress")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"].update(name="x"),
    ),
    (policies.references, AUTO, "certificate", lambda b: thing(b, "Ingress")["spec"]["tls"][0].update(secretName="x")),
    (
        policies.ports,
        AUTO,
        "ingress",
        lambda b: thing(b, "Ingress")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"].update(
            port={"name": "x"}
        ),
    ),
    (
        policies.one_model,
        AUTO,
        "bare-predictor",
        lambda b: thing(b, "Service")["spec"]["selector"].pop("infill.dev/component"),
    ),
    (
        policies.one_model,
        AUTO,
        "both",
        lambda b: thing(b, "Service")["spec"]["selector"].pop("serving.kserve.io/inferenceservice"),
    ),
    (
        policies.one_model,
        AUTO,
        "routes-of-kserve",
        lambda b: thing(b, "InferenceService")["metadata"]["labels"].pop("networking.kserve.io/visibility"),
    ),
    (
        policies.apart,
        AUTO,
        "another-predictor",
        lambda b: thing(b, "InferenceService", "1")["metadata"].update(name="infill-9"),
    ),
    (
        policies.apart,
        AUTO,
        "image-of-the-runtime",
        lambda b: by_runtime(b).pop("image"),
    ),
    (
        policies.apart,
        AUTO,
        "server-of-trained-models",
        lambda b: by_runtime(b).pop("storageUri"),
    ),
    (
        policies.apart,
        AUTO,
        "scaled-by-all",
        lambda b: thing(b, "InferenceService")["spec"]["predictor"]["autoScaling"]["metrics"][0]["external"][
            "metric"
        ].update(query="sum(infill_predictor_queue_length)"),
    ),
    (
        policies.apart,
        AUTO,
        "knative",
        lambda b: thing(b, "InferenceService")["metadata"]["annotations"].pop("serving.kserve.io/deploymentMode"),
    ),
    (policies.mlflow_hosts, PLATFORM, "no-list", lambda b: mlflow(b)["containers"][0]["env"].pop(1)),
    (policies.names, PLATFORM, "twice", lambda b: b.things.append(copy.deepcopy(b.things[0]))),
    (policies.names, PLATFORM, "no-labels", lambda b: b.things[0]["metadata"].pop("labels")),
]


@pytest.mark.parametrize(
    ("rule", "case", "name", "damage"), BROKEN, ids=[f"{rule.__name__}-{name}" for rule, _, name, _ in BROKEN]
)
def test_a_broken_manifest_fails_its_rule(rule: Rule, case: tuple[str, str], name: str, damage: Break) -> None:
    bundle = render(*case)
    assert list(rule(bundle)) == []
    damage(bundle)
    assert list(rule(bundle)) != []


def test_every_rule_has_a_broken_manifest() -> None:
    assert {rule for rule, *_ in BROKEN} == set(policies.RULES)


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("Deployment", lambda each: each["spec"].update(replica=1)),
        ("Deployment", lambda each: each["spec"].pop("selector")),
        ("NetworkPolicy", lambda each: each["spec"]["podSelector"].update(matchLabel={})),
        ("InferenceService", lambda each: each["spec"]["predictor"].update(minReplica=1)),
        ("InferenceService", lambda each: each["spec"]["transformer"].update(minReplicas="one")),
        ("ServingRuntime", lambda each: each["spec"].pop("containers")),
        ("PodMonitor", lambda each: each["spec"].update(endpoints=[])),
        ("PrometheusRule", lambda each: each["spec"]["groups"][0]["rules"][0].pop("expr")),
    ],
)
def test_schemas_refuse_what_they_do_not_know(kind: str, damage: Callable[[Thing], Any]) -> None:
    bundle = render(*(PLATFORM if kind == "Deployment" else SERVING))
    resource = thing(bundle, kind)
    assert schemas.problems(resource) == []
    damage(resource)
    assert schemas.problems(resource) != []
