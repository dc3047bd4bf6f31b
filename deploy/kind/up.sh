#!/usr/bin/env bash
# Create a kind cluster with cert-manager, KServe in Standard mode, KubeRay, Kubeflow Pipelines, our images and our charts.
# DRY_RUN=1 prints the commands.
# shellcheck source=deploy/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need kind kubectl docker "$helm"
registry=localhost:5001
node=infill-control-plane

test -n "${DRY_RUN:-}" || [[ $(kind version) == *"v$KIND_VERSION "* ]] || {
    echo "up.sh: kind $KIND_VERSION is required, found $(kind version)" >&2
    exit 1
}

# Charts refer to images by their digests, which only a registry assigns.
run docker run --detach --restart always --publish "127.0.0.1:5001:5000" --name infill-registry \
    "registry:$REGISTRY_VERSION"
run env "REGISTRY=$registry" "$root/images/build.sh"

run kind create cluster --config "$here/cluster.yaml" --image "kindest/node:v$KUBERNETES_VERSION" --wait 5m
# The registry with the images, at the address by which the cluster's nodes reach it.
run docker network connect kind infill-registry
run docker exec "$node" mkdir -p "/etc/containerd/certs.d/$registry"
run docker exec "$node" \
    sh -c "echo '[host.\"http://infill-registry:5000\"]' > /etc/containerd/certs.d/$registry/hosts.toml"

run "$helm" upgrade --install cert-manager cert-manager --repo "$CERT_MANAGER_CHARTS" \
    --version "v$CERT_MANAGER_VERSION" --namespace cert-manager --create-namespace --set crds.enabled=true --wait
run "$helm" upgrade --install kserve-crd "$KSERVE_CHARTS/kserve-crd" --version "v$KSERVE_VERSION" \
    --namespace kserve --create-namespace --wait
run "$helm" upgrade --install kserve "$KSERVE_CHARTS/kserve-resources" --version "v$KSERVE_VERSION" \
    --namespace kserve --set kserve.controller.deploymentMode=Standard \
    --set kserve.controller.gateway.disableIngressCreation=true \
    --set kserve.controller.gateway.disableIstioVirtualHost=true --wait
run "$helm" upgrade --install kuberay-operator kuberay-operator --repo "$KUBERAY_CHARTS" \
    --version "$KUBERAY_VERSION" --namespace kuberay-operator --create-namespace --wait
run kubectl apply -k "$KFP_MANIFESTS/cluster-scoped-resources?ref=$KFP_VERSION"
run kubectl wait --for condition=established --timeout=120s crd/applications.app.k8s.io
run kubectl apply -k "$KFP_MANIFESTS/env/platform-agnostic?ref=$KFP_VERSION"
run kubectl wait deployments --all --namespace kubeflow --for condition=Available --timeout=15m

# KFP's own object store serves as ours; its credentials stay in the cluster.
run "$here/object-store-secret.sh"
run "$helm" upgrade --install infill "$root/charts/infill-platform" --namespace "$namespace" \
    --values "$here/platform-values.yaml" --values "$root/dist/platform-images.json" --wait
run "$helm" upgrade --install completions "$root/charts/infill-serving" --namespace "$namespace" \
    --values "$here/serving-values.yaml" --values "$root/dist/serving-images.json" --wait
