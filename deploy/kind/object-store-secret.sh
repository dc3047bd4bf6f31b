#!/usr/bin/env bash
# Copy the credentials of KFP's object store under the names that S3 clients read.
# shellcheck source=deploy/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need kubectl base64
read_key() {
    kubectl get secret mlpipeline-minio-artifact --namespace kubeflow --output "jsonpath={.data.$1}" | base64 --decode
}
kubectl create secret generic infill-object-store --namespace "$namespace" --dry-run=client --output yaml \
    --from-file=AWS_ACCESS_KEY_ID=<(read_key accesskey) --from-file=AWS_SECRET_ACCESS_KEY=<(read_key secretkey) \
    | kubectl apply --filename -
