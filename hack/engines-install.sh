#!/bin/bash
# Install the engines that integration/tests/engines drives, on Debian or Ubuntu, as root.
set -euo pipefail

packages=(
    # engines, and the runtime that creel is compared with
    containerd docker.io podman buildah runc
    # what they call
    conmon netavark containernetworking-plugins iptables tini catatonit uidmap
    # the image's contents and the tools of the sandbox
    busybox-static iproute2 util-linux bsdutils coreutils tar
)

missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi

# Another apt may hold the lock. Nothing is started here: the tests start daemons of their own.
export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=300 update
RUNLEVEL=1 apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}"
