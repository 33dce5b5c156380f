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
bench/latency.py --rounds "${1:-15}" --tools "$tools/docker/usr" --docker "$(scripts/docker.sh client)" \
  --portolan "$target/release/portolan" --image "$cache/busybox.tar" | tee "$target/latency.md"
{
  sed '/^<!-- latency -->$/q' bench/RESULTS.md
  cat "$target/latency.md"
  sed -n '/^<!-- end latency -->$/,$p' bench/RESULTS.md
} >"$target/RESULTS.md"
mv "$target/RESULTS.md" bench/RESULTS.md
