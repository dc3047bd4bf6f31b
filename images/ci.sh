#!/usr/bin/env bash
# Build the four images and run them: the whole `debug` pipeline in containers, then the transformer with the predictor.
# With BASE_IMAGE and a running Docker this needs no more than `make wheels`. Otherwise it starts dockerd and makes a base
# with debootstrap, for which it must run as root on Debian; INSTALL=1 installs both if they are missing. It exits with 77
# and a sentence if this machine cannot do it.
set -euo pipefail
cd "$(dirname "$0")/.."
skip() { echo "images/ci.sh: SKIPPED, images neither built nor run: $1" >&2; exit 77; }
step() { echo "== $1 (after $SECONDS s)"; }
disk_gb=8
packages=python3,python3-distutils,python3.11-venv,ca-certificates
root() { test "$(id -u)" = 0 || skip "root is needed to $1"; }

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
if ! "${DOCKER:-docker}" info >/dev/null 2>&1; then
    root "start dockerd"
    command -v dockerd >/dev/null || missing+=(docker.io)
fi
if [ -z "${BASE_IMAGE:-}" ]; then
    root "make a base image with debootstrap (or set BASE_IMAGE)"
    command -v debootstrap >/dev/null || missing+=(debootstrap)
fi
if [ ${#missing[@]} -gt 0 ]; then
    test "${INSTALL:-}" = 1 || skip "not installed: ${missing[*]} (INSTALL=1 installs them)"
    command -v apt-get >/dev/null || skip "not installed: ${missing[*]}, and there is no apt-get"
    root "install ${missing[*]}"
    step "installing ${missing[*]}"
    apt-get update --quiet=2 || skip "Debian's packages cannot be reached"
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends "${missing[@]}" >/dev/null
fi
# Debian's own client builds with BuildKit; another client earlier in PATH needs a plug-in for that.
if [ -z "${DOCKER:-}" ]; then
    DOCKER=docker
    docker buildx version >/dev/null 2>&1 || DOCKER=/usr/bin/docker
fi
export DOCKER

work=$(mktemp -d)
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
    data=${DATA_ROOT:-$work/docker}
    mkdir -p "$data"
    free=$(df --output=avail --block-size=1G "$data" | tail -1)
    test "$free" -ge "$disk_gb" || skip "$data has $((free)) GB free, and the images need $disk_gb"
    step "starting dockerd"
    dockerd --data-root "$data" --exec-root "$work/exec" --pidfile "$work/pid" >"$work/dockerd.log" 2>&1 &
    daemon=$!
    for _ in $(seq 60); do
        "$DOCKER" info >/dev/null 2>&1 && break
        kill -0 "$daemon" 2>/dev/null || { tail -5 "$work/dockerd.log" >&2; daemon=; skip "dockerd does not start here"; }
        sleep 1
    done
fi

base=${BASE_IMAGE:-infill-base:bookworm}
if [ -z "${BASE_IMAGE:-}" ] && ! "$DOCKER" image inspect "$base" >/dev/null 2>&1; then
    step "making the base image"
    debootstrap --variant=minbase --include="$packages" bookworm "$work/base" ${MIRROR:+"$MIRROR"} >"$work/base.log" \
        || { tail -5 "$work/base.log" >&2; skip "debootstrap cannot make a base image"; }
    rm -rf "$work/base/var/cache/apt/archives"/*.deb "$work/base/var/lib/apt/lists"/* "$work/base"/usr/share/{doc,info,locale,man}
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
import pathlib
import sys

newest = max(pathlib.Path(sys.argv[1]).glob("store/dpo/*/manifest.json"), key=lambda file: file.stat().st_mtime)
print(newest.parent)
END
)"
step "done"
