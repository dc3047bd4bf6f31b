# shellcheck shell=bash disable=SC2034
# Shared by the scripts of this folder: versions, tools, and `run`, which prints a command and, unless DRY_RUN is set,
# executes it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=deploy/kind/versions.env
source "$here/versions.env"
helm=${HELM:-$root/.venv/bin/helm}
python=$root/.venv/bin/python
namespace=${NAMESPACE:-kubeflow}
export NAMESPACE=$namespace

run() {
    printf '+ %s\n' "$(printf '%q ' "$@")" >&2
    test -n "${DRY_RUN:-}" || "$@"
}

need() {
    local tool
    for tool in "$@"; do
        test -n "${DRY_RUN:-}" || command -v "$tool" >/dev/null || {
            echo "$(basename "$0"): $tool is not installed" >&2
            exit 1
        }
    done
}
