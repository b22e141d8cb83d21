#!/usr/bin/env bash
# The story of Everhold in five acts, on a real Docker Engine: what a volume keeps, how a dropped table comes back, what is
# lost without a volume, how a removed one comes back, and how data without a volume is found and moved in time. Exits non-zero when
# one acknowledged row is missing.
# usage: scripts/demo.sh               leaves nothing running; KEEP=1 leaves everything to look around in
#        scripts/demo.sh clean DIR     ends what KEEP=1 left
# Environment: ROWS=2000 (commits per act), EVERHOLD=FILE (a binary to use instead of building one),
#              DRIVER=local (Docker's own driver instead of Everhold; the first and third act only).
set -euo pipefail
# shellcheck source=scripts/as-root.sh
. "$(dirname "$0")/as-root.sh"
cd "$(dirname "$0")/.."

bold='' green='' red='' dim='' plain=''
if [[ -t 1 ]]; then bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' dim=$'\e[2m' plain=$'\e[0m'; fi

say() { printf '%s\n' "$*"; }
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
now() { echo $((${EPOCHREALTIME/[^0-9]/} / 1000)); } # milliseconds

# run COMMAND…: shows it, runs it, says how long it took. EXPECT is the exit status that is right; 0 unless it is set.
run() {
  local start out status=0
  start=$(now)
  say "  $bold\$ $*$plain"
  out=$("$@" 2>&1) || status=$?
  if ((status != ${EXPECT:-0})); then
    say "${out//$'\n'/$'\n'    }"
    fail "this command failed: $*"
  fi
  [[ -z $out ]] || say "    ${out//$'\n'/$'\n'    }"
  say "    $dim$(($(now) - start)) ms$plain"
}

fail() {
  say "  ${red}FAILED: $*$plain"
  exit 1
}

# wait_for SECONDS WHAT COMMAND…
wait_for() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || fail "no $what in time"
    sleep 0.05
  done
}

# --- The stage ---------------------------------------------------------------------------------------------------

# Ends what state.sh in directory $1 names. Runs to its end whatever fails: each step is for itself.
clean_up() {
  local dir=$1 container name loop back
  [[ -s $dir/state.sh ]] || return 0
  # shellcheck disable=SC1091 # written by prepare()
  . "$dir/state.sh"
  for container in "${containers[@]}"; do docker rm --force "$container" >/dev/null 2>&1 || true; done
  for name in "$volume" "$rescued"; do docker volume rm "$name" >/dev/null 2>&1 || true; done
  [[ -z $image_added ]] || docker rmi "$image" >/dev/null 2>&1 || true
  if [[ -s $dir/daemon.pid ]] && grep -qsF -- "$dir/" "/proc/$(<"$dir/daemon.pid")/cmdline"; then
    kill "$(<"$dir/daemon.pid")"
    for _ in {1..100}; do
      grep -qsF -- "$dir/" "/proc/$(<"$dir/daemon.pid")/cmdline" || break
      sleep 0.1
    done
    kill -KILL "$(<"$dir/daemon.pid")" 2>/dev/null || true
  fi
  rm -f "$plugin_socket"
  [[ -z $own_engine ]] || scripts/dockerd.sh stop "$dir/engine" || true
  unmount_below "$dir"
  losetup --list --noheadings --output NAME,BACK-FILE | while read -r loop back; do
    [[ $back != "$dir"/* ]] || losetup --detach "$loop"
  done
  if grep -qF " $dir/" /proc/self/mountinfo; then
    say "Something is still mounted below $dir, so it stays there."
    return 1
  fi
  rm -rf --one-file-system "$dir"
}

finish() {
  local status=$?
  trap - EXIT INT TERM
  if [[ -n ${dir:-} && $status != 0 && -s $dir/daemon.log ]]; then
    title 'The end of the daemon'\''s log'
    tail -n 20 "$dir/daemon.log"
  fi
  if [[ -n ${dir:-} && ${KEEP:-0} == 1 ]]; then
    title 'Everything is left running (KEEP=1)'
    say "  export DOCKER_HOST=$DOCKER_HOST EVERHOLD_SOCKET=$EVERHOLD_SOCKET"
    say "  docker ps; docker exec -it ${containers[0]} psql -U postgres; $everhold volume ls; less $dir/daemon.log"
    say "  To clean up: scripts/demo.sh clean $dir"
  elif [[ -n ${dir:-} ]]; then
    clean_up "$dir" || status=1
  fi
  exit "$status"
}

# free_name NAME COMMAND…: NAME, or NAME-PID when the command finds that NAME exists: nothing of the user's is touched.
free_name() { if "${@:2}" "$1" >/dev/null 2>&1; then echo "$1-$$"; else echo "$1"; fi; }

prepare() {
  everhold=${EVERHOLD:-$PWD/target/release/everhold}
  driver=${DRIVER:-everhold-demo}
  image="everhold-test/postgres:15"
  # Not /tmp, which may be in memory: the data should meet a disk. Short, since sockets live below it.
  dir=$(mktemp -d /var/tmp/everhold-demo.XXXXXX)
  chmod 0755 "$dir"
  trap finish EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM

  title 'The stage'
  export DOCKER_HOST=unix:///var/run/docker.sock own_engine='' image_added=''
  if ! docker version >/dev/null 2>&1; then own_engine=1 DOCKER_HOST=unix://$dir/engine/docker.sock; fi
  containers=()
  volume='' rescued='' plugin_socket=/run/docker/plugins/$driver.sock
  save_state
  if [[ -n $own_engine ]]; then
    say '  No Docker Engine answers here, so this demo starts one of its own.'
    run scripts/dockerd.sh start "$dir/engine"
  fi
  # Told before anything is made, so that an interrupt at any time cleans up all of it.
  containers=("$(free_name everhold-demo-pg docker container inspect)" "$(free_name everhold-demo-bare docker container inspect)")
  # The one that a rescue keeps, and what it is called before it has its name.
  containers+=("${containers[1]}-before-rescue" "${containers[1]}-everhold-new")
  volume=$(free_name pgdata docker volume inspect) rescued=$(free_name pgdata-rescued docker volume inspect)
  docker image inspect "$image" >/dev/null 2>&1 || image_added=1
  if [[ $driver != local ]]; then
    driver=$(basename "$(free_name "${plugin_socket%.sock}" test_socket)")
    plugin_socket=/run/docker/plugins/$driver.sock
  fi
  save_state
  run scripts/images.sh load -H "$DOCKER_HOST" postgres

  export EVERHOLD_SOCKET=$dir/run/everhold.sock EVERHOLD_CONFIG=$dir/config.toml
  [[ $driver != local ]] || return 0
  cat >"$dir/config.toml" <<TOML
[paths]
state = "$dir/state"
run = "$dir/run"

[docker]
socket = "${DOCKER_HOST#unix://}"
plugin_socket = "$plugin_socket"
TOML
  say "  $bold\$ everhold daemon --config $dir/config.toml &$plain"
  local start
  start=$(now)
  # A session of its own: an interrupt at the terminal is for this script, which then ends the daemon in order.
  setsid "$everhold" daemon --config "$dir/config.toml" </dev/null >"$dir/daemon.log" 2>&1 &
  echo $! >"$dir/daemon.pid"
  wait_for 10 'answer of the daemon' everhold status
  say "    ready: $dim$(($(now) - start)) ms$plain"
}

everhold() { "$everhold" "$@"; }
test_socket() { [[ -e $1.sock ]]; }
save_state() { declare -p DOCKER_HOST own_engine image image_added containers volume rescued plugin_socket >"$dir/state.sh"; }

# --- What is played ----------------------------------------------------------------------------------------------

# start_database NAME [docker run options…]
start_database() {
  local name=$1 start
  shift
  run docker run --detach --name "$name" --network none "$@" "$image"
  start=$(now)
  wait_for 60 "answer of PostgreSQL in $name" docker exec "$name" pg_isready --quiet --username postgres
  say "    PostgreSQL answers: $dim$(($(now) - start)) ms$plain"
}

sql() { docker exec "$1" psql --username postgres --no-align --tuples-only --quiet --command "$2"; }

# The ids whose commit was acknowledged. psql prints a row once the commit has returned; a line without its end
# is one that was cut off on the way.
acknowledged() {
  local file
  for file in "$dir"/"$1".[12]; do head -n "$(wc -l <"$file")" "$file"; done | sort
}
count_acknowledged() { acknowledged "$1" | wc -l; }
enough() { (($(count_acknowledged "$1") >= ROWS)); }

# write_and ACT NAME COMMAND…: two clients commit row after row; in the midst of it the command takes the container from them.
write_and() {
  local act=$1 name=$2 client start writers=()
  sql "$name" 'CREATE TABLE story (id bigserial PRIMARY KEY, written timestamptz DEFAULT now())'
  start=$(now)
  say "  $bold\$ psql: INSERT INTO story DEFAULT VALUES RETURNING id;$plain   again and again, two clients, one commit each"
  for client in 1 2; do
    : >"$dir/$act.$client"
    # A pipe makes psql hold its output back; stdbuf makes it print each row when it comes.
    { yes 'INSERT INTO story DEFAULT VALUES RETURNING id;' 2>/dev/null |
      docker exec --interactive "$name" stdbuf -oL psql --username postgres --no-align --tuples-only --quiet \
        >"$dir/$act.$client" 2>/dev/null || true; } &
    writers+=($!)
  done
  wait_for 60 "$ROWS acknowledged commits" enough "$act"
  run "${@:3}"
  wait "${writers[@]}"
  say "    $(count_acknowledged "$act") commits were acknowledged, the last ones while the container went: $dim$(($(now) - start)) ms$plain"
}

summary=()
# check ACT TITLE NAME all|none: compares the rows in the database with those acknowledged, id by id.
check() {
  local act=$1 what=$2 name=$3 expect=$4 known found missing verdict
  : >"$dir/found"
  if [[ $(sql "$name" "SELECT to_regclass('story')") == story ]]; then
    sql "$name" 'SELECT id FROM story' | sort >"$dir/found"
  fi
  known=$(count_acknowledged "$act") found=$(wc -l <"$dir/found")
  missing=$(acknowledged "$act" | comm -23 - "$dir/found" | wc -l)
  say "    $known rows acknowledged, $found found, $missing missing"
  verdict=unexpected
  if [[ $expect == all ]] && ((missing == 0)); then verdict='every row is there'; fi
  if [[ $expect == none ]] && ((found == 0)); then verdict='all lost, as expected'; fi
  summary+=("$(printf '%-44s %12s %8s %8s   %s' "$what" "$known" "$found" "$missing" "$verdict")")
  [[ $verdict != unexpected ]] || fail "$what: $missing acknowledged rows are missing, expected $expect of them to be found"
}

play() {
  local begin pg bare size=()
  begin=$(now)
  prepare
  pg=${containers[0]} bare=${containers[1]}
  local mount=(--mount "type=volume,source=$volume,target=/var/lib/postgresql/data,volume-driver=$driver")
  [[ $driver == local ]] || size=(-o size=2GiB) # Docker's own driver knows no size

  title "Act 1: a database on a volume, and its container destroyed"
  run docker volume create --driver "$driver" "${size[@]}" "$volume"
  start_database "$pg" "${mount[@]}"
  write_and one "$pg" docker rm --force "$pg"
  say '  A new container on the same volume:'
  start_database "$pg" "${mount[@]}"
  check one '1. container destroyed, on a volume' "$pg" all
  if [[ $driver != local ]]; then
    run everhold volume ls
    run everhold volume usage "$volume"
  fi

  if [[ $driver != local ]]; then
    title 'Act 2: a table dropped on the running database'
    local before
    say '  The rows are there, and every second a cut of the volume is made:'
    sleep 3
    run everhold history "$volume"
    before=$(date --utc +%Y-%m-%dT%H:%M:%S.%NZ)
    sleep 2
    run docker exec "$pg" psql --username postgres --quiet --command 'DROP TABLE story'
    check one '2. table dropped' "$pg" none
    say '  Back to two seconds before; the container is stopped and started again:'
    run everhold restore "$volume" --at "$before" --stop-containers --yes
    wait_for 60 "answer of PostgreSQL in $pg" docker exec "$pg" pg_isready --quiet --username postgres
    check one '2. restored to two seconds before' "$pg" all
    run everhold status
  fi

  title 'Act 3: the same without a volume'
  start_database "$bare"
  write_and two "$bare" docker rm --force "$bare"
  say '  A new container:'
  start_database "$bare"
  check two '3. container destroyed, no volume' "$bare" none
  run docker rm --force "$bare"

  if [[ $driver != local ]]; then
    title 'Act 4: the volume itself is removed'
    run docker rm --force "$pg"
    run docker volume rm "$volume"
    run everhold trash ls
    run everhold trash restore "$volume"
    run everhold volume inspect "$volume"
    start_database "$pg" "${mount[@]}"
    check one '4. volume removed, restored from the trash' "$pg" all
  fi

  if [[ $driver != local ]]; then
    title 'Act 5: without a volume again, and found in time'
    start_database "$bare"
    say '  What would be lost? (It exits with 1 when something would be.)'
    EXPECT=1 run everhold audit "$bare"
    say '  Moved to a volume while clients write, with the same settings:'
    write_and five "$bare" everhold rescue "$bare" --volume "$rescued" --apply
    wait_for 60 "answer of PostgreSQL in $bare" docker exec "$bare" pg_isready --quiet --username postgres
    check five '5. no volume, rescued while clients write' "$bare" all
    run everhold rescue "$bare" --discard-old
    run everhold audit "$bare"
  fi

  title 'What was found'
  printf '  %-44s %12s %8s %8s\n' '' acknowledged found missing
  printf "  $green%s$plain\n" "${summary[@]}"
  say "  $dim$(($(now) - begin)) ms in all$plain"
}

case ${1:-play} in
  clean)
    as_root "$@"
    clean_up "${2:?which directory?}" || exit 1
    ;;
  play)
    ROWS=${ROWS:-2000}
    # What is built belongs to the caller, so root comes in only afterwards.
    if [[ -z ${EVERHOLD_DEMO_READY:-} ]]; then
      scripts/setup.sh demo
      [[ ${DRIVER:-} == local || -n ${EVERHOLD:-} ]] || cargo build --release --locked
      scripts/images.sh >/dev/null
      export EVERHOLD_DEMO_READY=1
    fi
    as_root "$@"
    play
    ;;
  *) sed -n '5,6s/^# //p' "$0" >&2; exit 2 ;;
esac
