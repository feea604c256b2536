#!/usr/bin/env bash
# Runs runc's integration suite against a runtime: hack/conformance/runc-integration.sh SUITE [RUNTIME [FILE.bats...]]
#
# SUITE is runc's tree at a release, with `make test-binaries` done and the images that
# tests/integration/get-images.sh names in place; RUNTIME defaults to the built creel. Needs root,
# bats 1.8, jq, gawk and go in PATH; for checkpoint.bats a CRIU that fits the kernel. Some tests wait for
# orphans to be reaped: where process 1 is slow at that, run this under `tini -s`. The TAP of every file
# stays in $LOGS (default: a new directory). Prints passed, failed and skipped by file, then the failed
# tests by name; ends 1 if any failed.
set -euo pipefail

suite=$(realpath "${1:?the directory of the suite}")
runtime=$(realpath "${2:-$("$(dirname "$0")"/../build.sh --dir)/creel}")
shift $(($# < 2 ? $# : 2))
logs=${LOGS:-$(mktemp -d)}
mkdir -p "$logs"
[ -x "$runtime" ] || { echo "$0: no runtime at $runtime" >&2; exit 2; }
cd "$suite/tests/integration"
[ $# -gt 0 ] || set -- *.bats

# The suite mounts; none of it may reach the host. setsid gives script(1) a terminal of its own,
# which tests of `--tty` need, whatever this runs under. BATS_TEST_TIMEOUT is of no use here: its
# watchdog is a child of the test, and tests that `wait` for their children wait for it. An end of
# file on script's standard input would show as a character of the terminal: the pipe has none.
scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT
pipe=$scratch/pipe
mkfifo "$pipe"
# As it is installed in runc's place: `-h` and `--version` tell the name.
chmod 755 "$scratch"
ln -s "$runtime" "$scratch/runc"
for file; do
    log=$logs/${file%.bats}.tap
    RUNC=$scratch/runc timeout "${TIMEOUT:-900}" unshare -m --propagation private setsid -w \
        script -qec "bats --tap $(printf %q "$file")" "$log.raw" <>"$pipe" >/dev/null || true
    tr -d '\r' <"$log.raw" >"$log" && rm "$log.raw"
done

cd "$logs"
printf '%-32s %6s %6s %7s\n' file passed failed skipped
for file; do
    awk -v name="$file" '
        /^1\.\.[0-9]+/ { planned = substr($1, 4) }
        /^ok .* # skip/ { skipped++; next }
        /^ok / { passed++ }
        /^not ok / { failed++ }
        END { # a file that died half-way counts what it did not run as failed
            failed += planned - passed - failed - skipped
            if (!planned) failed = 1
            printf "%-32s %6d %6d %7d\n", name, passed, failed, skipped
        }' "${file%.bats}.tap"
done | awk '{ print; p += $2; f += $3; s += $4 } END { printf "%-32s %6d %6d %7d\n", "total", p, f, s; exit f > 0 }' && rc=0 || rc=1
for file; do
    sed -n "s/^not ok [0-9]* /${file%.bats}: /p" "${file%.bats}.tap"
done
printf 'logs: %s\n' "$logs"
exit "$rc"
