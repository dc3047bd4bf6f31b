#!/usr/bin/env bash
# Fills dist/wheels/$TORCH with every wheel that the images install, at the versions of requirements/$TORCH.txt.
# Needs an index once; the builds of the images need none. For an air-gapped site copy the folder.
set -euo pipefail
cd "$(dirname "$0")/.."
torch=${TORCH:-cpu}
target=dist/wheels/$torch
lock=requirements/$torch.txt
tools=dist/.wheels
test -x .venv/bin/python || { echo "images/wheels.sh: run make setup first" >&2; exit 1; }
mkdir -p "$target"
test -x "$tools/bin/pip" || "${PYTHON:-python3.11}" -m venv "$tools"

export DS_BUILD_OPS=0
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
# DeepSpeed comes as source and is built against the torch of the environment; the same holds for our own wheel.
rm -f "$target"/infill-*.whl
if ! compgen -G "$target/deepspeed-*.whl" >/dev/null; then
    "$tools/bin/pip" --python .venv/bin/python wheel --quiet --no-deps --no-build-isolation --wheel-dir "$target" \
        "$(grep '^deepspeed==' "$lock")"
fi
# Ours is made of the commit that the images' label names, not of what the working tree happens to hold.
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
git archive HEAD | tar -x -C "$source"
"$tools/bin/pip" --python .venv/bin/python wheel --quiet --no-deps --no-build-isolation --wheel-dir "$target" "$source"
"$tools/bin/pip" wheel --quiet --prefer-binary --find-links "$target" --wheel-dir "$target" --constraint "$lock" \
    'infill[pipeline,tracking,train,transformer,predictor]'
(cd "$target" && sha256sum -- *.whl >SHA256SUMS)
du -sh "$target"
