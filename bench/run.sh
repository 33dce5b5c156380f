#!/usr/bin/env bash
# Runs the benchmarks and writes bench/RESULTS.md.
#   usage: bench/run.sh [ROUNDS]
set -euo pipefail
source "$(dirname "$0")/../scripts/lib.sh"
need_root
cd "$root"
scripts/packages.sh run test
scripts/images.sh busybox
scripts/docker.sh >/dev/null

common=(--docker "$(scripts/docker.sh client)" --portolan "$target/release/portolan" --image "$cache/busybox.tar")
rounds=${1:-15}

# section NAME PROGRAM...: its output becomes what is between the marks of that name in RESULTS.md.
section() {
  local name=$1
  shift
  say "$name"
  "$@" | tee "$target/$name.md"
  {
    sed "/^<!-- $name -->\$/q" bench/RESULTS.md
    cat "$target/$name.md"
    sed -n "/^<!-- end $name -->\$/,\$p" bench/RESULTS.md
  } >"$target/RESULTS.md"
  mv "$target/RESULTS.md" bench/RESULTS.md
}

section latency bench/latency.py --rounds "$rounds" --tools "$tools/docker/usr" "${common[@]}"
# A newer Docker beside it: NEWER_DOCKER=<folder of an unpacked docker.io>/usr.
section ports bench/ports.py --rounds "$((rounds / 2 + 1))" --tools "$tools/docker/usr" \
  ${NEWER_DOCKER:+--newer "$NEWER_DOCKER"} "${common[@]}"
section storm bench/storm.py "${common[@]}"
