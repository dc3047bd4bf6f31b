#!/usr/bin/env bash
# Builds the four images and runs them on a bare Debian: the whole `debug` pipeline in containers, then the transformer
# and the predictor against each other. Needs root; makes its base image with debootstrap, since it may pull nothing.
# INSTALL=1 installs Docker, debootstrap and a C compiler from Debian when they are missing. Exits with 77 and a sentence
# where this machine cannot do it. Keeps Docker's data in DATA_ROOT when that is given.
set -euo pipefail
cd "$(dirname "$0")/.."
skip() { echo "images/ci.sh: SKIPPED, images neither built nor run: $1" >&2; exit 77; }
step() { echo "== $1 (after $SECONDS s)"; }
base=infill-base:bookworm
packages=python3.11,python3.11-venv,python3-minimal,ca-certificates
test "$(id -u)" = 0 || skip "root is needed for dockerd and debootstrap"
test "$(uname -s)" = Linux || skip "debootstrap runs on Linux only"

missing=()
command -v debootstrap >/dev/null || missing+=(debootstrap)
command -v dockerd >/dev/null || missing+=(docker.io)
command -v cc >/dev/null || missing+=(gcc libc6-dev)
if [ ${#missing[@]} -gt 0 ]; then
    test "${INSTALL:-}" = 1 || skip "not installed: ${missing[*]} (INSTALL=1 installs them)"
    command -v apt-get >/dev/null || skip "not installed: ${missing[*]}, and there is no apt-get"
    step "installing ${missing[*]}"
    apt-get update --quiet=2 || skip "Debian's packages cannot be reached"
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends "${missing[@]}" >/dev/null
fi
# Debian's own client builds with BuildKit; another one earlier in PATH needs a plug-in for that.
export DOCKER=${DOCKER:-/usr/bin/docker}
test -x "$DOCKER" || DOCKER=docker

work=$(mktemp -d)
data=${DATA_ROOT:-$work/docker}
daemon=
cleanup() {
    if [ -n "$daemon" ]; then
        kill "$daemon"
        wait "$daemon" || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT
if ! "$DOCKER" info >/dev/null 2>&1; then
    step "starting dockerd"
    dockerd --data-root "$data" --exec-root "$work/exec" --pidfile "$work/pid" >"$work/dockerd.log" 2>&1 &
    daemon=$!
    for _ in $(seq 60); do
        "$DOCKER" info >/dev/null 2>&1 && break
        kill -0 "$daemon" 2>/dev/null || { tail -5 "$work/dockerd.log" >&2; daemon=; skip "dockerd does not start here"; }
        sleep 1
    done
fi

if ! "$DOCKER" image inspect "$base" >/dev/null 2>&1; then
    step "making the base image"
    debootstrap --variant=minbase --include="$packages" bookworm "$work/base" ${MIRROR:+"$MIRROR"} >"$work/base.log" \
        || { tail -5 "$work/base.log" >&2; skip "debootstrap cannot make a base image"; }
    rm -rf "$work/base/var/cache/apt/archives"/*.deb "$work/base/var/lib/apt/lists"/* "$work/base/usr/share/doc"
    tar -C "$work/base" -c . | "$DOCKER" import - "$base" >/dev/null
fi

step "filling the wheelhouse"
make wheels
step "building the images"
BASE_IMAGE=$base images/build.sh

step "running the pipeline in them"
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
for name in click flask httpx idna itsdangerous jinja2 markupsafe requests werkzeug; do
    mkdir -p "$work/code/$name"
    cp -r "$site/$name" "$work/code/$name/"
    find "$site" -path "*/$name-*.dist-info/*" -iname 'license*' -type f -exec cp {} "$work/code/$name/LICENSE" \;
done
INFILL_IMAGES=dist/images.json PYTHONPATH=. .venv/bin/python images/pipeline.py "$work/run" --repositories "$work/code"

step "running the transformer and the predictor"
images/check.sh "$(.venv/bin/python - "$work/run" <<'END'
import json
import pathlib
import sys

newest = max(pathlib.Path(sys.argv[1]).glob("store/dpo/*/manifest.json"), key=lambda file: file.stat().st_mtime)
print(json.loads(newest.read_text())["uri"])
END
)"
step "done"
