#!/usr/bin/env bash
# Installs what the groups of tests named need: hack/test-deps.sh unit|e2e|differential|images|engines|gates|vm ...
set -euo pipefail
cd "$(dirname "$0")/.."

hack/build-deps.sh
for group; do
    case $group in
    unit | vm) ;;
    e2e) hack/apt.sh busybox-static procps ;;
    differential) hack/apt.sh busybox-static runc ;;
    images)
        hack/apt.sh busybox-static runc skopeo
        # Not in every distribution: without one the tests that want it say so and are skipped.
        for package in docker-registry apache2-utils openssl strace umoci uidmap passt buildah podman containerd; do
            hack/apt.sh "$package" || true
        done
        ;;
    gates) hack/apt.sh busybox-static binutils strace valgrind ;;
    engines) hack/engines-install.sh ;;
    *)
        echo "no group of tests \"$group\"" >&2
        exit 2
        ;;
    esac
done
