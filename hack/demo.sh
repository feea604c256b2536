#!/usr/bin/env bash
# From nothing to a container: installs what is missing (as root, on Debian or Ubuntu), builds creel,
# makes a bundle of a static busybox and runs it, then an image of the same. Leaves nothing but the build behind.
set -euo pipefail
cd "$(dirname "$0")/.."

hack/build-deps.sh
hack/apt.sh busybox-static
# Not in every distribution, and an ordinary user installs nothing: the demo says when it is not there.
[ "$(id -u)" != 0 ] || hack/apt.sh docker-registry || true
hack/build.sh creel creel-image
creel=$(hack/build.sh --dir)/creel

bundle=$(mktemp -d)
trap 'rm -rf "$bundle"' EXIT
mkdir -p "$bundle"/rootfs/{bin,dev,etc,proc,sys,tmp}
cp "$(command -v busybox)" "$bundle/rootfs/bin/busybox"
for applet in $("$bundle/rootfs/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$bundle/rootfs/bin/$applet"
done

rootless=()
[ "$(id -u)" = 0 ] || rootless=(--rootless)
"$creel" spec "${rootless[@]}" --bundle "$bundle"
cat >"$bundle/rootfs/bin/demo" <<'DEMO'
#!/bin/sh
echo "Hello from $(hostname): a container of its own, run by creel."
echo "It is process $$ of user $(id -u), and these are all the processes it sees:"
ps -o pid,args
echo "its network devices: $(ls /sys/class/net | tr '\n' ' ')"
echo "its capabilities:    $(grep CapEff /proc/self/status | tr -s '[:space:]' ' ')"
touch /etc/nothing 2>/dev/null || echo "its root:            read-only"
DEMO
chmod +x "$bundle/rootfs/bin/demo"
sed -i -e 's/"terminal": *true/"terminal": false/' \
    -e '/"args": *\[/,/\]/c\ "args": ["/bin/demo"],' "$bundle/config.json"

echo "+ creel run --bundle BUNDLE demo"
"$creel" --root "$bundle/state" run --bundle "$bundle" "demo-$$"

hack/demo-pull.sh "$creel" "$bundle/rootfs" "$bundle"
