#!/usr/bin/env bash
# Runs groups of tests and counts: hack/test.sh unit|e2e|differential|images|engines|gates|vm ...
#
# A test that cannot run here prints "skip: NAME: REASON" on standard error and returns; cargo counts
# it as passed, the last lines of this script count it as skipped. Fails when any test failed or a
# group did not come to its end.
set -euo pipefail
cd "$(dirname "$0")/.."

hack/test-deps.sh "$@"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
broken=()

run() {
    echo "== $1: cargo test ${*:2}"
    cargo test --locked --no-fail-fast "${@:2}" 2>&1 | tee -a "$log" || broken+=("$1")
}

release=
for group; do
    if [ "$group" != unit ] && [ -z "$release" ]; then
        release=$(hack/build.sh --dir)
        hack/build.sh creel
        export CREEL_TEST_RUNTIME=${CREEL_TEST_RUNTIME:-$release/creel}
    fi
    # It looks for creel-image where it is itself.
    [ "$group" != images ] || hack/build.sh creel-image
    if [ "$group" = unit ]; then
        run unit
        run unit -p creel-bench -p creel-integration --lib --bins
        run unit -p creel-fuzz
    elif [ "$group" = vm ]; then
        # What cgroup v2, systemd and an ordinary user change, in minutes; `make test-vm` runs all.
        CREEL_VM_SECONDS=${CREEL_VM_SECONDS:-2400} hack/test-vm.sh e2e-systemd user-systemd engines-limits -- systemd:: cgroup:: update:: pause:: events:: \
            ps:: exec:: lifecycle:: devices:: rootless:: labels:: security:: tracers:: 2>&1 |
            tee -a "$log" || broken+=(vm)
        CREEL_VM_SECONDS=600 CREEL_VM=selinux hack/test-vm.sh e2e -- labels:: 2>&1 |
            tee -a "$log" || broken+=(vm-selinux)
    else
        run "$group" -p creel-integration --test "$group"
    fi
done

# The counts come last, so that they are found.
[ ${#broken[@]} -eq 0 ] || echo "not passed: ${broken[*]}"
hack/test-count.sh "$log"
[ ${#broken[@]} -eq 0 ]
