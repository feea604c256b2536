#!/usr/bin/env bash
# Makes the images of the benchmark as OCI layouts: hack/bench-images-make.sh DIR. What is there is kept.
#   small  one layer, a static busybox
#   py     three layers: Debian without recommends, python3 with numpy, 5000 small files
#   l20    the same tree as 20 layers
set -euo pipefail
dir=$1
mkdir -p "$dir"
cd "$dir"

# Takes a blob in: put FILE MEDIA-TYPE prints its descriptor.
put() {
    local hex
    hex=$(sha256sum "$1" | cut -d' ' -f1)
    printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%s}' "$2" "$hex" "$(stat -c %s "$1")"
    mv "$1" "layout/blobs/sha256/$hex"
}

# image NAME TAR...: compresses the tars and writes manifest, configuration and index.
image() {
    local name=$1 layers=() ids=() tar
    rm -rf layout && mkdir -p layout/blobs/sha256
    for tar in "${@:2}"; do
        ids+=("\"sha256:$(sha256sum "$tar" | cut -d' ' -f1)\"")
        gzip -nc "$tar" >blob
        layers+=("$(put blob layer.v1.tar+gzip)")
    done
    local IFS=, machine
    case $(uname -m) in x86_64) machine=amd64 ;; aarch64) machine=arm64 ;; *) machine=$(uname -m) ;; esac
    printf '{"os":"linux","architecture":"%s","config":{"Cmd":["/bin/true"],"Env":["PATH=/usr/bin:/bin"]},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
        "$machine" "${ids[*]}" >blob
    local config
    config=$(put blob config.v1+json)
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' "$config" "${layers[*]}" >blob
    printf '{"schemaVersion":2,"manifests":[%s]}' \
        "$(put blob manifest.v1+json | sed 's/}$/,"annotations":{"org.opencontainers.image.ref.name":"1"}}/')" >layout/index.json
    echo '{"imageLayoutVersion":"1.0.0"}' >layout/oci-layout
    mv layout "$name"
}

if [ ! -d small ]; then
    mkdir -p busybox/bin && cp /bin/busybox busybox/bin/ && ln -sf busybox busybox/bin/true && ln -sf busybox busybox/bin/sh
    tar -C busybox --numeric-owner --owner=0 --group=0 -cf 0.tar . && image small 0.tar
fi
if [ ! -d py ]; then
    mmdebstrap --quiet --variant=minbase --include=python3,python3-numpy "$(. /etc/os-release && echo "$VERSION_CODENAME")" full.tar
    mkdir -p full && tar -C full --exclude=./dev -xf full.tar && rm full.tar
    mkdir -p full/srv/small && for n in $(seq 5000); do printf '%s %2000s\n' "$n" "$n" >"full/srv/small/$n"; done
    (cd full && find . ! -type d ! -path './srv/*' | LC_ALL=C sort >../all && find . -type d | LC_ALL=C sort >../dirs)
    grep -E 'python|numpy|lapack|blas|gfortran' all >upper || true
    grep -vE 'python|numpy|lapack|blas|gfortran' all >lower
    # As in layers of other builders, a file comes after the directories above it.
    with_parents() { awk -F/ '{ p = $1; for (i = 2; i < NF; i++) { p = p "/" $i; if (!(p in seen)) { seen[p] = 1; print p } } print }' "$@"; }
    part() { tar -C full --numeric-owner --no-recursion --hard-dereference -cf "$1" -T "$2"; }
    (cd full && find ./srv -type f) >files
    cat dirs lower >first && with_parents upper >second && with_parents files >third
    part 1.tar first && part 2.tar second && part 3.tar third
    image py 1.tar 2.tar 3.tar
    cat lower upper files | split -n r/19 -d - part.
    parts=(1.tar) && part 1.tar dirs
    for list in part.[0-9][0-9]; do
        with_parents "$list" >third && part "$list.tar" third && parts+=("$list.tar")
    done
    image l20 "${parts[@]}"
    rm -rf full busybox ./*.tar part.* all dirs lower upper files first second third
fi
