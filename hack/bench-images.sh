#!/usr/bin/env bash
# Measures pulls and second runs beside skopeo + umoci + runc, podman and containerd: hack/bench-images.sh [ROUNDS].
# The images come from a docker-registry on loopback; everything lies on a tmpfs unless CREEL_BENCH_DIR names a
# directory. The table goes to standard output and to target/.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" != --inside ]; then
    hack/build-deps.sh
    hack/apt.sh busybox-static runc skopeo umoci podman containerd docker-registry mmdebstrap jq
    hack/build.sh creel creel-image creel-bench
    exec unshare -m --propagation private "$0" --inside "${1:-5}"
fi
rounds=$2
bin=$(hack/build.sh --dir)
images=$bin/bench-images
hack/bench-images-make.sh "$images"

# A short path: podman takes 50 characters.
work=$(mktemp -d "${CREEL_BENCH_DIR:-/tmp}/bi.XXXXXX")
[ -n "${CREEL_BENCH_DIR:-}" ] || mount -t tmpfs tmpfs "$work"
children=()
stop() {
    for pid in "${children[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    umount -l "$work" 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT

printf 'version: 0.1\nlog: {level: info}\nstorage: {filesystem: {rootdirectory: "%s"}}\nhttp: {addr: "127.0.0.1:0"}\n' \
    "$work/registry" >"$work/registry.yml"
docker-registry serve "$work/registry.yml" >"$work/log" 2>&1 &
children+=($!)
for _ in $(seq 100); do
    host=$(sed -n 's/.*listening on \(127[0-9.:]*\).*/\1/p' "$work/log")
    [ -z "$host" ] || break
    sleep 0.1
done
for image in small py l20; do
    skopeo copy -q --insecure-policy --dest-tls-verify=false "oci:$images/$image:1" "docker://$host/$image:1"
done
printf 'version = 2\nroot = "%s"\nstate = "%s"\noom_score = 0\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "%s"\n[ttrpc]\naddress = "%s"\n' \
    "$work/containerd" "$work/containerd-run" "$work/c.sock" "$work/t.sock" >"$work/containerd.toml"
containerd --config "$work/containerd.toml" >"$work/containerd.log" 2>&1 &
children+=($!)
containerd=$!
for _ in $(seq 100); do [ ! -S "$work/c.sock" ] || break; sleep 0.1; done

export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1
jq -n --arg bin "$bin" --arg work "$work" --arg host "$host" --argjson rounds "$rounds" --argjson daemon "$containerd" \
    -f hack/bench-images.jq >"$work/plan.json"
"$bin/creel-bench-images" "$work/plan.json" | tee "$bin/bench-images.md"
