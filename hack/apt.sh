#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages named that are missing: hack/apt.sh PACKAGE...
# Says nothing and needs no privilege when all are there.
set -euo pipefail

missing=()
for package; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "missing: ${missing[*]} (Debian's names); install them, or run this as root where apt is" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
wait_for_lock=(-o DPkg::Lock::Timeout=300)
install=(apt-get "${wait_for_lock[@]}" install -y -q --no-remove --no-install-recommends)

echo "installing ${missing[*]}"
apt-cache show "${missing[@]}" >/dev/null 2>&1 || apt-get "${wait_for_lock[@]}" update -q
# Lists that are there but old name files that the mirror no longer has.
"${install[@]}" "${missing[@]}" || {
    apt-get "${wait_for_lock[@]}" update -q
    "${install[@]}" "${missing[@]}"
}
