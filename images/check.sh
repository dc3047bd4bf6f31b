#!/usr/bin/env bash
# Run the images of dist/images.json as the charts do: read-only, as user 1000, without rights; the transformer with the
# predictor on a private network, with the model folder $1. Print sizes, times and the completion.
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

for name in pipeline train transformer predictor; do
    printf '%-12s %5d MB\n' "$name" $(($("$docker" inspect --format '{{.Size}}' "$(image $name)") / 1000000))
done
most=500
test $(($("$docker" inspect --format '{{.Size}}' "$(image transformer)") / 1000000)) -lt $most || {
    echo "images/check.sh: the transformer must be smaller than $most MB" >&2
    exit 1
}
for name in pipeline train; do
    "$docker" run --rm --network none "${hardened[@]}" "$(image $name)" infill --version
done
holds() { # image, modules
    "$docker" run --rm --network none "${hardened[@]}" --entrypoint python "$(image "$1")" -c "import $2"
}
holds train 'boto3, deepspeed, ray, ray.dashboard.optional_deps, s3fs, torch, transformers'
holds pipeline 'boto3, kfp, kubernetes, mlflow, psycopg2, s3fs, infill.stages.rayjob'
# The work that a step does itself on a cluster must need neither torch nor Ray.
"$docker" run --rm --network none "${hardened[@]}" "$(image pipeline)" python -c '
import importlib
from infill.stages import RAY_STAGES
from infill.stages import STAGES
for name in sorted(STAGES.keys() - set(RAY_STAGES)):
    importlib.import_module(STAGES[name].module)'
holds transformer 'infill.context.kernels, infill.context.scoring, s3fs'
holds predictor 'gguf, s3fs, infill.llama_cpp as engine; assert not engine.obstacle(), engine.obstacle()'
for module in torch numba pyarrow; do
    if holds transformer $module 2>/dev/null; then
        echo "images/check.sh: the transformer must not contain $module" >&2
        exit 1
    fi
done

"$docker" network create --internal "$network" >/dev/null
trap cleanup EXIT
trap 'failed=1' ERR

# MLflow as the chart starts it: its command, its variables and its memory; the volume is in memory.
mapfile -t mlflow < <(.venv/bin/helm template infill charts/infill-platform --show-only templates/mlflow.yaml \
    --values charts/infill-platform/ci/default-values.yaml --values deploy/kind/platform-values.yaml \
    | PYTHONPATH=. .venv/bin/python images/started.py "$(image pipeline)")
names+=("$network-mlflow")
"$docker" run --detach --name "$network-mlflow" --network "$network" "${hardened[@]}" \
    --mount type=tmpfs,destination=/mlflow,tmpfs-mode=1777 "${mlflow[@]}" >/dev/null
scrape='import urllib.request as u; print(u.urlopen(u.Request("http://localhost:5000/metrics", headers={"host": "infill-mlflow"})).status)'
for _ in $(seq 60); do
    "$docker" exec "$network-mlflow" python -c "$scrape" >/dev/null 2>&1 && break
    sleep 1
done
echo "MLflow's metrics: $("$docker" exec "$network-mlflow" python -c "$scrape")"

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
started=$SECONDS
for _ in $(seq 120); do
    ask 'import urllib.request as u; u.urlopen("http://localhost:8080/v2/health/ready"); u.urlopen("http://predictor:8080/v2/health/ready")' \
        2>/dev/null && break
    sleep 1
done
echo "both ready after $((SECONDS - started)) s"
# One of these files defines what the caret needs: the first request builds an index and runs a ranking.
ask 'import json, time, urllib.request as u
files = [{"path": f"other_{n}.py", "text": f"def other_{n}(thing_{n}):\n    return thing_{n} + {n}\n"} for n in range(20)]
files.append({"path": "shapes.py", "text": "def area(width, height):\n    return width * height\n"})
body = {"prompt": "from shapes import area\n\nprint(area(", "suffix": "))\n", "path": "a.py", "max_tokens": 8, "context": files}
for attempt in ("first", "second"):
    request = u.Request("http://localhost:8080/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    started = time.perf_counter()
    answer = json.loads(u.urlopen(request).read())
    print(f"{attempt} completion: {time.perf_counter() - started:.2f} s")
print(json.dumps(answer))
assert any(item["path"] == "shapes.py" for item in answer["infill"]["context"]), "shapes.py is not in the prompt"'
