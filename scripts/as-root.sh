# shellcheck shell=bash
# Sourced by the scripts that need the kernel: loop devices, mounts, debootstrap and dockerd are for root only.

# Starts the calling script again through sudo when it isn't root yet. Call it as: as_root "$@"
as_root() {
  ((EUID == 0)) && return
  if ! command -v sudo >/dev/null; then
    echo "$0: needs root: run it as root, or install sudo" >&2
    exit 1
  fi
  # -E keeps what the caller set (KEEP=1, EVERHOLD_CACHE, HOME …); sudo resets PATH whatever -E says.
  exec sudo -E env PATH="$PATH" "$0" "$@"
}

# Debian leaves the sbin directories out of a user's PATH; dockerd, mkfs.ext4 and debootstrap live there.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# Unmounts everything below directory $1, the deepest first. Nothing may be deleted below a live mount point.
unmount_below() {
  local mount_point
  # Field 5 is the mount point; the kernel lists in order of mounting, so the reverse undoes it.
  awk -v dir="$1/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | tac | while read -r mount_point; do
    # A mount that is still busy is detached: its holder keeps it, the path is free.
    umount "$mount_point" 2>/dev/null || umount --lazy "$mount_point"
  done
}
