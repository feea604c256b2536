#!/usr/bin/env bash
# Makes the machine that hack/vm/run.sh boots, a small Debian with systemd, and prints its directory:
# root.ext4, vmlinuz, initrd.img. It is kept under a hash of what it is made of: this script, the lists
# beside it, the files in root/, and CREEL_VM_PACKAGES, which are more packages.
#
# CREEL_VM, here and for hack/vm/run.sh, says which one: of Debian 13, which has AppArmor; "selinux", the same with
# SELinux enforcing Debian's policy; "v1", of Debian 12, with Linux 6.1 and cgroup v1.
#
# masked: units that no test needs; each costs up to a second under emulation.
set -euo pipefail
cd "$(dirname "$0")"

lists=(packages)
policy=
suite=trixie
case ${CREEL_VM:-} in
selinux)
    lists+=(packages-selinux)
    policy=selinux.cil
    ;;
v1) suite=bookworm ;;
"") ;;
*) echo "$0: no machine \"$CREEL_VM\"" >&2 && exit 2 ;;
esac
packages=$(cat "${lists[@]}" | paste -s -d ,)${CREEL_VM_PACKAGES:+,${CREEL_VM_PACKAGES// /,}}
cache=${CREEL_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/creel-vm}
hash=$({ echo "$suite $packages"; cat image.sh masked $policy; tar --create --sort=name --mtime=@0 --owner=0 --group=0 root; } | sha256sum)
image=$cache/${hash:0:16}
echo "$image"
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
[ ! -e "$image" ] || exit 0

work=$(mktemp -d "$cache/new.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
exec >&2
# shellcheck disable=SC2016
mmdebstrap --quiet --variant=essential --include="$packages" \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/lib/udev/hwdb.d/*' \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"' \
    --essential-hook='echo MODULES=list >"$1/etc/initramfs-tools/conf.d/creel"' \
    --essential-hook='printf "%s\n" virtio_pci virtio_blk ext4 >"$1/etc/initramfs-tools/modules"' \
    "$suite" "$root"

cp -r root/. "$root"
system=$root/etc/systemd/system
while read -r unit; do ln -s -f /dev/null "$system/$unit"; done <masked
ln -s ../creel-test.service "$system/multi-user.target.wants/"
chroot "$root" useradd --create-home --uid 1000 --shell /bin/bash tester
mkdir -p "$root/var/lib/systemd/linger"
touch "$root/var/lib/systemd/linger/tester"
echo 127.0.0.1 localhost >"$root/etc/hosts"
: >"$root/etc/fstab"
[ -z "$policy" ] || {
    cp "$policy" "$root/tmp"
    chroot "$root" semodule --noreload --install "/tmp/$policy"
    rm "$root/tmp/$policy"
    chroot "$root" setfiles -F /etc/selinux/default/contexts/files/file_contexts /
}

for file in vmlinuz initrd.img; do mv "$(realpath "$root/$file")" "$work/$file"; done
mke2fs -q -t ext4 -O ^has_journal -m 0 -E root_owner=0:0 -d "$root" "$work/root.ext4" 2G
rm -rf "$root"
mv "$work" "$image"
