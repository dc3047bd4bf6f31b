#!/bin/sh
# Put code-server, which is VS Code in a browser, into a folder outside the repository, once, and print the folder.
# Needs Node 20 with its headers, npm, a C++ compiler, and a registry. INFILL_CODE_SERVER names another folder.
set -eu
VERSION=4.100.3
folder=${INFILL_CODE_SERVER:-${XDG_CACHE_HOME:-$HOME/.cache}/infill/code-server-$VERSION}
if [ ! -e "$folder/.ready" ]; then
    case $(node --version) in v20.*) ;; *) echo "code-server $VERSION runs on Node 20, this is $(node --version)" >&2; exit 1 ;; esac
    rm -rf "$folder"
    mkdir -p "$folder"
    cd "$folder"
    # Its own install script wants yarn and a shrinkwrap; the packages, and then the four that are compiled, are all it takes.
    export npm_config_audit=false npm_config_fund=false npm_config_loglevel=error npm_config_yes=true
    node=$(dirname "$(dirname "$(readlink -f "$(command -v node)")")")
    if [ -d "$node/include/node" ]; then export npm_config_nodedir="$node"; fi # else node-gyp fetches the headers
    {
        echo '{"private": true}' >package.json
        npm install --ignore-scripts "code-server@$VERSION"
        cd node_modules/code-server
        npm install --ignore-scripts --omit=dev --legacy-peer-deps
        cd lib/vscode
        npm install --ignore-scripts --omit=dev --legacy-peer-deps
        npm rebuild @vscode/spdlog node-pty @parcel/watcher native-watchdog
        cd ../..
        npm rebuild argon2
    } >&2
    touch "$folder/.ready"
fi
echo "$folder"
