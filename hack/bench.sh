#!/usr/bin/env bash
# Builds creel and the harness in release mode and measures creel beside the runtimes in PATH.
# Options go to the harness, see hack/bench.sh --help. The samples are kept as JSON in target/.
set -euo pipefail
cd "$(dirname "$0")/.."

hack/build-deps.sh
hack/apt.sh busybox-static runc crun strace
hack/build.sh creel creel-bench
dir=$(hack/build.sh --dir)
cargo build --release --locked -q -p creel-seccomp --example measure
"${CARGO_TARGET_DIR:-target}/release/examples/measure" integration/bench/configs/k8s.json "$dir/k8s.bpf" >"$dir/seccomp.json"
"$dir/creel-bench" --json "$dir/bench.json" --seccomp "$dir/seccomp.json" --floor-bpf "$dir/k8s.bpf" "$@"
