#!/usr/bin/env bash
# Fill dist/wheels/$TORCH with every wheel that the images install, at the versions of requirements/$TORCH.txt.
# This needs an index; the builds of the images need none. Copy the folder to an air-gapped site.
set -euo pipefail
cd "$(dirname "$0")/.."
torch=${TORCH:-cpu}
target=dist/wheels/$torch
lock=requirements/$torch.txt
tools=dist/.wheels
test -x .venv/bin/python || { echo "images/wheels.sh: run make setup first" >&2; exit 1; }
command -v "${CC:-cc}" >/dev/null || { echo "images/wheels.sh: install a C compiler (apt-get install gcc)" >&2; exit 1; }
python=$PWD/.venv/bin/python
mkdir -p "$target"
test -x "$tools/bin/pip" || "${PYTHON:-python3.11}" -m venv "$tools"
wheel() { "$tools/bin/pip" --python "$python" wheel --quiet --no-deps --no-build-isolation --wheel-dir "$new" "$@"; }
new=$(mktemp -d "$target.XXXXXX")
source=$(mktemp -d)
trap 'rm -rf "$new" "$source"' EXIT

export DS_BUILD_OPS=0
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
# DeepSpeed is distributed as source and built against the environment's torch, like our own wheel.
deepspeed=$(grep '^deepspeed==' "$lock")
cp "$target/${deepspeed/==/-}"-*.whl "$new" 2>/dev/null || wheel "$deepspeed"
# Our wheel is built from the commit in the images' label, not from the working tree. It contains the context engine's
# inner loops, compiled for this platform, so that no image needs numba.
git archive HEAD | tar -x -C "$source"
(cd "$source" && NUMBA_CACHE_DIR="$source/.numba" "$python" -m tools.kernels)
platform=$("$python" -c 'import sysconfig; print(sysconfig.get_platform().replace("-", "_"))')
wheel --config-settings="--build-option=--plat-name=$platform" "$source"
# Reuse wheels that were downloaded before, without an index if they are complete; remove those no longer in the lock.
fetch() {
    "$tools/bin/pip" wheel --quiet --prefer-binary --find-links "$new" --find-links "$target" --wheel-dir "$new" \
        --constraint "$lock" "$@" 'infill[pipeline,predictor,server,stages,store,tracking,train,transformer]'
}
fetch --no-index 2>/dev/null || fetch
# A folder of CPU wheels in pip's settings also satisfies the CUDA lock's torch.
if [ "$torch" != cpu ] && compgen -G "$new/torch-*+cpu*" >/dev/null; then
    echo "images/wheels.sh: pip found PyTorch's CPU build for TORCH=$torch: remove it from pip's find-links" >&2
    exit 1
fi
(cd "$new" && sha256sum -- *.whl >SHA256SUMS)
chmod 755 "$new"
rm -rf "$target"
mv "$new" "$target"
du -sh "$target"
