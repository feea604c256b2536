#!/usr/bin/env bash
# Formatting, lints, and the rules of the tree that no lint knows.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "lint: $1" >&2
    exit 1
}

cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings

# The pure crate cannot reach the system through a dependency either (its clippy.toml bans std's).
reached=$(cargo tree --locked -p creel-plan -e normal --prefix none |
    grep -E '^(creel-sys|libc|nix|rustix|pathrs|procfs|caps) ' || true)
[ -z "$reached" ] || fail "creel-plan depends on $reached"

# A bundle directory is the border of the two halves: the runtime, which runs as root, links no network code.
reached=$(cargo tree --locked -p creel -e normal --prefix none |
    grep -E '^(creel-image|creel-image-lib|creel-registry|rustls|tokio|ureq|zstd) ' || true)
[ -z "$reached" ] || fail "creel depends on $reached"

if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    if git grep -nF -e "$PWD/" -- . ':!*.lock'; then fail "a file names the path of this checkout"; fi
fi
if command -v shellcheck >/dev/null; then
    shellcheck -x hack/*.sh hack/vm/*.sh .ci/run
else
    echo "lint: shellcheck is not installed; scripts not checked"
fi
if cargo deny --version >/dev/null 2>&1; then
    cargo deny --locked check licenses bans sources
else
    echo "lint: cargo-deny is not installed; licences, bans and sources not checked"
fi
