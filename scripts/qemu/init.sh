#!/bin/busybox sh
# shellcheck shell=dash
# /init of the virtual machine that scripts/qemu.sh starts: the host's files, the disks, then the command.
# It runs before anything of the host can be seen, so it has busybox and nothing else.
export PATH=/bin

fail() {
  echo "init: $*" >&2
  reboot -f # with -no-reboot, that ends QEMU, at no need for ACPI
}

mkdir -p /proc /sys /dev /host /memory /root
mount -t devtmpfs dev /dev
mount -t proc proc /proc

# In the order of their dependencies.
while read -r module; do insmod "/modules/$module" || fail "no $module"; done </modules/order

# What the host has is only looked at: all changes go to memory, and are gone with the machine.
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 host /host || fail 'no files of the host'
mount -t tmpfs memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work root /root || fail 'no overlay'

mount -t devtmpfs dev /root/dev
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs shm /root/dev/shm
mount -t proc proc /root/proc
mount -t sysfs sys /root/sys
mount -t cgroup2 cgroup /root/sys/fs/cgroup
mount -t tmpfs run /root/run

mkdir -p /root/run/vm /root/mnt/quota-ext4 /root/mnt/quota-xfs
mount -t 9p -o trans=virtio,version=9p2000.L,cache=none vm /root/run/vm || fail 'no directory for the command'
mount -t ext4 -o prjquota /dev/vda /root/mnt/quota-ext4 || fail 'no quotas on ext4'
mount -t xfs -o prjquota /dev/vdb /root/mnt/quota-xfs || fail 'no quotas on xfs'

# A real change of root, not a chroot, in which the kernel would make no namespaces.
cp /bin/busybox /root/run/busybox
umount /proc
# shellcheck disable=SC2016 # expanded by that shell
exec switch_root /root /run/busybox sh -c '
  set -- /dev/vport*
  env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root bash /run/vm/command >"$1" 2>&1 </dev/null
  echo "$?" >/run/vm/status
  exec /run/busybox reboot -f
'
