#!/usr/bin/env bash
# Runs the benchmarks and writes bench/RESULTS.md.
#   usage: [NEWER_DOCKER='FOLDER[:BACKEND] ...'] bench/run.sh [ROUNDS]
# Beside Debian's Docker they measure a newer one: that of Debian sid, or those of NEWER_DOCKER ('' for none).
set -euo pipefail
source "$(dirname "$0")/../scripts/lib.sh"
need_root
cd "$root"
scripts/packages.sh run test
scripts/images.sh busybox
scripts/docker.sh >/dev/null

common=(--docker "$(scripts/docker.sh client)" --portolan "$target/release/portolan" --image "$cache/busybox.tar")
rounds=${1:-15}
[[ -v NEWER_DOCKER ]] || NEWER_DOCKER=$(scripts/docker.sh newer)
read -ra newer <<<"$NEWER_DOCKER"
peers=("$tools/docker/usr" "${newer[@]}")
dockers=(--tools "${peers[0]}" "${newer[@]/#/--newer=}")

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

section latency bench/latency.py --rounds "$rounds" "${dockers[@]}" "${common[@]}"
section ports bench/ports.py --rounds "$((rounds / 2 + 1))" "${dockers[@]}" "${common[@]}"
section storm bench/storm.py "${common[@]}"
section memory bench/memory.py "${peers[@]/#/--tools=}" "${common[@]}"
