#!/usr/bin/env bash
# Installs what the build needs. gcc links, binutils has readelf for the check of the result.
set -euo pipefail
cd "$(dirname "$0")/.."

hack/rust.sh
hack/apt.sh gcc libc6-dev make binutils pkg-config libseccomp-dev
