#!/usr/bin/env bash
# Installs the Debian packages Everhold needs. Idempotent, and silent and fast when nothing is missing.
# usage: scripts/setup.sh [build|demo|test|bench|lint]      (default: test)
#
# It starts and enables no service. On a machine with systemd, Debian's docker.io package starts Docker by itself.
set -euo pipefail
cd "$(dirname "$0")/.."

goal=${1:-test}
build=(gcc libc6-dev make pkg-config)
# e2fsprogs, xfsprogs: make, check and grow volumes. debootstrap, busybox-static: images for Docker without a registry.
demo=(e2fsprogs xfsprogs util-linux mount debootstrap busybox-static ca-certificates)
# lsof: the tests compare `volume holders` with it. btrfs-progs: pools on another file system.
# skopeo: another program that reads images of backups.
# kmod: modules for the virtual machine of scripts/qemu.sh, which fetches its kernel and QEMU without installing them.
test=(acl attr btrfs-progs lsof kmod procps skopeo)

case $goal in
  build) wanted=("${build[@]}") ;;
  demo) wanted=("${build[@]}" "${demo[@]}") ;;
  test) wanted=("${build[@]}" "${demo[@]}" "${test[@]}") ;;
  bench) wanted=("${build[@]}" "${demo[@]}" "${test[@]}" curl fio jq restic postgresql-15 postgresql-contrib) ;;
  lint) wanted=(shellcheck) ;;
  *) echo "usage: $0 [build|demo|test|bench|lint]" >&2; exit 2 ;;
esac

has() { PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" command -v "$1" >/dev/null; }

# Docker may come from elsewhere, and docker.io would push such packages out: what counts is the commands.
case $goal in demo | test | bench)
  { has dockerd && has docker && has containerd; } || wanted+=(docker.io)
  # Where the kernel enforces AppArmor, no container starts without its parser (docker.io only recommends it).
  if grep -qs Y /sys/module/apparmor/parameters/enabled && ! has apparmor_parser; then wanted+=(apparmor); fi
esac
case $goal in test | bench) has docker-compose || wanted+=(docker-compose) ;; esac

missing=()
for package in "${wanted[@]}"; do
  [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done

if ((${#missing[@]})); then
  root=()
  if ((EUID != 0)); then
    if ! has sudo; then
      echo "$0: these packages are missing: ${missing[*]}" >&2
      echo "$0: run it as root, or install sudo" >&2
      exit 1
    fi
    root=(sudo)
  fi
  echo "Installing Debian packages: ${missing[*]}"
  # Benchmarks use the programs of PostgreSQL; a cluster (and its service) on the host is nobody's wish.
  # The setting is there only while we install.
  no_cluster=/etc/postgresql-common/createcluster.d/everhold.conf
  if [[ $goal == bench ]]; then
    trap '"${root[@]}" rm -f "$no_cluster"' EXIT
    "${root[@]}" mkdir -p "${no_cluster%/*}"
    echo 'create_main_cluster = false' | "${root[@]}" tee "$no_cluster" >/dev/null
  fi
  # Not -E: apt needs nothing of the caller's. --no-remove: never at the price of somebody's package.
  "${root[@]}" apt-get -qq update
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq --yes --no-install-recommends --no-remove -o Dpkg::Use-Pty=0 install "${missing[@]}" >/dev/null
fi

[[ $goal != lint ]] || exit 0

# Debian 12's own cargo is too old for this workspace and says so only in riddles.
need=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml)
have=$(cargo --version 2>/dev/null | cut -d' ' -f2 || true)
if [[ -z $have ]] || ! printf '%s\n' "$need" "$have" | sort --check=quiet --version-sort; then
  echo "$0: needs cargo $need or newer, found ${have:-none}." >&2
  echo "$0: get it with rustup (rustup update stable); under sudo, keep PATH: sudo -E env PATH=\"\$PATH\" make …" >&2
  exit 1
fi
