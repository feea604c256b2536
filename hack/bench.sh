#!/usr/bin/env bash
# Builds creel and the harness in release mode and measures creel beside the runtimes in PATH.
# Options go to the harness, see hack/bench.sh --help. The samples are kept as JSON in target/.
set -euo pipefail
cd "$(dirname "$0")/.."

hack/build-deps.sh
hack/apt.sh busybox-static runc crun
hack/build.sh creel creel-bench
dir=$(hack/build.sh --dir)
"$dir/creel-bench" --json "$dir/bench.json" "$@"
