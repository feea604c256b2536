#!/usr/bin/env bash
# Fails unless every ELF file named is fully static: no NEEDED library, no interpreter.
set -euo pipefail

for file; do
    dynamic=$(LC_ALL=C readelf --wide --dynamic --program-headers "$file")
    if grep -E '\(NEEDED\)|Requesting program interpreter' <<<"$dynamic" >&2; then
        echo "$file: not a static binary" >&2
        exit 1
    fi
done
