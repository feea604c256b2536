#!/usr/bin/env bash
# Adds up the logs of cargo test: hack/test-count.sh LOG... ends with "N passed, N failed, N skipped".
#
# Reads libtest's "test result: ..." and "GROUP: N passed, N failed, N skipped" of harnesses of our own.
# A count of ignored or skipped is believed; libtest counts a test that returned early as passed, and
# those are taken off again.
set -euo pipefail

cat "$@" | awk '
    /^test result: / || /^[a-z]+: [0-9]+ passed, [0-9]+ failed, [0-9]+ skipped/ {
        for (i = 2; i <= NF; i++) {
            if ($i ~ /^passed/) passed += $(i - 1)
            if ($i ~ /^failed/) failed += $(i - 1)
            if ($i ~ /^(ignored|skipped)/) ignored += $(i - 1)
        }
    }
    /^== / { group = $2 }
    match($0, /skip: [^:]/) && !seen[group, substr($0, RSTART)]++ { skips[++n] = substr($0, RSTART) }
    END {
        early = n > ignored ? n - ignored : 0
        if (n) print "\nskipped:"
        for (i = 1; i <= n; i++) print "  " substr(skips[i], 7)
        if (ignored > n) print "  and " ignored - n " marked #[ignore]"
        skipped = n > ignored ? n : ignored
        printf "%d passed, %d failed, %d skipped\n", passed - early, failed, skipped
    }'
