#!/usr/bin/env bash
# Installs what the groups of tests named need: hack/test-deps.sh unit|e2e|differential|engines ...
set -euo pipefail
cd "$(dirname "$0")/.."

hack/build-deps.sh
for group; do
    case $group in
    unit) ;;
    e2e) hack/apt.sh busybox-static procps ;;
    differential) hack/apt.sh busybox-static runc ;;
    engines) hack/engines-install.sh ;;
    *)
        echo "no group of tests \"$group\"" >&2
        exit 2
        ;;
    esac
done
