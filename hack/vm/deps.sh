#!/usr/bin/env bash
# Installs what hack/vm needs, on Debian or Ubuntu as root.
set -euo pipefail
cd "$(dirname "$0")/../.."

hack/apt.sh mmdebstrap e2fsprogs debian-archive-keyring
command -v qemu-system-x86_64 >/dev/null && exit
hack/apt.sh qemu-system-x86 && exit

# Beside a qemu-utils of the backports only the backports' qemu can be installed. Lists of its own leave
# the machine's as they are.
# shellcheck source=/dev/null
. /etc/os-release
suite=$VERSION_CODENAME
lists=$(mktemp -d)
trap 'rm -rf "$lists"' EXIT
mkdir "$lists/partial"
# shellcheck disable=SC2016
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $suite" | sort -u | head -n 1)
echo "deb $mirror $suite-backports main" >"$lists/sources"
apt=(apt-get -o "Dir::Etc::sourcelist=$lists/sources" -o "Dir::State::lists=$lists" -o DPkg::Lock::Timeout=300)
"${apt[@]}" update -q
export DEBIAN_FRONTEND=noninteractive
"${apt[@]}" install -y -q --no-remove --no-install-recommends -t "$suite-backports" qemu-system-x86
