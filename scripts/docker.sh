#!/usr/bin/env bash
# Unpacks Debian's docker.io (client and engine) and what it runs on into target/tools, without
# installing it: nothing is started on the host and no service is added.
# Prints the folder of the programs; with `client`, prints the docker client to use, which is the one on
# the PATH if there is one.
#   usage: scripts/docker.sh [client]
set -euo pipefail
source "$(dirname "$0")/lib.sh"
if [[ ${1:-} == client ]] && command -v docker >/dev/null; then
  command -v docker
  exit
fi
if [[ ! -x $tools/docker/usr/sbin/dockerd ]]; then
  say "unpacking Debian's docker.io" >&2
  rm -rf "$tools/docker.part" && mkdir -p "$tools/docker.part/debs"
  apt-get update -qq >&2
  (cd "$tools/docker.part/debs" && apt-get download -qq docker.io containerd runc tini >&2)
  for deb in "$tools"/docker.part/debs/*.deb; do dpkg -x "$deb" "$tools/docker.part"; done
  rm -rf "$tools/docker.part/debs" "$tools/docker" && mv "$tools/docker.part" "$tools/docker"
fi
if [[ ${1:-} == client ]]; then echo "$tools/docker/usr/bin/docker"; else echo "$tools/docker/usr"; fi
