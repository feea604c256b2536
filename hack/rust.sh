#!/usr/bin/env bash
# Makes sure of a cargo that is new enough for Cargo.toml's rust-version, by the distribution's
# rustup where there is none, or says in one line what to install.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
new_enough() {
    local have
    have=$(cargo --version 2>/dev/null | cut -d' ' -f2) || return 1
    [ -n "$have" ] && [ "$(printf '%s\n' "$wanted" "$have" | sort -V | head -n1)" = "$wanted" ]
}
give_up() {
    echo "creel needs Rust $wanted or newer: $1" >&2
    exit 1
}

# What hack/build.sh builds creel for; it does without where this cannot be had.
with_musl() {
    local target
    target=$(uname -m)-unknown-linux-musl
    [ -d "$(rustc --print target-libdir --target "$target")" ] || rustup target add "$target" || true
    exit 0
}

if new_enough; then with_musl; fi
if PATH=$PATH:$HOME/.cargo/bin new_enough; then give_up "it is in $HOME/.cargo/bin, which is not in PATH (make adds it)"; fi
if ! command -v rustup >/dev/null; then
    hack/apt.sh rustup ca-certificates >/dev/null 2>&1 || give_up "install it with rustup (rustup.rs); no package of that name could be installed here"
fi
# A rustup fresh from a package has no toolchain; one that has an older default keeps it.
rustup default >/dev/null 2>&1 || rustup default stable || give_up "rustup could not fetch the stable toolchain"
if new_enough; then with_musl; fi
give_up "run rustup update stable && rustup default stable"
