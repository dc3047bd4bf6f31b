#!/usr/bin/env bash
# Runs the images of dist/images.json as the charts do: read-only, as user 1000, without rights; the transformer and the
# predictor against each other on a private network, with the model folder $1. Prints the completion.
set -euo pipefail
cd "$(dirname "$0")/.."
docker=${DOCKER:-docker}
model=${1:?usage: images/check.sh MODEL_FOLDER}
image() { sed -n "s/^  \"$1\": \"\(.*\)\".*/\1/p" dist/images.json; }
hardened=(--read-only --tmpfs "/tmp:rw,exec,size=512m" --tmpfs "/cache:rw,uid=1000,size=512m" --user 1000:1000
    --cap-drop ALL --security-opt no-new-privileges)
network=infill-check-$$
names=()
cleanup() {
    local name
    for name in "${names[@]}"; do
        test -z "${failed:-}" || { echo "--- $name" >&2; "$docker" logs --tail 20 "$name" >&2; }
    done
    test ${#names[@]} -eq 0 || "$docker" rm --force "${names[@]}" >/dev/null
    "$docker" network rm "$network" >/dev/null
}

for name in pipeline train; do
    "$docker" run --rm --network none "${hardened[@]}" "$(image $name)" infill --version
done
"$docker" run --rm --network none "${hardened[@]}" "$(image train)" python -c 'import deepspeed, ray, torch, transformers'
"$docker" run --rm --network none "${hardened[@]}" "$(image pipeline)" python -c 'import kfp, kubernetes, mlflow'
if "$docker" run --rm --network none --entrypoint python "$(image transformer)" -c 'import torch' 2>/dev/null; then
    echo "images/check.sh: the transformer holds torch" >&2
    exit 1
fi

"$docker" network create --internal "$network" >/dev/null
trap cleanup EXIT
trap 'failed=1' ERR
start() { # name, image, arguments
    names+=("$network-$1")
    "$docker" run --detach --name "$network-$1" --network "$network" --network-alias "$1" "${hardened[@]}" \
        --volume "$(realpath "$model"):/model:ro" "$2" "${@:3}" >/dev/null
}
start predictor "$(image predictor)" --model=/model --host=0.0.0.0 --port=8080
start transformer "$(image transformer)" --model=/model --predictor_host=predictor:8080 --enable_grpc=false
ask() { # Python that runs inside the transformer's container
    "$docker" exec "$network-transformer" python -c "$1"
}
for _ in $(seq 120); do
    ask 'import urllib.request as u; u.urlopen("http://localhost:8080/v2/health/ready"); u.urlopen("http://predictor:8080/v2/health/ready")' \
        2>/dev/null && break
    sleep 1
done
ask 'import json, urllib.request as u
body = {"prompt": "def area(width, height):\n    return ", "suffix": "\n", "path": "a.py", "max_tokens": 8}
request = u.Request("http://localhost:8080/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"})
print(u.urlopen(request).read().decode())'
