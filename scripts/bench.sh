#!/usr/bin/env bash
# Measures Everhold side by side with Docker's local driver and with a plain host directory, and holds it against its aims.
# usage: scripts/bench.sh [docker] [database] [thousand] [history] [containers]     (default: all of them, half an hour)
# Environment: BENCH=quick (some 8 minutes, rough), EVERHOLD=FILE (another binary), BENCH_DIR=/var/tmp (the disk to
#              measure), TRIED=1 (also the settings of the loop device and of mkfs that were tried, half an hour more).
#
# Prints one table, and writes the same to target/bench.json. Exit code 0 also where an aim is missed: it measures, and
# a busy machine is no failure. docs/performance.md says how to read it.
set -euo pipefail
# shellcheck source=scripts/as-root.sh
. "$(dirname "$0")/as-root.sh"
as_root "$@"
cd "$(dirname "$0")/.."
# shellcheck source=scripts/bench/lib.sh
. scripts/bench/lib.sh
# shellcheck source=scripts/bench/docker.sh
. scripts/bench/docker.sh
# shellcheck source=scripts/bench/database.sh
. scripts/bench/database.sh
# shellcheck source=scripts/bench/thousand.sh
. scripts/bench/thousand.sh
# shellcheck source=scripts/bench/history.sh
. scripts/bench/history.sh
# shellcheck source=scripts/bench/containers.sh
. scripts/bench/containers.sh

for part in "$@"; do [[ $part =~ ^(docker|database|thousand|history|containers)$ ]] || { sed -n '3,5s/^# //p' "$0" >&2; exit 2; }; done
(($#)) || set -- docker database thousand history containers

quick=
[[ ${BENCH:-} != quick ]] || quick=1
command -v curl >/dev/null || die 'curl is missing: scripts/setup.sh bench'

scratch
# A copy: a build in the meantime must not change what is measured.
everhold_bin=$dir/everhold
cp "${EVERHOLD:-target/release/everhold}" "$everhold_bin"
driver=${dir##*/}
driver=${driver//./-}
plugin_socket=/run/docker/plugins/$driver.sock
cat >"$dir/config.toml" <<TOML
[paths]
state = "$dir/state"
run = "$dir/run"
[docker]
socket = "$dir/engine/docker.sock"
plugin-socket = "$plugin_socket"
[history]
protect = "off"
# Each new history is verified within a minute, once: not while something else is measured.
verify = "off"
[pool.default]
reserve = "1%"
TOML

begin=$SECONDS
say "Measuring in $dir ($(findmnt -no SOURCE,FSTYPE -T "$dir"), $(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg), Linux $(uname -r)) …"
start_daemon >/dev/null
for part in "$@"; do
  if [[ $part =~ ^(docker|containers)$ ]]; then
    export DOCKER_HOST=unix://$dir/engine/docker.sock
    scripts/dockerd.sh start "$dir/engine"
    scripts/images.sh load -H "$DOCKER_HOST" busybox >/dev/null
  fi
  "bench_$part"
  [[ ! $part =~ ^(docker|containers)$ ]] || scripts/dockerd.sh stop "$dir/engine"
done

mkdir -p target
print_results target/bench.json
printf '\n%s slices of pgbench and fio were taken while something else used this machine.\n' "$(disturbed)"
printf '%d:%02d minutes; the same as JSON: target/bench.json\n' $(((SECONDS - begin) / 60)) $(((SECONDS - begin) % 60))
if [[ ${TRIED:-} == 1 ]]; then scripts/bench/tried.sh; fi
