#!/usr/bin/env bash
# The second half of the demo: hack/demo-pull.sh CREEL TREE DIR runs an image of TREE, first from a layout
# made on the spot, then from a registry on loopback where docker-registry is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

creel=$1 tree=$2 dir=$3
run() {
    echo "+ creel pull-and-run $1"
    "$creel" --root "$dir/state" pull-and-run --store "$dir/$2" "$1"
}

hack/demo-image.sh "$tree" "$dir/layout" demo /bin/demo
run "oci:$dir/layout:demo" store

if ! command -v docker-registry >/dev/null; then
    echo "docker-registry is not installed: the pull from a registry is left out"
    exit 0
fi
printf 'version: 0.1\nlog: {level: info}\nstorage: {filesystem: {rootdirectory: "%s"}}\nhttp: {addr: "127.0.0.1:0"}\n' \
    "$dir/registry" >"$dir/registry.yml"
docker-registry serve "$dir/registry.yml" >"$dir/log" 2>&1 &
registry=$!
trap 'kill "$registry"; wait "$registry" 2>/dev/null || true' EXIT
for _ in $(seq 100); do
    host=$(sed -n 's/.*listening on \(127[0-9.:]*\).*/\1/p' "$dir/log")
    [ -z "$host" ] || break
    sleep 0.1
done
echo "+ creel push oci:$dir/layout:demo docker://$host/demo:1"
"$creel" push -q "oci:$dir/layout:demo" "docker://$host/demo:1"
# Another store: nothing of the layout's image is there.
run "docker://$host/demo:1" store-of-registry
