#!/usr/bin/env bash
# Download the CRDs of KubeRay and KServe, in the versions of versions.env, into a folder that INFILL_CRD_DIR must name for
# the tests. DRY_RUN=1 prints the commands.
# shellcheck source=deploy/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need curl
folder=${1:?usage: crds.sh FOLDER}
run mkdir -p "$folder"
for name in rayjobs rayclusters; do
    run curl --fail --silent --show-error --location --output "$folder/ray.io_$name.yaml" \
        "$KUBERAY_SOURCE/v$KUBERAY_VERSION/helm-chart/kuberay-operator/crds/ray.io_$name.yaml"
done
for name in inferenceservices servingruntimes; do
    run curl --fail --silent --show-error --location --output "$folder/serving.kserve.io_$name.yaml" \
        "$KSERVE_SOURCE/v$KSERVE_VERSION/config/crd/full/serving.kserve.io_$name.yaml"
done
