#!/usr/bin/env bash
# Boots a Debian with systemd and cgroup v2 under qemu and runs a command in it as root:
#
#     hack/vm/run.sh DIRECTORY COMMAND...
#
# A copy of DIRECTORY lies in the machine where this checkout lies here, and is the working directory. What
# the command writes to its terminal goes to stdout, its exit code becomes this script's: 124 when
# CREEL_VM_SECONDS (an hour) are over, 125 when the machine ended by itself. Nothing of it is left.
# CREEL_VM is another machine, see hack/vm/image.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."

directory=$1
shift
image=$(hack/vm/image.sh)
work=$(mktemp -d)
qemu=
trap '[ -z "$qemu" ] || { kill "$qemu" && wait "$qemu"; } 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

printf '%q ' "$@" >"$directory/.command"
# Room for what the tests write.
size=$(($(du -sm "$directory" | cut -f1) + 1024))
mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$directory" "$work/checkout.ext4" "${size}M" >&2

case ${CREEL_VM:-} in
selinux) options="security=selinux enforcing=1" ;;
v1) options="systemd.unified_cgroup_hierarchy=0" ;;
*) options= ;;
esac
# TCG: KVM is seldom to be had on a test machine, which mostly is a virtual one itself.
# Serial lines: the kernel's console, the command's output, its exit code.
# shellcheck disable=SC2054
arguments=(
    -M pc,usb=off,vmport=off -accel tcg,thread=multi -smp 2 -m "${CREEL_VM_MEMORY:-3072}"
    -cpu qemu64,+rdrand,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+lahf-lm
    -nodefaults -no-user-config -display none -no-reboot
    -kernel "$image/vmlinuz" -initrd "$image/initrd.img"
    -append "root=/dev/vda rw console=ttyS0 quiet panic=-1 mitigations=off systemd.show_status=no creel.place=$PWD $options"
    -drive "file=$image/root.ext4,format=raw,if=virtio,snapshot=on,cache=unsafe"
    -drive "file=$work/checkout.ext4,format=raw,if=virtio,cache=unsafe"
    -device virtio-rng-pci
    -serial "file:$work/console" -serial stdio -serial "file:$work/code"
)
# pdeathsig: a killed script leaves no machine.
TMPDIR=$work setpriv --pdeathsig TERM timeout --kill-after 10 "${CREEL_VM_SECONDS:-3600}" \
    setpriv --pdeathsig KILL qemu-system-x86_64 "${arguments[@]}" </dev/null &
qemu=$!
status=0
wait "$qemu" || status=$?
qemu=
[ ! -s "$work/code" ] || exit "$(cat "$work/code")"
if [ "$status" = 124 ]; then
    echo "hack/vm/run.sh: not within ${CREEL_VM_SECONDS:-3600} s" >&2
else
    echo "hack/vm/run.sh: the machine ended with no result, qemu with $status" >&2
    status=125
fi
tail -n 20 "$work/console" >&2
exit "$status"
