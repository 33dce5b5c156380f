#!/usr/bin/env bash
# Unpacks Debian's docker.io (client and engine) and what it runs on into target/tools, without
# installing it: nothing is started on the host and no service is added.
# Prints the folder of the programs; with `client`, prints the docker client to use, which is the one on
# the PATH if there is one; with `newer`, unpacks the engine of Debian's SUITE (default sid) instead, from
# the archive that this machine's apt uses, whose own configuration stays as it is.
#   usage: scripts/docker.sh [client | newer [SUITE]]
set -euo pipefail
source "$(dirname "$0")/lib.sh"

# unpack FOLDER: the packages in FOLDER/debs, in their place.
unpack() {
  local deb
  for deb in "$1"/debs/*.deb; do dpkg -x "$deb" "$1"; done
  rm -rf "$1/debs"
}

# apt_for SUITE FOLDER: has apt-get work with the suite alone, with its state in the folder.
apt_for() {
  local archive
  # shellcheck disable=SC2016
  archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -1)
  [[ -n $archive ]] || die "apt has no Debian archive to take the suite $1 from"
  mkdir -p "$2"/{none,state/lists/partial,cache/archives/partial}
  : >"$2/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $1 main" >"$2/sources.list"
  cat >"$2/apt.conf" <<CONF
Dir::Etc::SourceList "$2/sources.list";
Dir::Etc::SourceParts "$2/none";
Dir::Etc::PreferencesParts "$2/none";
Dir::State "$2/state";
Dir::State::status "$2/status";
Dir::Cache "$2/cache";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
#clear APT::Update::Post-Invoke-Success;
CONF
  export APT_CONFIG=$2/apt.conf
}

# newer SUITE: prints the folder of its programs.
newer() {
  local suite=$1 into=$tools/docker-$1 part=$tools/docker-$1.part program libraries
  if [[ ! -d $into ]]; then
    say "unpacking docker.io of Debian $suite" >&2
    packages patchelf >&2
    rm -rf "$part" && mkdir -p "$part/debs"
    (
      apt_for "$suite" "$part/apt"
      apt-get update -qq >&2
      cd "$part/debs"
      apt-get download -qq -o APT::Sandbox::User=root docker.io containerd runc tini-static libc6 libseccomp2 libsystemd0 libcap2 >&2
    )
    rm -rf "$part/apt"
    unpack "$part"
    # What this machine's libraries are too old for gets those that came with it, by their final path.
    libraries=$(cd "$part" && dirname usr/lib/*/libc.so.6)
    for program in "$part"/usr/{bin,sbin}/{dockerd,docker-proxy,containerd,containerd-shim-runc-v2,runc}; do
      [[ -f $program ]] && ldd "$program" 2>&1 | grep -q 'not found' || continue
      patchelf --set-interpreter "$into/$libraries/$(basename "$(patchelf --print-interpreter "$program")")" \
        --set-rpath "$into/$libraries" "$program"
    done
    mv "$part" "$into"
  fi
  echo "$into/usr"
}

case ${1:-} in
  newer)
    newer "${2:-sid}"
    exit
    ;;
  client) if command -v docker; then exit; fi ;;
esac
if [[ ! -x $tools/docker/usr/sbin/dockerd ]]; then
  say "unpacking Debian's docker.io" >&2
  rm -rf "$tools/docker.part" && mkdir -p "$tools/docker.part/debs"
  apt-get update -qq >&2
  (cd "$tools/docker.part/debs" && apt-get download -qq docker.io containerd runc tini >&2)
  unpack "$tools/docker.part"
  rm -rf "$tools/docker" && mv "$tools/docker.part" "$tools/docker"
fi
if [[ ${1:-} == client ]]; then echo "$tools/docker/usr/bin/docker"; else echo "$tools/docker/usr"; fi
