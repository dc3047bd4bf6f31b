#!/usr/bin/env bash
# Run the `debug` pipeline twice on the cluster that KUBECONFIG names, and check the results: RayJobs, MLflow runs, a
# registered model, a completion through the InferenceService, a second deployment, a rollback.
#
#   KIND=1       use the kind cluster of up.sh instead of KUBECONFIG
#   NAMESPACE    of charts/infill-platform and charts/infill-serving (release `completions`)
#   STORE        prefix of the artifacts
#   KFP_HOST     the KFP API, its token in KFP_TOKEN; by default the Service ml-pipeline of NAMESPACE
#   DRY_RUN=1    prints the commands
# shellcheck source=deploy/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need kubectl
store=${STORE:-s3://mlpipeline/infill}
scratch=$(mktemp -d)
pids=()
cleanup() {
    test ${#pids[@]} -eq 0 || kill "${pids[@]}" 2>/dev/null || true
    rm -rf "$scratch"
}
trap cleanup EXIT
if [ -n "${KIND:-}" ]; then
    need kind
    run kind export kubeconfig --name infill --kubeconfig "$scratch/kubeconfig"
    export KUBECONFIG=$scratch/kubeconfig
fi

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
submit() { # further settings -> the run's id
    run "$root/.venv/bin/infill" pipeline submit --store "$store" --preset debug --images "$root/dist/images.json" \
        --set corpus.max_total_bytes=2000000 --set register.max_regression=1.0 "$@" \
        | tee "$scratch/run.json" >&2 || return
    sed -n 's/.*"run": "\([^"]*\)".*/\1/p' "$scratch/run.json"
}
check() { run "$python" -m deploy.kind.check "$@" --namespace "$namespace" --mlflow "$MLFLOW_TRACKING_URI"; }

test -n "${KFP_HOST:-}" || { forward ml-pipeline 18888 8888; export KFP_HOST=http://localhost:18888; }
forward infill-mlflow 15000 5000
export MLFLOW_TRACKING_URI=http://localhost:15000
first=$(submit)
forward completions-active 18080 80
check assert --run "$first" --url http://localhost:18080

# Another base model for the second deployment. Corpus and tokenizer come from KFP's cache.
second=$(submit --set pretrain.train.seed=1)
forward completions-active 18081 80
check assert --run "$second" --stages pretrain sft dpo preferences evaluate --url http://localhost:18081
check rollback
forward completions-active 18082 80
check assert --url http://localhost:18082
echo "test.sh: everything holds" >&2
