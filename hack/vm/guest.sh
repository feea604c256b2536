#!/usr/bin/env bash
# Runs groups of tests in the machine that hack/vm/run.sh boots: hack/vm/guest.sh GROUP... [-- TEST...]
# SYSTEMD: with cgroups by systemd; "user": as an ordinary user, with a systemd of the user's.
# TEST: of each group only the tests with this in their name.
set -euo pipefail
cd "$(dirname "$0")/../.."

CREEL_TEST_RUNTIME=$(realpath target/*/release/creel)
CREEL_TEST_PROBE=$(realpath target/probe/*/release/creel-probe)
export CREEL_TEST_RUNTIME CREEL_TEST_PROBE
binaries=target/debug/deps
failed=()
groups=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do groups+=("$1") && shift; done
tests=("${@:2}")
# Root file systems lie below it: with devices of their own, and flags that runc before 1.2 stumbles over.
! mountpoint --quiet /tmp || mount -o remount,dev,suid /tmp

run() {
    echo "== $1"
    "${@:2}" || failed+=("$1")
}

as_user() {
    local variables=(HOME=/home/tester USER=tester XDG_RUNTIME_DIR=/run/user/1000)
    setpriv --reuid tester --regid tester --init-groups env "${variables[@]}" \
        systemd-run --user --quiet --pipe --wait --collect --same-dir \
        --property Delegate=yes --expand-environment=no \
        --setenv CREEL_TEST_RUNTIME --setenv CREEL_TEST_PROBE "$@"
}

# Of a delegated cgroup with processes only those below it can have limits, so the tests step aside.
# shellcheck disable=SC2016
beside='own=$(cut -d: -f3 /proc/self/cgroup)
    mkdir "/sys/fs/cgroup$own/tests" && echo $$ >"/sys/fs/cgroup$own/tests/cgroup.procs"
    CREEL_TEST_CGROUP=$own exec "$@"'
systemd=(env CREEL_TEST_CGROUP=systemd)

for group in "${groups[@]}"; do
    case $group in
    units) for binary in "$binaries"/{creel_cgroup,rootless,v2}-*; do run units "$binary" "${tests[@]}"; done ;;
    e2e | differential) run "$group" "$binaries/$group"-* "${tests[@]}" ;;
    e2e-systemd) run "$group" "${systemd[@]}" "$binaries"/e2e-* "${tests[@]}" ;;
    user) run "$group" as_user bash -c "$beside" bash "$binaries"/e2e-* "${tests[@]}" ;;
    user-systemd) run "$group" as_user "${systemd[@]}" "$binaries"/e2e-* "${tests[@]}" ;;
    engines-systemd) run "$group" "${systemd[@]}" "$binaries"/engines-* "${tests[@]}" ;;
    engines-limits) run "$group" "${systemd[@]}" "$binaries"/engines-* limits pause ;;
    *)
        echo "no group of tests \"$group\"" >&2
        exit 2
        ;;
    esac
done
[ ${#failed[@]} -eq 0 ] || {
    echo "not passed: ${failed[*]}"
    exit 1
}
