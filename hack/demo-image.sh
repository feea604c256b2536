#!/usr/bin/env bash
# Makes an image layout of one layer by hand: hack/demo-image.sh TREE LAYOUT NAME COMMAND...
set -euo pipefail

tree=$1 layout=$2 name=$3
shift 3
mkdir -p "$layout/blobs/sha256"

# Takes a file in and prints its descriptor.
put() {
    local hex
    hex=$(sha256sum "$2" | cut -d' ' -f1)
    printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%s%s}' \
        "$1" "$hex" "$(stat -c %s "$2")" "${3:-}"
    mv "$2" "$layout/blobs/sha256/$hex"
}

new=$layout/new
tar -C "$tree" --numeric-owner --owner=0 --group=0 -cf "$new.tar" .
diff_id=$(sha256sum "$new.tar" | cut -d' ' -f1)
gzip -n "$new.tar"
layer=$(put layer.v1.tar+gzip "$new.tar.gz")

case $(uname -m) in x86_64) machine=amd64 ;; aarch64) machine=arm64 ;; *) machine=$(uname -m) ;; esac
printf -v words '"%s",' "$@"
printf '{"os":"linux","architecture":"%s","config":{"Cmd":[%s]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$machine" "${words%,}" "$diff_id" >"$new"
config=$(put config.v1+json "$new")
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
    "$config" "$layer" >"$new"
manifest=$(put manifest.v1+json "$new" ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"$name\"}")
printf '{"schemaVersion":2,"manifests":[%s]}' "$manifest" >"$layout/index.json"
echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
