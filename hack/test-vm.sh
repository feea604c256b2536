#!/usr/bin/env bash
# Runs tests in a virtual machine with systemd: hack/test-vm.sh [GROUP... [-- TEST...]]
#
# hack/vm/guest.sh has the groups; without any, all run. TEST is part of the names of tests. They are
# built here and run there. A machine that cannot be had is a skip, what happens in it is not.
# CREEL_VM_SECONDS is the limit, three hours. CREEL_VM says which machine, see hack/vm/image.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
export CREEL_VM_SECONDS=${CREEL_VM_SECONDS:-10800}
status=0
[ $# -gt 0 ] || {
    CREEL_TEST_SLOW=1 hack/test-vm.sh units e2e e2e-systemd user user-systemd differential engines-systemd || status=$?
    CREEL_VM=selinux hack/test-vm.sh e2e -- labels:: || status=$?
    CREEL_VM=v1 hack/test-vm.sh units e2e-systemd engines-systemd || status=$?
    exit "$status"
}

stage=$(mktemp -d)
log=$(mktemp)
trap 'rm -rf "$stage" "$log"' EXIT
skip() {
    echo "skip: vm: $1"
    echo "vm: 0 passed, 0 failed, 1 skipped"
    exit 0
}

[ "$(uname -m)" = x86_64 ] || skip "the machine is an x86_64"
[ "$(id -u)" = 0 ] || skip "making the machine needs root"
hack/vm/deps.sh || skip "qemu and mmdebstrap cannot be installed here"
hack/vm/image.sh >/dev/null || skip "the machine's packages cannot be had"

hack/build.sh creel
creel=$(realpath --relative-to=. "$(hack/build.sh --dir)")/creel
# The tests that need the probe build it, with a cargo that the machine has not.
cargo test --locked --quiet -p creel-integration --lib probe
git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from - |
    tar --extract --directory "$stage"
{
    cargo test --locked --no-run -p creel-integration --test e2e --test differential --test engines 2>&1
    [[ " $* " != *" units "* ]] || cargo test --locked --no-run -p creel-cgroup 2>&1
} | sed -n 's/.*Executable .*(\(.*\))$/\1/p' | xargs cp --parents --target-directory "$stage" target/CACHEDIR.TAG "$creel" \
        target/probe/*/release/creel-{probe,fake-criu}
# Its user is another one.
chmod 755 "$stage"

hack/vm/run.sh "$stage" env ${CREEL_TEST_SLOW:+CREEL_TEST_SLOW=1} ${CREEL_VM:+CREEL_VM="$CREEL_VM"} \
    hack/vm/guest.sh "$@" | tee "$log" || status=$?
case $status in
124 | 125) grep -q '^== ' "$log" || skip "the machine does not come up here (status $status)" ;;
esac
hack/test-count.sh "$log"
exit "$status"
