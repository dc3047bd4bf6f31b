#!/usr/bin/env bash
# Build the four images and write their references to dist/images.json, which INFILL_IMAGES names. With REGISTRY set,
# push them, refer to them by the registry's digests, and also write a file of values for each chart; otherwise they stay
# local with their tags, which the charts reject.
set -euo pipefail
cd "$(dirname "$0")/.."
torch=${TORCH:-cpu}
base=${BASE_IMAGE:-python:3.11-slim-bookworm}
docker=${DOCKER:-docker}
names=(pipeline train transformer predictor)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
commit=$(git rev-parse HEAD)
created=$(git log -1 --format=%cI)
test -f "dist/wheels/$torch/SHA256SUMS" || { echo "images/build.sh: run images/wheels.sh first" >&2; exit 1; }

declare -A references
for name in "${names[@]}"; do
    repository=${REGISTRY:+$REGISTRY/}infill-$name
    tag=$repository:$version
    DOCKER_BUILDKIT=1 "$docker" build --quiet --file "images/$name.Dockerfile" --tag "$tag" \
        --build-arg BASE_IMAGE="$base" --build-arg TORCH="$torch" --build-arg VERSION="$version" \
        --build-arg COMMIT="$commit" --build-arg CREATED="$created" . >/dev/null
    references[$name]=$tag
    if [ -n "${REGISTRY:-}" ]; then
        "$docker" push --quiet "$tag" >/dev/null
        # An image in several registries has a digest in each.
        references[$name]=$("$docker" inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$tag" \
            | grep --max-count 1 --fixed-strings "$repository@sha256:")
    fi
    size=$("$docker" inspect --format '{{.Size}}' "$tag")
    printf '%-12s %5d MB  %s\n' "$name" $((size / 1000000)) "${references[$name]}"
done

as_json() { # names
    local name separator=
    printf '{'
    for name in "$@"; do
        printf '%s\n  "%s": "%s"' "$separator" "$name" "${references[$name]}"
        separator=,
    done
    printf '\n}'
}
{ as_json "${names[@]}" && echo; } >dist/images.json
rm -f dist/platform-images.json dist/serving-images.json
if [ -n "${REGISTRY:-}" ]; then
    echo "{\"images\": $(as_json pipeline train)}" >dist/platform-images.json
    echo "{\"images\": $(as_json transformer predictor)}" >dist/serving-images.json
fi
