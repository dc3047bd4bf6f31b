#!/usr/bin/env bash
# Builds the four images and writes dist/images.json, which INFILL_IMAGES and the charts read: with REGISTRY set they are
# pushed and named by the registry's digests, without they stay here and keep their tags.
set -euo pipefail
cd "$(dirname "$0")/.."
torch=${TORCH:-cpu}
base=${BASE_IMAGE:-python:3.11-slim-bookworm}
docker=${DOCKER:-docker}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
commit=$(git rev-parse HEAD)
created=$(git log -1 --format=%cI)
test -f "dist/wheels/$torch/SHA256SUMS" || { echo "images/build.sh: run images/wheels.sh first" >&2; exit 1; }

references=()
for name in pipeline train transformer predictor; do
    tag=${REGISTRY:+$REGISTRY/}infill-$name:$version
    DOCKER_BUILDKIT=1 "$docker" build --quiet --file "images/$name.Dockerfile" --tag "$tag" \
        --build-arg BASE_IMAGE="$base" --build-arg TORCH="$torch" --build-arg VERSION="$version" \
        --build-arg COMMIT="$commit" --build-arg CREATED="$created" .
    if [ -n "${REGISTRY:-}" ]; then
        "$docker" push --quiet "$tag"
        reference=$("$docker" inspect --format '{{index .RepoDigests 0}}' "$tag")
    else
        reference=$tag
    fi
    size=$("$docker" inspect --format '{{.Size}}' "$tag")
    printf '%-12s %5d MB  %s\n' "$name" $((size / 1000000)) "$reference"
    references+=("  \"$name\": \"$reference\"")
done
{ echo '{'; (IFS=$',\n'; printf '%s' "${references[0]}"; printf ',\n%s' "${references[@]:1}"); printf '\n}\n'; } >dist/images.json
