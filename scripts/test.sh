#!/usr/bin/env bash
# Runs every test and prints the totals.
#   scripts/test.sh          unit, kernel and end-to-end tests of the release binary: the docker CLI and
#                            our own as clients, nftables and iptables as backends
#   scripts/test.sh docker         the end-to-end tests on Debian's dockerd, to prove the tests, and our own
#                                  client with it
#   scripts/test.sh docker-newer   the same with the dockerd of Debian's sid
# A test that cannot run says SKIPPED and why; it is counted and named, and in CI it is a failure.
set -uo pipefail
source "$(dirname "$0")/lib.sh"
need_root
cd "$root" || exit
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
what=${1:-all}

# step NAME COMMAND...: runs a test command, keeps what it printed.
step() {
  local name=$1 start=$SECONDS
  shift
  say "$name"
  if "$@" >"$results/$name.log" 2>&1; then
    grep -E '^test result' "$results/$name.log" | sort | uniq -c | sort -rn | head -n 3
  else
    echo "$name" >>"$results/failed"
    {
      sed -nE "s/^test (.*) \.\.\. FAILED$/$name: \1/p" "$results/$name.log"
      grep -A 1 'panicked at' "$results/$name.log" | head -n 8
    } >>"$results/failures"
    sed 's/^/    | /' "$results/$name.log" | grep -vE '^    \| test .* ok$' | tail -n 200
  fi
  printf '    %d s\n' $((SECONDS - start))
}

# e2e NAME TEST...: end-to-end tests with the variables that are set.
e2e() {
  local name=$1 tests=() test
  shift
  for test in "$@"; do tests+=(--test "$test"); done
  step "$name" cargo test --locked --no-fail-fast -p portolan-e2e "${tests[@]}" -- --show-output
}

# host_state: what the host has of links, rules, mounts, namespaces and our processes.
host_state() {
  ip -br link | awk '{ print $1 }'
  nft -s list ruleset
  sort /proc/mounts
  ls /run/netns
  find /sys/fs/cgroup -type d -path '*/portolan/*'
  ls -d /tmp/portolan-demo.* 2>/dev/null
  ps -eo args | grep -E '^(portolan|[^ ]*/portolan|nginx)' | sort
}

# demo: tells the story, and shows what it leaves behind.
demo() {
  host_state >"$results/before"
  scripts/demo.sh || return
  host_state >"$results/after"
  diff "$results/before" "$results/after"
}

scripts/packages.sh build run test || exit
scripts/images.sh || exit
# Before the tests, which may ask for it several at once.
scripts/registry.sh >/dev/null || exit
export PORTOLAN_BIN=${PORTOLAN_BIN:-$target/release/portolan}
networking=(transcript networks network_keys network_options publish crash healing live_ports guard foreign
  endpoints endpoint_options default_bridge storm)

if [[ $what == docker || $what == docker-newer ]]; then
  step build cargo build --locked --release
  [[ $what == docker ]] || export PORTOLAN_E2E_DOCKER=newer
  scripts/docker.sh ${PORTOLAN_E2E_DOCKER:+newer} >/dev/null || exit
  export PORTOLAN_E2E_ENGINE=docker
  e2e dockerd
  PORTOLAN_E2E_CLIENT=portolan e2e portolan-cli-dockerd networks lifecycle publish
  unset CI
else
  scripts/docker.sh client >/dev/null || exit
  step build cargo build --locked --release
  [[ ! -s $results/failed ]] || exit 1
  step demo demo
  step unit cargo test --locked --no-fail-fast --workspace --exclude portolan-e2e -- --show-output
  PORTOLAN_E2E_CLIENT=docker PORTOLAN_E2E_FIREWALL=nftables e2e docker-cli-nftables
  PORTOLAN_E2E_CLIENT=portolan PORTOLAN_E2E_FIREWALL=nftables e2e portolan-cli-nftables
  PORTOLAN_E2E_CLIENT=docker PORTOLAN_E2E_FIREWALL=iptables e2e docker-cli-iptables "${networking[@]}"
  PORTOLAN_E2E_CLIENT=portolan PORTOLAN_E2E_FIREWALL=iptables e2e portolan-cli-iptables transcript
fi

count() { cat "$results"/*.log | sed -nE "s/^test result: .* ([0-9]+) $1;.*/\1/p" | awk '{ n += $1 } END { print n + 0 }'; }
skipped=$(grep -hiE '^skipped[: ]' "$results"/*.log | sort | uniq -c)
skips=$(grep -hciE '^skipped[: ]' "$results"/*.log | awk '{ n += $1 } END { print n + 0 }')
[[ -z $skipped ]] || { say 'skipped'; echo "$skipped"; }
failed=$(count failed)
[[ ! -s $results/failed ]] || say "failed: $(xargs <"$results/failed")"
# Once more at the end, where it is found.
[[ ! -s $results/failures ]] || sed 's/^/    | /' "$results/failures"
say 'totals'
# A test that skips itself counts as passed to cargo.
printf '%d passed, %d failed, %d skipped\n' $(($(count passed) - skips)) "$failed" "$skips"
[[ ! -s $results/failed && $failed == 0 ]] || exit 1
if [[ ${CI:-} == true && $skips != 0 ]]; then die 'a skipped test is a failure here'; fi
