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

vm() {
    CREEL_VM_SECONDS=$1 CREEL_VM=$2 hack/test-vm.sh "${@:3}" 2>&1 | tee -a "$log" || broken+=("vm $2")
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
        # What systemd, cgroup v2, an ordinary user, SELinux and an older Linux change, in minutes;
        # `make test-vm` runs all.
        shared=(systemd:: cgroup:: update:: pause:: events:: devices::)
        vm 2400 "" e2e-systemd user-systemd engines-limits -- "${shared[@]}" \
            ps:: exec:: lifecycle:: rootless:: labels:: security:: tracers::
        vm 600 selinux e2e -- labels::
        vm 900 v1 e2e-systemd -- "${shared[@]}" mount_paths::
    else
        run "$group" -p creel-integration --test "$group"
    fi
done

# The counts come last, so that they are found.
[ ${#broken[@]} -eq 0 ] || echo "not passed: ${broken[*]}"
hack/test-count.sh "$log"
[ ${#broken[@]} -eq 0 ]
