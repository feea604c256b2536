#!/usr/bin/env bash
# Runs each fuzz target for a while: hack/fuzz.sh [TARGET ...], FUZZ_SECONDS each, a minute if not said.
#
# The coverage that libFuzzer is led by comes from flags of the stable compiler; there is nothing in creel that
# AddressSanitizer, which needs another compiler, would look at. What is found lies in target/fuzz/TARGET/.
set -euo pipefail
cd "$(dirname "$0")/.."

hack/build-deps.sh
hack/apt.sh g++
[ $# -gt 0 ] || set -- tar unpack inflate reference challenge documents
triple=$(rustc -vV | sed -n 's/^host: //p')
flags=(--cfg fuzzing -C opt-level=3 -C debug-assertions -C overflow-checks -C codegen-units=1
    -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table
    -C llvm-args=-sanitizer-coverage-trace-compares)
CARGO_TARGET_DIR=target/fuzz RUSTFLAGS="${flags[*]}" \
    cargo build --locked --target "$triple" -p creel-fuzz --features libfuzzer

for target; do
    new=target/fuzz/$target
    mkdir -p "$new/corpus"
    echo "== $target"
    CREEL_FUZZ=$target "target/fuzz/$triple/debug/fuzz" "-max_total_time=${FUZZ_SECONDS:-60}" -timeout=10 \
        -rss_limit_mb=2048 -max_len=16384 -print_final_stats=1 -verbosity=0 "-artifact_prefix=$new/" \
        "$new/corpus" "integration/fuzz/corpus/$target"
done
