#!/usr/bin/env bash
# Submits the `debug` pipeline to the cluster that KUBECONFIG names, waits, and asserts what it must have left behind.
# DRY_RUN=1 prints the commands.
# shellcheck source=deploy/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need kubectl
pids=()
cleanup() { test ${#pids[@]} -eq 0 || kill "${pids[@]}"; }
trap cleanup EXIT
forward() { # service, local port, remote port
    test -n "${DRY_RUN:-}" && { echo "+ kubectl port-forward --namespace $namespace service/$1 $2:$3" >&2; return; }
    kubectl port-forward --namespace "$namespace" "service/$1" "$2:$3" >/dev/null &
    pids+=($!)
    for _ in $(seq 50); do
        (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null && return
        sleep 0.2
    done
    echo "test.sh: service $1 cannot be reached" >&2
    exit 1
}
forward ml-pipeline 18888 8888
forward infill-mlflow 15000 5000
run "$python" -m deploy.kind.check submit --host http://localhost:18888 --store s3://mlpipeline/infill
run "$python" -m deploy.kind.check assert --mlflow http://localhost:15000 --namespace "$namespace"
