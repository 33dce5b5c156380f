#!/usr/bin/env bash
# The story of the reference document, told by a real engine in a network namespace of its own: five
# network modes, names, published ports, how packets leave and arrive. Cleans up after itself.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
need_root
"$root/scripts/packages.sh" run >&2
"$root/scripts/images.sh"
portolan=${PORTOLAN_BIN:-$target/release/portolan}
[[ -x $portolan ]] || die 'build first: make build'

ns=portolan-demo-$$
home=$(mktemp -d /tmp/portolan-demo.XXXXXX)
export PORTOLAN_HOST=unix://$home/portolan.sock
host=(nsenter "--net=/run/netns/$ns" --)
daemon=

finish() {
  local status=$?
  trap - EXIT INT TERM
  if [[ -n $daemon ]]; then
    # shellcheck disable=SC2046
    "$portolan" rm -f $("$portolan" ps -aq 2>/dev/null) >/dev/null 2>&1 || true
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
  fi
  ((status == 0)) || { echo '--- the engine said'; tail -n 20 "$home/log" 2>/dev/null || true; }
  ip netns del "$ns" 2>/dev/null || true
  ip netns del "$ns-out" 2>/dev/null || true
  awk -v home="$home/" 'index($2, home) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount -l 2>/dev/null || true
  rm -rf "$home"
  exit $status
}
trap finish EXIT INT TERM

# run COMMAND...: shows a portolan command and runs it.
run() { printf '\033[32m$ portolan %s\033[0m\n' "$*"; "$portolan" "$@"; }
# on_host COMMAND...: shows a command of the host and runs it there.
on_host() { printf '\033[36mhost$ %s\033[0m\n' "$*"; "${host[@]}" "$@"; }

say 'A host of its own (a network namespace), a neighbour, and the engine'
ip netns add "$ns" && ip netns add "$ns-out"
"${host[@]}" ip link set lo up
ip -n "$ns" link add up0 type veth peer name up0 netns "$ns-out"
ip -n "$ns" address add 198.51.100.1/24 dev up0 && ip -n "$ns" link set up0 up
ip -n "$ns-out" address add 198.51.100.2/24 dev up0 && ip -n "$ns-out" link set up0 up
"${host[@]}" "$portolan" daemon --host "$PORTOLAN_HOST" --data-root "$home/data" --exec-root "$home/exec" \
  --pidfile "$home/pid" >"$home/log" 2>&1 &
daemon=$!
for _ in $(seq 500); do "$portolan" version >/dev/null 2>&1 && break; sleep 0.01; done
run version --format '{{.Server.Version}}, API {{.Server.APIVersion}}'
run import -c 'CMD ["sh"]' "$cache/busybox.tar" busybox:latest
run import -c 'CMD ["nginx", "-g", "daemon off;"]' -c 'EXPOSE 80' "$cache/nginx.tar" nginx:latest

say '1.1 bridge: docker0, a veth pair and an address for each container'
run run -tid --net=bridge --name docker_bri1 nginx
run run -tid --net=bridge --name docker_bri2 nginx
on_host ip -br address
run exec docker_bri1 ip -br address
run exec docker_bri1 ip route

say 'A published port is a DNAT rule, and reached from outside'
run run -d --name docker_pub -p 18080:80 nginx
on_host nft list map inet portolan published 2>/dev/null || on_host nft list ruleset | grep -F 18080
printf '\033[36mneighbour$ curl http://198.51.100.1:18080/\033[0m\n'
nsenter "--net=/run/netns/$ns-out" curl -sS -m 5 --retry 10 --retry-connrefused --retry-delay 1 http://198.51.100.1:18080/ | grep -i title
run port docker_pub

say '1.2 host: the host'"'"'s own network'
run run -itd --net=host --name docker_host busybox
run exec docker_host ifconfig docker0

say '1.3 container: two containers, one network'
run run -itd --name cmz busybox
run run -tid --net=container:cmz --name docker_con1 busybox
run exec cmz ifconfig eth0
run exec docker_con1 ifconfig eth0

say '1.3 none: lo and nothing else'
run run -tid --net=none --name docker_non1 busybox
run exec docker_non1 ifconfig -a

say 'A network of one'"'"'s own: containers find each other by name'
run network create cmz_network
run run -itd --name web1 --net=cmz_network busybox
run run -itd --name db1 --net=cmz_network busybox
run exec web1 ping -c1 db1
run exec db1 cat /etc/hosts
run network inspect cmz_network
printf '\033[32m$ portolan exec cmz ping -c1 -W1 172.18.0.3    # from another network\033[0m\n'
"$portolan" exec cmz ping -c1 -W1 172.18.0.3 >/dev/null 2>&1 && die 'networks are not isolated' || echo 'isolated: no answer, as it should be'

say '2. Out: masqueraded. The neighbour sees the host'"'"'s address, not the container'"'"'s'
run exec web1 ping -c1 198.51.100.2

say 'The daemon is killed (-9); containers, names and ports live on'
kill -9 "$daemon"; wait "$daemon" 2>/dev/null || true
nsenter "--net=/run/netns/$ns-out" curl -sS -m 5 http://198.51.100.1:18080/ | grep -i title
"${host[@]}" "$portolan" daemon --host "$PORTOLAN_HOST" --data-root "$home/data" --exec-root "$home/exec" \
  --pidfile "$home/pid" >>"$home/log" 2>&1 &
daemon=$!
for _ in $(seq 500); do "$portolan" version >/dev/null 2>&1 && break; sleep 0.01; done
run ps
run exec web1 ping -c1 db1

say 'Clean-up: nothing is left'
# shellcheck disable=SC2046
"$portolan" rm -f $("$portolan" ps -aq) >/dev/null
run network rm cmz_network
on_host ip -br link
echo
say 'done'
