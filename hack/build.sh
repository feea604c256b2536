#!/usr/bin/env bash
# Builds release binaries: hack/build.sh PACKAGE...; `hack/build.sh --dir` prints where they end up.
#
# creel and the programs that measure it are static position-independent musl binaries, made for a small
# size (docs/design/0021). creel-image resolves names, for which glibc loads libraries: it is dynamic
# (docs/design/0011). These flags stand here and nowhere else; they apply to --target builds only.
set -euo pipefail
cd "$(dirname "$0")/.."

machine=$(uname -m)
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
dir=$target/$machine-unknown-linux-gnu/release
if [ "${1:-}" = --dir ]; then
    echo "$dir"
    exit 0
fi

hack/rust.sh
triple=$machine-unknown-linux-musl
flags='-C target-feature=+crt-static -C link-arg=-Wl,-T,hack/creel.ld'
if [ ! -d "$(rustc --print target-libdir --target "$triple")" ]; then
    echo "hack/build.sh: no standard library for $triple; glibc's costs each start of creel 0.3 ms" >&2
    triple=$machine-unknown-linux-gnu
    flags='-C target-feature=+crt-static -C relocation-model=static'
fi
mkdir -p "$dir"
for package; do
    if [ "$package" = creel-image ]; then
        # hack/link takes the unwinder from libgcc's archive: to load the library costs each start 0.1 ms.
        RUSTFLAGS="-L native=$PWD/hack/link" cargo build --release --locked --target "$machine-unknown-linux-gnu" -p "$package"
        continue
    fi
    RUSTFLAGS=$flags CARGO_PROFILE_RELEASE_OPT_LEVEL=z \
        cargo build --release --locked --target "$triple" -p "$package"
    binaries=("$package")
    [ "$package" != creel-bench ] || binaries+=(creel-bench-images)
    for binary in "${binaries[@]}"; do
        hack/check-static.sh "$target/$triple/release/$binary"
        [ "$triple" != "$machine-unknown-linux-gnu" ] || continue
        # Under a new name first: the old file may be running.
        cp "$target/$triple/release/$binary" "$dir/.$binary"
        mv -f "$dir/.$binary" "$dir/$binary"
    done
done
