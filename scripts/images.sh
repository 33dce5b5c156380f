#!/usr/bin/env bash
# Builds the images of the demo and the tests from Debian packages, as tar files in target/images:
#   busybox.tar  Debian's static busybox with a link for each applet
#   nginx.tar    Debian's nginx with bash, ip, ifconfig and route
# No registry is needed. What is there already is kept.
#   usage: scripts/images.sh [busybox|nginx ...]
set -euo pipefail
source "$(dirname "$0")/lib.sh"
need_root
mkdir -p "$cache"

build_busybox() {
  local dir applet
  dir=$(mktemp -d)
  mkdir -p "$dir"/{bin,dev,etc,proc,root,run,sys,tmp,var/www}
  chmod 1777 "$dir/tmp"
  cp "$(command -v busybox)" "$dir/bin/busybox"
  while read -r applet; do
    [[ $applet == busybox ]] || ln -s busybox "$dir/bin/$applet"
  done < <("$dir/bin/busybox" --list)
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$dir/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$dir/etc/group"
  tar -C "$dir" --owner=0 --group=0 -cf "$1" .
  rm -rf "$dir"
}

build_nginx() {
  local sources=/etc/apt/sources.list
  [[ ! -s /etc/apt/sources.list.d/debian.sources ]] || sources=/etc/apt/sources.list.d/debian.sources
  # shellcheck disable=SC1091
  mmdebstrap --quiet --format=tar --variant=minbase --include=nginx-light,net-tools,iproute2 \
    --aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$(source /etc/os-release && echo "$VERSION_CODENAME")" "$1" "$sources"
}

for image in "${@:-busybox nginx}"; do
  for name in $image; do
    [[ -f $cache/$name.tar ]] && continue
    "$root/scripts/packages.sh" images
    say "building the $name image from Debian packages"
    "build_$name" "$cache/$name.tar.part"
    mv "$cache/$name.tar.part" "$cache/$name.tar"
  done
done
