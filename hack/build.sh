#!/usr/bin/env bash
# Builds release binaries: hack/build.sh PACKAGE...; `hack/build.sh --dir` prints where they end up.
#
# creel is a static, non-PIE glibc binary: a start costs 0.3 ms where a dynamic PIE takes 0.8 ms.
# creel-image resolves names, for which glibc loads libraries: it is dynamic (docs/design/0011).
# These flags stand here and nowhere else; they apply to --target builds only, not to build scripts.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(uname -m)-unknown-linux-gnu
dir=$(realpath -m "${CARGO_TARGET_DIR:-target}/$target/release")
if [ "${1:-}" = --dir ]; then
    echo "$dir"
    exit 0
fi

archive=$(gcc -print-file-name=libseccomp.a)
if [ ! -f "$archive" ]; then
    echo "hack/build.sh: no libseccomp.a; install libseccomp-dev (and gcc)" >&2
    exit 1
fi
# Without LINK_TYPE the link succeeds, leaves a NEEDED entry and the program dies at its first call.
export LIBSECCOMP_LINK_TYPE=static
LIBSECCOMP_LIB_PATH=$(dirname "$(realpath "$archive")")
export LIBSECCOMP_LIB_PATH

for package; do
    flags='-C target-feature=+crt-static -C relocation-model=static'
    # hack/link takes the unwinder from libgcc's archive: to load the library costs each start 0.1 ms.
    [ "$package" != creel-image ] || flags="-L native=$PWD/hack/link"
    RUSTFLAGS=$flags cargo build --release --locked --target "$target" -p "$package"
    [ "$package" = creel-image ] || hack/check-static.sh "$dir/$package"
done
