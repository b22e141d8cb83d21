#!/bin/busybox sh
# /init of the virtual machine that scripts/qemu.sh starts: the host's files, the disks, then the command.
# It runs before anything of the host can be seen, so it has busybox and nothing else.
export PATH=/bin
/bin/busybox --install /bin

fail() {
  echo "init: $*" >&2
  reboot -f
}

mkdir -p /proc /sys /dev
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys

# In the order of their dependencies. One that the machine has no hardware for is missed further down, if at all.
for module in $(cat /modules/order); do insmod "/modules/$module"; done

# What the host has is only looked at: all changes go to memory, and are gone with the machine.
mkdir -p /host /memory /root
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 host /host || fail "no 9p"
mount -t tmpfs memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work root /root || fail "no overlay"

# The host's own are empty directories to 9p.
for at in dev proc sys; do mount --move "/$at" "/root/$at"; done
mount -t tmpfs run /root/run
mkdir -p /root/dev/pts /root/dev/shm /root/run/vm /root/mnt/quota-ext4 /root/mnt/quota-xfs
mount -t devpts devpts /root/dev/pts
mount -t tmpfs shm /root/dev/shm
mount -t cgroup2 cgroup /root/sys/fs/cgroup
mount -t 9p -o trans=virtio,version=9p2000.L,cache=none vm /root/run/vm || fail "no 9p for the command"
mount -t ext4 -o prjquota /dev/vda /root/mnt/quota-ext4 || fail "no quota on ext4"
mount -t xfs -o prjquota /dev/vdb /root/mnt/quota-xfs || fail "no quota on xfs"

chroot /root /bin/bash /run/vm/command >/dev/vport0p1 2>&1 </dev/null
echo "$?" >/root/run/vm/status
sync
reboot -f
