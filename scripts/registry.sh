#!/usr/bin/env bash
# Prints Debian's docker-registry: the one that is installed, or else unpacked into target/tools, as installing it
# would start a service on a host with systemd.
#   usage: scripts/registry.sh
set -euo pipefail
source "$(dirname "$0")/lib.sh"
if command -v docker-registry >/dev/null; then
  command -v docker-registry
  exit
fi
if [[ ! -x $tools/registry/usr/bin/docker-registry ]]; then
  say "unpacking Debian's docker-registry" >&2
  rm -rf "$tools/registry.part" && mkdir -p "$tools/registry.part/debs"
  apt-get update -qq >&2
  (cd "$tools/registry.part/debs" && apt-get download -qq docker-registry >&2)
  for deb in "$tools"/registry.part/debs/*.deb; do dpkg -x "$deb" "$tools/registry.part"; done
  rm -rf "$tools/registry.part/debs" "$tools/registry" && mv "$tools/registry.part" "$tools/registry"
fi
echo "$tools/registry/usr/bin/docker-registry"
