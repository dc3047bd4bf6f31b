#!/usr/bin/env bash
# Remove the kind cluster and its registry. DRY_RUN=1 prints the commands.
# shellcheck source=deploy/kind/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need kind docker
run kind delete cluster --name infill
run docker rm --force infill-registry
