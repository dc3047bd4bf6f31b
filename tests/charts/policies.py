"""What we ask of every object that we ship, beyond what a schema can say. Each rule yields one sentence per violation.

Sources: Pod Security Standards (restricted), the README's promises, and ../docs/operator-guide.md.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from tests.charts.bundle import Bundle, Pod, Thing, title

Rule = Callable[[Bundle], Iterator[str]]

VOLUMES: Final = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
DIGEST: Final = re.compile(r"@sha256:[0-9a-f]{64}$")
SECRET_NAME: Final = re.compile(r"(PASSWORD|SECRET|TOKEN|API_KEY|ACCESS_KEY|CREDENTIAL)", re.IGNORECASE)
INLINE_SECRET: Final = re.compile(r"(password|token|secret)=\S|://[^/\s:@]+:[^/\s@]+@", re.IGNORECASE)


def containers(pod: Pod) -> list[Thing]:
    return [*pod.spec.get("initContainers", []), *pod.spec.get("containers", [])]


def restricted(bundle: Bundle) -> Iterator[str]:
    """Pod Security Standard `restricted`."""
    for pod in bundle.pods:
        outer = pod.spec.get("securityContext", {})
        for name in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.spec.get(name):
                yield f"{pod.where}: {name}"
        for volume in pod.spec.get("volumes", []):
            if not set(volume) - {"name"} <= VOLUMES:
                yield f"{pod.where}: volume {volume['name']} is of a kind that is not allowed"
        for container in containers(pod):
            own = container.get("securityContext", {})
            wrong = [
                own.get("allowPrivilegeEscalation") is not False,
                own.get("capabilities", {}).get("drop") != ["ALL"] or bool(own["capabilities"].get("add")),
                own.get("privileged", False),
                not own.get("runAsNonRoot", outer.get("runAsNonRoot")),
                own.get("runAsUser", outer.get("runAsUser")) == 0,
                own.get("seccompProfile", outer.get("seccompProfile", {})).get("type") != "RuntimeDefault",
            ]
            if any(wrong):
                yield f"{pod.where}: container {container['name']} is not restricted"


def read_only(bundle: Bundle) -> Iterator[str]:
    """The root file system is read-only; what is written goes to volumes of limited size."""
    for pod in bundle.pods:
        for container in containers(pod):
            if not container.get("securityContext", {}).get("readOnlyRootFilesystem"):
                yield f"{pod.where}: container {container['name']} has a writable root"
        for volume in pod.spec.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{pod.where}: emptyDir {volume['name']} has no limit"


def resources(bundle: Bundle) -> Iterator[str]:
    """Requests and limits everywhere; memory and GPUs are promised in full."""
    for pod in bundle.pods:
        for container in containers(pod):
            given = container.get("resources") or {}
            requests, limits = given.get("requests", {}), given.get("limits", {})
            for name in ("cpu", "memory", "ephemeral-storage"):
                if name not in requests or name not in limits:
                    yield f"{pod.where}: container {container['name']} has no request or limit for {name}"
            for name in {*requests, *limits} - {"cpu", "ephemeral-storage"}:
                if requests.get(name) != limits.get(name):
                    yield f"{pod.where}: container {container['name']} requests other {name} than its limit"


def probes(bundle: Bundle) -> Iterator[str]:
    """What serves has three probes, and models an end in peace; a start may take half a minute, with a model five."""
    for pod in (each for each in bundle.pods if each.serves):
        for container in pod.spec.get("containers", []):
            for name in ("startupProbe", "readinessProbe", "livenessProbe"):
                if name not in container:
                    yield f"{pod.where}: container {container['name']} has no {name}"
            component = pod.labels.get("infill.dev/component")
            if component and "preStop" not in container.get("lifecycle", {}):
                yield f"{pod.where}: container {container['name']} ends while it still gets connections"
            start = container.get("startupProbe", {})
            least = 300 if component == "predictor" else 30
            if start.get("periodSeconds", 10) * start.get("failureThreshold", 3) < least:
                yield f"{pod.where}: container {container['name']} is given too little time to start"


def digests(bundle: Bundle) -> Iterator[str]:
    """Images are named by digest."""
    for pod in bundle.pods:
        for container in containers(pod):
            if not DIGEST.search(str(container.get("image", ""))):
                yield f"{pod.where}: image {container.get('image')!r} has no digest"


def no_secrets(bundle: Bundle) -> Iterator[str]:
    """No secret in plain text: not as a Secret, a ConfigMap's key, a variable or an argument."""
    for thing in bundle.of("Secret"):
        yield f"{title(thing)}: a chart must not hold secrets"
    for thing in bundle.of("ConfigMap"):
        for name, value in thing.get("data", {}).items():
            if SECRET_NAME.search(name) or INLINE_SECRET.search(value):
                yield f"{title(thing)}: {name} looks like a secret"
    for pod in bundle.pods:
        for container in containers(pod):
            yield from (f"{pod.where}: {word!r} holds a secret" for word in _plain_secrets(container))


def _plain_secrets(container: Thing) -> Iterator[str]:
    for variable in container.get("env", []):
        value = str(variable.get("value", ""))
        if value and (SECRET_NAME.search(variable["name"]) or INLINE_SECRET.search(value)):
            yield variable["name"]
    words = [*container.get("command", []), *container.get("args", [])]
    yield from (word for word in words if INLINE_SECRET.search(word))


def token_free(bundle: Bundle) -> Iterator[str]:
    """No pod of ours mounts the API server's token, and none runs under the default account."""
    for pod in bundle.pods:
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{pod.where}: mounts a service account's token"
        if pod.spec.get("serviceAccountName", "default") == "default":
            yield f"{pod.where}: runs under the default service account"


def least_rights(bundle: Bundle) -> Iterator[str]:
    """Roles name what they allow, within the namespace, and no Secret but by name, to get it."""
    for thing in bundle.of("ClusterRole", "ClusterRoleBinding"):
        yield f"{title(thing)}: rights beyond the namespace"
    for thing in bundle.of("Role"):
        for rule in thing["rules"]:
            if "*" in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]:
                yield f"{title(thing)}: a wildcard"
            if "secrets" in rule["resources"] and not (rule.get("resourceNames") and rule["verbs"] == ["get"]):
                yield f"{title(thing)}: reads Secrets"


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects; the empty one selects all."""
    wanted = selector.get("matchLabels", {})
    if any(labels.get(name) != value for name, value in wanted.items()):
        return False
    for each in selector.get("matchExpressions", []):
        present, value = each["key"] in labels, labels.get(each["key"])
        held = {
            "Exists": present,
            "DoesNotExist": not present,
            "In": value in each.get("values", []),
            "NotIn": value not in each.get("values", []),
        }
        if not held[each["operator"]]:
            return False
    return True


def selectors(bundle: Bundle) -> Iterator[str]:
    """Every selector selects a pod (or a Service), unless the object says that others make what it selects."""
    for thing in bundle.things:
        if thing["metadata"].get("annotations", {}).get("infill.dev/pods") == "external":
            continue
        for selector in _selectors(thing):
            labels = (
                [service["metadata"]["labels"] for service in bundle.of("Service")]
                if thing["kind"] == "ServiceMonitor"
                else [pod.labels for pod in bundle.pods]
            )
            if selector and not any(matches(selector, each) for each in labels):
                yield f"{title(thing)}: selector {selector} selects nothing"


def _selectors(thing: Thing) -> Iterator[Mapping[str, Any]]:
    spec = thing.get("spec", {})
    if thing["kind"] == "Service":
        yield {"matchLabels": spec.get("selector", {})}
    elif thing["kind"] == "NetworkPolicy":
        yield spec["podSelector"]
    elif "selector" in spec:
        yield spec["selector"]


def references(bundle: Bundle) -> Iterator[str]:
    """Every referenced account, Secret, ConfigMap, claim, runtime and Service exists or is declared external."""
    for pod in bundle.pods:
        yield from _missing(bundle, pod.where, _references({"serviceAccountName": "default", **pod.spec}))
    for thing in bundle.of("Ingress"):
        yield from _missing(bundle, title(thing), _behind(thing))
    for thing in bundle.of("InferenceService"):
        runtime = thing["spec"]["predictor"].get("model", {}).get("runtime")
        if runtime and runtime not in bundle.names("ServingRuntime"):
            yield f"{title(thing)}: ServingRuntime/{runtime} does not exist"
    for thing in bundle.of("RoleBinding"):
        if thing["roleRef"]["name"] not in bundle.names(thing["roleRef"]["kind"]):
            yield f"{title(thing)}: {thing['roleRef']['kind']}/{thing['roleRef']['name']} does not exist"


def _missing(bundle: Bundle, where: str, wanted: Iterator[tuple[str, str]]) -> Iterator[str]:
    external = bundle.external()
    for kind, name in wanted:
        if name not in bundle.names(kind) and name not in external:
            yield f"{where}: {kind}/{name} does not exist"


def _behind(ingress: Thing) -> Iterator[tuple[str, str]]:
    """Kind and name of the Secrets and Services that an Ingress names."""
    yield from (("Secret", each["secretName"]) for each in ingress["spec"].get("tls", []))
    for rule in ingress["spec"]["rules"]:
        yield from (("Service", path["backend"]["service"]["name"]) for path in rule["http"]["paths"])


NAMED: Final = (
    ("ServiceAccount", "serviceAccountName"),
    ("PriorityClass", "priorityClassName"),
    ("Secret", "secretName"),
    ("PersistentVolumeClaim", "claimName"),
)
"""Fields whose value is the name of an object of that kind."""
REFERRED: Final = {
    "secret": "Secret",
    "secretRef": "Secret",
    "secretKeyRef": "Secret",
    "imagePullSecrets": "Secret",
    "configMap": "ConfigMap",
    "configMapRef": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
}
"""Fields that hold an object with `name`, and the kind that it names."""


def _references(spec: Any, under: str = "") -> Iterator[tuple[str, str]]:
    """Kind and name of everything that a pod's specification refers to."""
    if isinstance(spec, list):
        for item in spec:
            yield from _references(item, under)
    if not isinstance(spec, dict):
        return
    yield from ((kind, spec[name]) for kind, name in NAMED if name in spec)
    if under in REFERRED and "name" in spec:
        yield REFERRED[under], spec["name"]
    for name, value in spec.items():
        yield from _references(value, name)


def ports(bundle: Bundle) -> Iterator[str]:
    """Ports of Services, probes, network policies and monitors are those of their pods."""
    for where, selector, wanted in (*_asked(bundle), *_probed(bundle)):
        for pod in bundle.pods:
            if matches(selector, pod.labels) and wanted not in _ports(pod):
                yield f"{where}: {pod.where} has no port {wanted}"
    named = {port["name"] for service in bundle.of("Service") for port in service["spec"]["ports"]}
    asked = {
        (title(thing), each["port"]) for thing in bundle.of("ServiceMonitor") for each in thing["spec"]["endpoints"]
    }
    for thing in bundle.of("Ingress"):
        for rule in thing["spec"]["rules"]:
            asked |= {(title(thing), path["backend"]["service"]["port"]["name"]) for path in rule["http"]["paths"]}
    for where, port in sorted(asked):
        if port not in named:
            yield f"{where}: no Service has a port {port}"


Asked = tuple[str, Mapping[str, Any], str | int]
"""Who asks, the selector of whom, for which port."""


def _asked(bundle: Bundle) -> Iterator[Asked]:
    for thing in bundle.of("Service"):
        for port in thing["spec"]["ports"]:
            yield title(thing), {"matchLabels": thing["spec"]["selector"]}, port.get("targetPort", port["port"])
    for thing in bundle.of("NetworkPolicy"):
        for rule in thing["spec"].get("ingress", []):
            for port in rule.get("ports", []):
                yield title(thing), thing["spec"]["podSelector"], port["port"]
    for thing in bundle.of("PodMonitor"):
        for endpoint in thing["spec"]["podMetricsEndpoints"]:
            yield title(thing), thing["spec"]["selector"], endpoint["port"]


def _probed(bundle: Bundle) -> Iterator[Asked]:
    for pod in bundle.pods:
        for container in containers(pod):
            for name in ("startupProbe", "readinessProbe", "livenessProbe"):
                if "httpGet" in container.get(name, {}):
                    yield f"{pod.where} {name}", {"matchLabels": pod.labels}, container[name]["httpGet"]["port"]


def _ports(pod: Pod) -> set[str | int]:
    listed = [port for container in containers(pod) for port in container.get("ports", [])]
    return {port["containerPort"] for port in listed} | {port["name"] for port in listed if "name" in port}


def network(bundle: Bundle) -> Iterator[str]:
    """Where network policies are on, every pod has one each way, and nothing comes in from everywhere."""
    policies = bundle.of("NetworkPolicy")
    if not bundle.values.get("networkPolicy", {}).get("enabled", True):
        return
    for pod in bundle.pods:
        own = [each for each in policies if matches(each["spec"]["podSelector"], pod.labels)]
        for direction in ("Ingress", "Egress"):
            if not any(direction in each["spec"]["policyTypes"] for each in own):
                yield f"{pod.where}: no network policy for its {direction.lower()}"
    for policy in policies:
        for rule in policy["spec"].get("ingress", []):
            if not rule.get("from"):
                yield f"{title(policy)}: open to everyone"
    for pod in (each for each in bundle.pods if each.labels.get("infill.dev/component") == "predictor"):
        yield from _only_transformer(bundle, pod)


def _only_transformer(bundle: Bundle, predictor: Pod) -> Iterator[str]:
    """The predictor is reached from the transformer, and from Prometheus where the values ask for it."""
    allowed = 1 + bool(bundle.values["monitoring"]["predictor"])
    for policy in bundle.of("NetworkPolicy"):
        if not matches(policy["spec"]["podSelector"], predictor.labels):
            continue
        peers = [peer for rule in policy["spec"].get("ingress", []) for peer in rule["from"]]
        transformers = [each for each in peers if "podSelector" in each]
        labels = [each["podSelector"].get("matchLabels", {}).get("infill.dev/component") for each in transformers]
        if labels != ["transformer"] or len(peers) > allowed:
            yield f"{title(policy)}: others than the transformer reach the predictor"


def budgets(bundle: Bundle) -> Iterator[str]:
    """Two replicas or more have a disruption budget; one replica has none, which would only block drains."""
    resource = bundle.of("PodDisruptionBudget")
    for pod in (each for each in bundle.pods if each.serves):
        own = [each for each in resource if matches(each["spec"]["selector"], pod.labels)]
        if pod.replicas >= 2 and not own:
            yield f"{pod.where}: {pod.replicas} replicas without a disruption budget"
        if pod.replicas < 2 and own:
            yield f"{pod.where}: one replica with a disruption budget"


def mounts(bundle: Bundle) -> Iterator[str]:
    """Volumes are mounted and mounts have volumes."""
    for thing in bundle.of("StatefulSet"):
        claims = {claim["metadata"]["name"] for claim in thing["spec"].get("volumeClaimTemplates", [])}
        yield from _mounts(next(pod for pod in bundle.pods if pod.where == title(thing)), claims)
    for pod in (each for each in bundle.pods if not each.where.startswith("StatefulSet/")):
        yield from _mounts(pod, set())


def _mounts(pod: Pod, claims: set[str]) -> Iterator[str]:
    volumes = {volume["name"] for volume in pod.spec.get("volumes", [])} | claims
    mounted = {mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])}
    for name in sorted(volumes ^ mounted):
        yield f"{pod.where}: volume {name} is {'not mounted' if name in volumes else 'not defined'}"


def mlflow_hosts(bundle: Bundle) -> Iterator[str]:
    """MLflow answers under the names of its Service; without the list it would answer 403."""
    for pod in (each for each in bundle.pods if each.labels.get("app.kubernetes.io/component") == "mlflow"):
        variables = {each["name"]: each.get("value", "") for each in pod.spec["containers"][0]["env"]}
        allowed = variables.get("MLFLOW_SERVER_ALLOWED_HOSTS", "").split(",")
        for service in bundle.of("Service"):
            if matches({"matchLabels": service["spec"].get("selector", {"": ""})}, pod.labels):
                name = service["metadata"]["name"]
                for host in (f"{name}:5000", f"{name}.ml:5000", f"{name}.ml.svc.cluster.local:5000"):
                    if host not in allowed:
                        yield f"{pod.where}: refuses the host {host}"


def one_model(bundle: Bundle) -> Iterator[str]:
    """What clients reach is the transformer of one InferenceService, never a bare predictor, which would not pack."""
    for thing in bundle.of("InferenceService"):
        if thing["metadata"]["labels"].get("networking.kserve.io/visibility") != "cluster-local":
            yield f"{title(thing)}: KServe gives it and its predictor routes of their own"
    for thing in bundle.of("Service"):
        selector = thing["spec"].get("selector", {})
        entries = [pod for pod in bundle.pods if selector and matches({"matchLabels": selector}, pod.labels)]
        served = {pod.labels.get("serving.kserve.io/inferenceservice") for pod in entries} - {None}
        bare = [pod.where for pod in entries if pod.labels.get("infill.dev/component") == "predictor"]
        if bare:
            yield f"{title(thing)}: reaches {', '.join(bare)}"
        if len(served) > 1:
            yield f"{title(thing)}: reaches {len(served)} InferenceServices"


def apart(bundle: Bundle) -> Iterator[str]:
    """Two InferenceServices of a release share nothing that a change of one would change in the other."""
    for thing in bundle.of("InferenceService"):
        name, spec = thing["metadata"]["name"], thing["spec"]
        notes = thing["metadata"].get("annotations", {})
        if notes.get("serving.kserve.io/deploymentMode") != "Standard":
            yield f"{title(thing)}: not in Standard mode"
        hosts = [each for each in spec["transformer"]["containers"][0]["args"] if each.startswith("--predictor_host=")]
        if [each.startswith(f"--predictor_host={name}-predictor.") for each in hosts] != [True]:
            yield f"{title(thing)}: its transformer asks another predictor"
        model = spec["predictor"].get("model", {"image": "", "storageUri": ""})
        if "image" not in model:
            yield f"{title(thing)}: the predictor's image is the runtime's, which an upgrade changes under it"
        if "storageUri" not in model:
            yield f"{title(thing)}: KServe takes it for the server of its TrainedModels (`IsMMSPredictor`)"
        for metric in spec["predictor"].get("autoScaling", {}).get("metrics", []):
            if f'pod=~"{name}-predictor-' not in metric["external"]["metric"]["query"]:
                yield f"{title(thing)}: is scaled by the load of others"


def names(bundle: Bundle) -> Iterator[str]:
    """Names are unique per kind and every object carries the common labels."""
    seen: set[str] = set()
    for thing in bundle.things:
        if title(thing) in seen:
            yield f"{title(thing)}: twice"
        seen.add(title(thing))
        if "app.kubernetes.io/name" not in thing["metadata"].get("labels", {}):
            yield f"{title(thing)}: no common labels"


RULES: tuple[Rule, ...] = (
    restricted,
    read_only,
    resources,
    probes,
    digests,
    no_secrets,
    token_free,
    least_rights,
    selectors,
    references,
    ports,
    network,
    budgets,
    mounts,
    mlflow_hosts,
    one_model,
    apart,
    names,
)
