#!/usr/bin/env bash
# Installs the Debian packages that a purpose needs: build, run, images or test.
#   usage: scripts/packages.sh PURPOSE...
set -euo pipefail
source "$(dirname "$0")/lib.sh"
for purpose in "$@"; do
  case $purpose in
    build) packages gcc libc6-dev ;;
    run) packages iproute2 nftables curl ;;
    images) packages mmdebstrap busybox-static ;;
    test) packages busybox-static iproute2 nftables iptables bridge-utils net-tools curl bsdutils procps python3 runc strace skopeo openssl dnsmasq-base socat
      # Where services start when they are installed, this would change the machine's own firewall.
      [[ -d /run/systemd/system ]] || packages dbus firewalld python3-nftables ;;
    *) die "unknown purpose: $purpose" ;;
  esac
done
