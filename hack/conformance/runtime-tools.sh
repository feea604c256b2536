#!/usr/bin/env bash
# Runs the OCI runtime-tools validation against a runtime: hack/conformance/runtime-tools.sh SUITE [RUNTIME [NAME...]]
#
# SUITE is the tree of opencontainers/runtime-tools with `make runtimetest validation-executables` done;
# RUNTIME defaults to the built creel; NAME is a directory of validation/. Needs root. The TAP of every
# program stays in $LOGS (default: a new directory). Prints passed, failed and skipped by program, then
# the failed points; ends 1 if any failed.
set -euo pipefail

suite=$(realpath "${1:?the directory of the suite}")
runtime=$(realpath "${2:-$("$(dirname "$0")"/../build.sh --dir)/creel}")
shift $(($# < 2 ? $# : 2))
logs=${LOGS:-$(mktemp -d)}
mkdir -p "$logs"
logs=$(realpath "$logs")
[ -x "$runtime" ] || { echo "$0: no runtime at $runtime" >&2; exit 2; }
# The programs find runtimetest and the root file system's tarball where they are started.
cd "$suite"
if [ $# -eq 0 ]; then
    set -- validation/*/*.t
    set -- "${@%/*}"
    set -- "${@#validation/}"
fi

for name; do
    # linux_ns_itype mounts: none of it may reach the host.
    RUNTIME=$runtime timeout "${TIMEOUT:-120}" unshare -m --propagation private \
        "validation/$name/$name.t" </dev/null >"$logs/$name.tap" 2>"$logs/$name.err" || echo "# exit code $?" >>"$logs/$name.tap"
done

cd "$logs"
printf '%-36s %6s %6s %7s\n' program passed failed skipped
for name; do
    awk -v name="$name" '
        tolower($0) ~ /^(not )?ok .*# *skip/ { skipped++; next }
        /^ok / { passed++ }
        /^not ok / { failed++ }
        /^# exit code / { ended = 1 }
        /"error": "./ { said = 1 }
        END { # one that died without a failed point, or made none and told of an error, has failed too
            if (!failed && (ended || said && !passed)) failed = 1
            printf "%-36s %6d %6d %7d\n", name, passed, failed, skipped
        }' "$name.tap"
done | awk '{ print; p += $2; f += $3; s += $4 } END { printf "%-36s %6d %6d %7d\n", "total", p, f, s; exit f > 0 }' && rc=0 || rc=1
for name; do
    grep -q '^ok ' "$name.tap" || sed -n "s/^ *\"error\": \"\(.\{1,150\}\).*/$name: \1/p" "$name.tap"
    sed -n "s/^not ok [0-9]* -* */$name: /p; s/^\(# exit code \)/$name: \1/p" "$name.tap"
done
printf 'logs: %s\n' "$logs"
exit "$rc"
