#!/usr/bin/env bash
# Runs a command under Debian's own kernel, in a virtual machine: for what the kernel at hand was built without (the
# quota formats of ext4) or gives to nobody (CAP_SYS_RESOURCE in a container, which ext4 asks for to grow while in use).
# usage: scripts/qemu.sh build                                 fetches and prepares what is missing or outdated
#        scripts/qemu.sh run [--limit SECONDS] -- COMMAND…     runs it, at most 240 seconds unless told otherwise
#
# COMMAND runs as root with all capabilities, with no network and a short environment, in the directory it was called in.
# It sees this machine's files and may change them as it likes: the changes are gone afterwards. /mnt/quota-ext4 and
# /mnt/quota-xfs are file systems of 2 GiB with project quotas. The output is the command's, and so is the exit code; 124
# is the limit's, 125 says that the machine did not come up or broke down.
#
# Kernel and QEMU come from Debian's packages, unpacked in ${EVERHOLD_CACHE:-${XDG_CACHE_HOME:-~/.cache}/everhold}/qemu and
# not installed: a kernel in /boot is nobody's wish, QEMU's package may not get along with others that are there, and so
# no root is needed.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${EVERHOLD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/everhold}
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" # depmod, mkfs.ext4: a user of Debian has no sbin

# What the machine needs until it sees its disks and our files, and the file systems; its kernel finds no modules later.
modules=(virtio_pci virtio_blk virtio_console 9pnet_virtio 9p overlay loop crc32c_generic ext4 xfs quota_v2)
applets=(cp insmod mkdir mount reboot sh switch_root umount)

work=
machine=
clean_up() {
  if [[ -n $machine ]]; then
    # Nothing to end is what we want.
    kill "$machine" 2>/dev/null || true
    wait "$machine" || true
  fi
  [[ -z $work ]] || rm -rf --one-file-system "$work"
}
trap clean_up EXIT

# Downloads Debian packages to the present directory. Not as _apt, who can't write there.
download() { apt-get -qq -o APT::Sandbox::User=root download "$@"; }

# The package of the newest kernel of this Debian; nothing while apt has no lists.
kernel_package() {
  apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1
}

# QEMU and those libraries that it needs and this machine hasn't got.
qemu_packages() {
  apt-get -s --no-install-recommends install qemu-system-x86 | awk '$1 == "Inst" { print $2 }'
}

fetch() {
  local kernel
  mkdir -p debs && cd debs || return
  kernel=$(kernel_package) || return
  [[ -n $kernel ]] || { echo 'apt knows no package linux-image-amd64' >&2; return 1; }
  download "$kernel" || return
  command -v qemu-system-x86_64 >/dev/null && return
  qemu_packages >list && mapfile -t list <list && download "${list[@]}"
}

make_machine() {
  local deb version module path
  # Without lists, or with lists so old that the packages in them are gone, apt says so in riddles.
  if ! (fetch) 2>log; then
    ((EUID == 0)) || { cat log >&2; echo "$0: run apt-get update as root, then try again" >&2; return 1; }
    apt-get -qq update
    (fetch)
  fi
  mkdir qemu kernel initramfs initramfs/{bin,modules}
  for deb in debs/*.deb; do
    if [[ $deb == debs/linux-image-* ]]; then dpkg -x "$deb" kernel; else dpkg -x "$deb" qemu; fi
  done
  version=$(ls kernel/lib/modules)
  cp "kernel/boot/vmlinuz-$version" vmlinuz

  depmod --basedir kernel "$version"
  for module in "${modules[@]}"; do
    modprobe --dirname kernel --set-version "$version" --show-depends "$module" >>insmod
  done
  # Lines like "insmod PATH"; what two modules depend on is there twice.
  awk '$1 == "insmod" && !seen[$2]++ { print $2 }' insmod | while read -r path; do
    cp "$path" initramfs/modules
    echo "${path##*/}" >>initramfs/modules/order
  done
  cp /bin/busybox initramfs/bin
  for module in "${applets[@]}"; do ln -s busybox "initramfs/bin/$module"; done
  install -m 0755 "$here/qemu/init.sh" initramfs/init
  (cd initramfs && find . | LC_ALL=C sort | busybox cpio -o -H newc) >initrd 2>log || { cat log >&2; return 1; }
  rm -rf debs kernel initramfs insmod log
}

# What the machine depends on, as one short hash. A newer kernel in Debian is no reason to make it again.
recipe() {
  {
    declare -f fetch kernel_package qemu_packages make_machine
    echo "${modules[*]} ${applets[*]}"
    cat "$here/qemu/init.sh"
    dpkg-query --show busybox-static
    command -v qemu-system-x86_64 || true
  } | sha256sum | cut -c1-16
}

# Makes $cache/qemu unless it is there and current.
build() {
  local hash
  if [[ $(dpkg --print-architecture) != amd64 ]]; then
    echo "$0: for amd64 only: the machine runs the programs of this one" >&2
    return 1
  fi
  mkdir -p "$cache"
  exec 9>"$cache/qemu.lock" && flock 9
  hash=$(recipe)
  if [[ $(cat "$cache/qemu/recipe" 2>/dev/null) != "$hash" ]]; then
    echo "Building $cache/qemu …" >&2
    work=$(mktemp -d "$cache/build.XXXXXX")
    # Not in a condition: there, an error would not end it.
    (cd "$work"; make_machine)
    echo "$hash" >"$work/recipe"
    rm -rf "$cache/qemu"
    mv "$work" "$cache/qemu"
    work=
  fi
  exec 9>&-
}

run() {
  local limit=$1 qemu out reader code=0
  shift
  build
  qemu=$(command -v qemu-system-x86_64) || qemu=$cache/qemu/qemu/usr/bin/qemu-system-x86_64
  work=$(mktemp -d)
  mkdir "$work/vm"
  {
    printf 'cd %q || exit 125\nexec' "$PWD"
    printf ' %q' "$@"
  } >"$work/vm/command"
  # From here on paths are relative: a comma in one would be a separator to QEMU.
  cd "$work"
  truncate -s 2G ext4 xfs
  mkfs.ext4 -q -O quota,project -E quotatype=prjquota ext4
  mkfs.xfs -q xfs

  # Through a pipe: QEMU opens its output anew, which would truncate a file of the caller's.
  exec {out}> >(exec cat)
  reader=$!
  # setpriv: nothing survives this script, not even when it is killed. Without KVM, though it is slower: inside of another
  # virtual machine it may be there and not work, and the tests should find the same everywhere.
  LD_LIBRARY_PATH=$cache/qemu/qemu/usr/lib/x86_64-linux-gnu \
    setpriv --pdeathsig TERM timeout --kill-after=5 "$limit" "$qemu" \
    -nodefaults -no-user-config -display none -no-reboot -machine pc,accel=tcg -cpu max -smp 2 -m 1024 \
    -kernel "$cache/qemu/vmlinuz" -initrd "$cache/qemu/initrd" -append 'console=ttyS0 quiet mitigations=off oops=panic panic=-1' \
    -serial file:console \
    -fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap -device virtio-9p-pci,fsdev=host,mount_tag=host \
    -fsdev local,id=vm,path=vm,security_model=none -device virtio-9p-pci,fsdev=vm,mount_tag=vm \
    -drive if=none,id=ext4,format=raw,file=ext4,cache=unsafe,discard=unmap -device virtio-blk-pci,drive=ext4 \
    -drive if=none,id=xfs,format=raw,file=xfs,cache=unsafe,discard=unmap -device virtio-blk-pci,drive=xfs \
    -chardev file,id=out,path=/dev/stdout -device virtio-serial-pci -device virtserialport,chardev=out \
    </dev/null 1>&"$out" 2>errors &
  machine=$!
  exec {out}>&-
  wait "$machine" || code=$?
  machine=
  wait "$reader"

  if [[ -s vm/status ]]; then
    code=$(<vm/status)
  elif ((code == 124)); then
    echo "$0: not finished within $limit s" >&2
  else
    echo "$0: the machine broke down" >&2
    code=125
  fi
  # The kernel's warnings are no news while all is well.
  if ((code)); then sed '/reboot: Restarting system/d' console errors 2>/dev/null | tail -n 40 >&2; fi
  return "$code"
}

usage() {
  sed -n '4,5s/^# //p' "$0" >&2
  exit 2
}

case ${1:-} in
  build)
    (($# == 1)) || usage
    build
    ;;
  run)
    shift
    limit=240
    if [[ ${1:-} == --limit ]]; then
      limit=${2:?how many seconds?}
      shift 2
    fi
    [[ ${1:-} == -- && $# -ge 2 ]] || usage
    shift
    run "$limit" "$@"
    ;;
  *) usage ;;
esac
