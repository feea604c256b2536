#!/usr/bin/env bash
# Install the engines that integration/tests/engines drives, on Debian or Ubuntu, as root.
set -euo pipefail

# A program that is there is kept, whoever packaged it: docker.io would push out Docker's own packages.
# What apt does not know is left out, and the tests that want it say so and are skipped.
wanted=(
    containerd:containerd ctr:containerd dockerd:docker.io podman:podman buildah:buildah runc:runc
    conmon:conmon /usr/lib/podman/netavark:netavark /usr/lib/cni/bridge:containernetworking-plugins
    iptables:iptables docker-init:tini catatonit:catatonit newuidmap:uidmap ps:procps
    ip:iproute2 script:bsdutils nsenter:util-linux
)

packages=()
for pair in "${wanted[@]}"; do
    command -v "${pair%%:*}" >/dev/null || packages+=("${pair##*:}")
done
# The dynamic busybox has the same file name.
dpkg-query --show --showformat='${db:Status-Status}\n' busybox-static 2>/dev/null | grep -qx installed ||
    packages+=(busybox-static)
[ ${#packages[@]} -gt 0 ] || exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "missing: ${packages[*]} (Debian's names); install them, or run this as root where apt is" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=300 update -q
known=()
for package in "${packages[@]}"; do
    if apt-cache show "$package" >/dev/null 2>&1; then known+=("$package"); else echo "not in apt: $package"; fi
done
apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-remove --no-install-recommends "${known[@]}"
