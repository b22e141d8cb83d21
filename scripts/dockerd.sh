#!/usr/bin/env bash
# A private Docker Engine that shares nothing with another one on the same host but the kernel and /run/docker/plugins.
# usage: scripts/dockerd.sh start DIR [dockerd options…]     for instance --live-restore
#        scripts/dockerd.sh stop DIR
#
# start prints nothing and returns when DIR/docker.sock answers; both verbs are idempotent. DIR keeps images and
# containers between two lives: delete it after stop. Logs: DIR/dockerd.log, DIR/containerd.log. Pids: DIR/*.pid.
#
# There is no bridge and no firewall rule, since two engines would fight over docker0 and iptables: containers get
# --network none by default (host works too), and compose files need network_mode: none.
set -euo pipefail
# shellcheck source=scripts/as-root.sh
. "$(dirname "$0")/as-root.sh"

[[ $# -ge 2 && $1 =~ ^(start|stop)$ ]] || { sed -n '3,4s/^# //p' "$0" >&2; exit 2; }
as_root "$@"
verb=$1 dir=$(realpath --canonicalize-missing "$2")
shift 2
# A Unix socket's path holds 107 bytes, and containerd appends to DIR; mountinfo escapes blanks.
if ((${#dir} > 70)) || [[ $dir =~ [[:space:]] ]]; then
  echo "$0: $dir: give a directory of at most 70 characters without blanks" >&2
  exit 2
fi
[[ $verb == start || -d $dir ]] || exit 0
mkdir -p "$dir"
exec 9>"$dir/lock" && flock 9

# Pids are reused: a process is ours when its command line names our directory. (A zombie has no command line: it is gone.)
ours() { grep -qsF -- "$dir/" "/proc/$1/cmdline"; }
alive() { [[ -s $dir/$1.pid ]] && ours "$(<"$dir/$1.pid")"; }

answers() { docker --host "unix://$dir/docker.sock" version >/dev/null 2>&1; }

# wait_for SECONDS COMMAND…
wait_for() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < end)) || return 1
    sleep 0.05
  done
}

give_up() {
  echo "$0: $1; the end of $dir/$2.log:" >&2
  tail -n 20 "$dir/$2.log" >&2
  stop
  exit 1
}

start() {
  local dockerd
  answers && return
  # containerd of our own: dockerd would use a system containerd when one is there, and mix its containers with ours.
  # It runs beside dockerd, not under it, so that a killed dockerd leaves what it leaves in real life.
  if ! alive containerd; then
    cat >"$dir/containerd.toml" <<TOML
version = 2
root = "$dir/containerd/root"
state = "$dir/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$dir/containerd.sock"
TOML
    setsid containerd --config "$dir/containerd.toml" </dev/null >>"$dir/containerd.log" 2>&1 9>&- &
    echo $! >"$dir/containerd.pid"
  fi
  if ! alive dockerd; then
    rm -f "$dir/dockerd.pid" "$dir/docker.sock"
    echo '{}' >"$dir/daemon.json" # not the one in /etc/docker
    setsid dockerd --config-file "$dir/daemon.json" --host "unix://$dir/docker.sock" --containerd "$dir/containerd.sock" \
      --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/dockerd.pid" --shutdown-timeout 5 \
      --bridge none --iptables=false --ip-masq=false --ip-forward=false \
      "$@" </dev/null >>"$dir/dockerd.log" 2>&1 9>&- &
    dockerd=$!
  else
    dockerd=$(<"$dir/dockerd.pid")
  fi
  # A dockerd that ended won't answer any more: no reason to wait out the time.
  # shellcheck disable=SC2317 # called by wait_for, as is gone() below
  up() { answers || ! kill -0 "$dockerd" 2>/dev/null; }
  wait_for 30 up && answers && return
  kill "$dockerd" 2>/dev/null || true
  alive containerd || give_up "containerd ended" containerd
  give_up "dockerd doesn't answer on $dir/docker.sock" dockerd
}

# end PROGRAM SECONDS: asks, waits, insists.
end() {
  alive "$1" || return 0
  local pid
  pid=$(<"$dir/$1.pid")
  # shellcheck disable=SC2317
  gone() { ! ours "$pid"; }
  kill "$pid"
  wait_for "$2" gone || { kill -KILL "$pid" && wait_for 5 gone; }
}

# Containers whose dockerd was killed live on under their shims.
end_containers() {
  local init id pid
  for init in "$dir"/containerd/state/io.containerd.runtime.v2.task/moby/*/init.pid; do
    [[ -s $init ]] || continue
    id=$(basename "${init%/*}") pid=$(<"$init")
    # The control group tells our container from a stranger that got its pid.
    if grep -qs "$id" "/proc/$pid/cgroup"; then kill -KILL "$pid"; fi
  done
  for pid in $(pgrep --full -- "-address $dir/containerd.sock" || true); do kill -KILL "$pid" 2>/dev/null || true; done
}

stop() {
  end dockerd 20
  end_containers
  end containerd 10
  rm -f "$dir"/{dockerd,containerd}.pid "$dir"/*.sock*
  unmount_below "$dir"
}

"$verb" "$@"
