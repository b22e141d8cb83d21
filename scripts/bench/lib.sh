# shellcheck shell=bash
# Sourced by bench.sh and its parts: time, statistics, the table of results, a daemon, PostgreSQL and fio.
# The caller sets everhold_bin and plugin_socket for the parts that need a daemon, and calls scratch for $dir.

dir='' everhold_bin='' plugin_socket='' quick=''

say() { printf '%s\n' "$*" >&2; }
die() {
  say "$0: $*"
  exit 1
}
us() { echo "${EPOCHREALTIME/[^0-9]/}"; } # microseconds

# timed COMMAND…: runs it; milliseconds on standard output, its own output only when it fails.
timed() {
  local from to out
  from=$(us)
  out=$("$@" 2>&1) || die "failed: $*: $out"
  to=$(us)
  awk -v from="$from" -v to="$to" 'BEGIN { printf "%.1f\n", (to - from) / 1000 }'
}

# Of numbers on standard input, one a line.
median() { sort -g | awk '{ v[NR] = $1 } END { if (NR) printf "%.6g\n", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2; else print "nan" }'; }
spread() { sort -g | awk '{ v[NR] = $1 } END { if (NR) printf "%.3g–%.3g", v[1], v[NR] }'; }

# Each measurement is a line "value" in $dir/samples/KEY; rounds are lines, so that two keys can be put side by side.
sample() { echo "$2" >>"$dir/samples/$1"; }
samples() { cat "$dir/samples/$1"; }
of() { samples "$1" | median; }
ratios() { paste "$dir/samples/$1" "$dir/samples/$2" | awk '$2 > 0 { print $1 / $2 }'; }
differences() { paste "$dir/samples/$1" "$dir/samples/$2" | awk '{ print $1 - $2 }'; }

# result KEY WHAT VALUE UNIT [RELATION AIM]: one line of the table. RELATION is <= or >=.
result() {
  local key=$1 what=$2 value unit=$4 relation=${5:-} aim=${6:-} verdict=''
  value=$(awk -v v="$3" 'BEGIN { printf (v >= 1000 ? "%.0f" : v >= 10 ? "%.1f" : v >= 1 ? "%.2f" : "%.3g"), v }')
  if [[ -n $relation ]]; then
    # Judged as printed: an aim of 0.75 is met by what rounds to 0.75.
    verdict=$(awk -v v="$value" -v a="$aim" -v r="$relation" 'BEGIN {
      met = r == "<=" ? v <= a : v >= a
      if (met) print "met"
      else if (a > 1 || r == "<=") printf "missed by %.3g (%.0f %%)\n", (v > a ? v - a : a - v), 100 * (v > a ? v - a : a - v) / a
      else printf "missed by %.2f\n", (v > a ? v - a : a - v)
    }')
  fi
  printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$key" "$what" "$value" "$unit" "$relation" "$aim" "$verdict" >>"$dir/results"
  say "    $(printf '%-66s %10s %-8s %-9s %s' "$what" "$value" "$unit" "${relation:+$relation $aim}" "$verdict")"
}

# Waits until the rest of the machine rests, for $PATIENCE seconds at most (default 3); what was not quiet then is
# counted, and said at the end. Medians of interleaved rounds bear some of that.
quiet() {
  local end=$((SECONDS + ${PATIENCE:-3})) one two
  echo >>"$dir/slices"
  while :; do
    one=$(awk '/^cpu / { print $2 + $3 + $4 + $7 + $8; exit }' /proc/stat)
    sleep 0.4
    two=$(awk '/^cpu / { print $2 + $3 + $4 + $7 + $8; exit }' /proc/stat)
    # In hundredths of a second: 12 of 40 is a third of one core.
    ((two - one > 12)) || return 0
    ((SECONDS < end)) || break
  done
  echo >>"$dir/disturbed"
}
lines_of() { if [[ -e $1 ]]; then wc -l <"$1"; else echo 0; fi; }
disturbed() { echo "$(lines_of "$dir/disturbed") of $(lines_of "$dir/slices")"; }

section() { say "" && say "$1" && printf '#\t%s\n' "$1" >>"$dir/results"; }

# The table for people; the same as JSON in file $1.
print_results() {
  perl -CSDA -F'\t' -lane '
    BEGIN { printf "%-64s %10s %-7s %-9s %s\n", "", "measured", "", "aim", "verdict" }
    if ($F[0] eq "#") { print "\n$F[1]"; next }
    printf "  %-62s %10s %-7s %-9s %s\n", $F[1], $F[2], $F[3], "$F[4] $F[5]", $F[6] // ""' "$dir/results"
  {
    printf '{"date":"%s","kernel":"%s","cores":%s,"disk":"%s","binary":"%s","quick":%s,"results":[' \
      "$(date -u +%FT%TZ)" "$(uname -r)" "$(nproc)" "$(findmnt -no FSTYPE,OPTIONS -T "$dir")" \
      "$(sha256sum "$everhold_bin" | cut -c1-12)" "$([[ $quick ]] && echo true || echo false)"
    perl -CSDA -F'\t' -lane '
      BEGIN { $, = ""; $\ = "" }
      if ($F[0] eq "#") { $part = $F[1]; next }
      print "," if $n++;
      printf "\n{\"key\":\"%s\",\"part\":\"%s\",\"what\":\"%s\",\"value\":%s,\"unit\":\"%s\"", $F[0], $part, $F[1], $F[2] eq "nan" ? "null" : $F[2], $F[3];
      printf ",\"relation\":\"%s\",\"aim\":%s,\"met\":%s", $F[4], $F[5], $F[6] eq "met" ? "true" : "false" if $F[4];
      print "}"' "$dir/results"
    printf '\n]}\n'
  } >"$1"
}

# --- A daemon -----------------------------------------------------------------------------------------------------

everhold() { EVERHOLD_SOCKET=$dir/run/everhold.sock "$everhold_bin" "$@"; }
api() { curl --silent --show-error --fail --unix-socket "$dir/run/everhold.sock" "$@"; }
daemon_pid() { cat "$dir/daemon.pid"; }
daemon_alive() { [[ -s $dir/daemon.pid ]] && grep -qsF -- "$dir/" "/proc/$(daemon_pid)/cmdline"; }

# start_daemon: returns when the API answers, and says how many milliseconds that took.
start_daemon() {
  local from to end=$((SECONDS + 30))
  from=$(us)
  setsid "$everhold_bin" daemon --config "$dir/config.toml" </dev/null >>"$dir/daemon.log" 2>&1 &
  echo $! >"$dir/daemon.pid"
  until api --output /dev/null http://everhold/v1/status 2>/dev/null; do
    if ((SECONDS > end)) || ! kill -0 "$(daemon_pid)" 2>/dev/null; then
      die "the daemon does not answer: $(tail -n 5 "$dir/daemon.log")"
    fi
    sleep 0.005
  done
  to=$(us)
  awk -v from="$from" -v to="$to" 'BEGIN { printf "%.0f\n", (to - from) / 1000 }'
}

# stop_daemon SIGNAL
stop_daemon() {
  local pid
  daemon_alive || return 0
  pid=$(daemon_pid)
  kill "-$1" "$pid"
  for _ in {1..1000}; do
    daemon_alive || return 0
    sleep 0.01
  done
  kill -KILL "$pid"
}

# volume NAME OPTION…: a mounted volume, reachable for everybody at $dir/at/NAME (the daemon's own mount points are for root).
volume() {
  local name=$1 path
  shift
  everhold volume create "$name" "${@/#/-o}" >/dev/null
  path=$(everhold volume mount --id bench "$name" 2>/dev/null)
  mkdir -p "$dir/at/$name"
  mount --bind "$path" "$dir/at/$name"
}

drop_volume() {
  umount "$dir/at/$1"
  everhold volume unmount --id bench "$1" >/dev/null
  everhold volume rm "$1" >/dev/null 2>&1
}

# --- PostgreSQL ---------------------------------------------------------------------------------------------------

pg_bin=/usr/lib/postgresql/15/bin
# From / since the caller's directory may be closed to postgres.
as_postgres() { (cd / && exec setpriv --reuid postgres --regid postgres --init-groups --reset-env "$@"); }

# pg_template SCALE: a cluster in $dir/template to be copied, so that all start from the same bytes.
pg_template() {
  install -d -o postgres -g postgres -m 0700 "$dir/template"
  install -d -o postgres -g postgres "$dir/sockets"
  as_postgres "$pg_bin/initdb" --no-sync --auth trust --pgdata "$dir/template" >/dev/null
  # The defaults of PostgreSQL, but for where it listens, and no checkpoint of its own within a slice.
  cat >>"$dir/template/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$dir/sockets'
checkpoint_timeout = 1h
max_wal_size = 4GB
autovacuum = off
CONF
  pg_start "$dir/template" 5400
  pgbench_ 5400 --initialize --quiet --scale "$1" >/dev/null 2>&1
  pg_stop "$dir/template"
}

# pg_start DATA PORT; the port is only part of the socket's name. Told to pg_running, for the clean-up.
pg_start() {
  echo "$1" >>"$dir/pg_running"
  as_postgres "$pg_bin/pg_ctl" --pgdata "$1" --log "$1/log" --silent --wait -o "-p $2" start >/dev/null
}
pg_stop() { as_postgres "$pg_bin/pg_ctl" --pgdata "$1" --silent --mode "${2:-fast}" --wait stop >/dev/null; }
pgbench_() { as_postgres "$pg_bin/pgbench" --host "$dir/sockets" --port "$@" postgres; }
pg_sql() { as_postgres "$pg_bin/psql" --host "$dir/sockets" --port "$1" --quiet --no-align --tuples-only --command "$2" postgres; }

# pg_put DATA PORT: a running copy of the template in DATA.
pg_put() {
  install -d -o postgres -g postgres -m 0700 "$1"
  cp --archive "$dir/template/." "$1"
  pg_start "$1" "$2"
}

# pg_slice DATA PORT SECONDS: TPC-B with 4 clients; transactions per second. Begins with nothing left to write.
pg_slice() {
  pg_sql "$2" CHECKPOINT
  sync --file-system "$1"
  quiet
  pgbench_ "$2" --no-vacuum --client 4 --jobs 2 --time "$3" 2>/dev/null | sed -n 's/^tps = \([0-9.]*\).*/\1/p'
}

# --- fio ----------------------------------------------------------------------------------------------------------

# fio_slice DIRECTORY JOB SECONDS: operations per second for small blocks, MiB/s for large ones.
# The file is written whole once per directory, so that none of the jobs meets a hole.
fio_slice() {
  local job column
  case $2 in
    fsync) column=49 job=(--rw=write --bs=8k --fsync=1 --ioengine=psync) ;;
    random) column=49 job=(--rw=randwrite --bs=4k --direct=1 --iodepth=16 --ioengine=libaio) ;;
    write) column=48 job=(--rw=write --bs=1M --direct=1 --iodepth=4 --ioengine=libaio) ;;
    read) column=7 job=(--rw=read --bs=1M --direct=1 --iodepth=4 --ioengine=libaio) ;;
    *) die "no job $2" ;;
  esac
  [[ -e $1/fio ]] || dd if=/dev/urandom of="$1/fio" bs=1M count=512 oflag=direct conv=fsync status=none
  sync --file-system "$1"
  quiet
  fio --name=it --filename="$1/fio" --size=512M --time_based --runtime="$3" --overwrite=1 --randseed=1 \
    --output-format=terse --terse-version=3 "${job[@]}" |
    awk -F ';' -v column=$column '{ print column == 49 ? $column : $column / 1024 }'
}

# --- The end ------------------------------------------------------------------------------------------------------

# Ends whatever runs, and removes whatever was made. Each step is for itself.
clean_up() {
  local data loop back
  if [[ -s $dir/pg_running ]]; then
    sort -u "$dir/pg_running" | while read -r data; do
      [[ ! -s $data/postmaster.pid ]] || pg_stop "$data" immediate || true
    done
  fi
  [[ ! -d $dir/engine ]] || scripts/dockerd.sh stop "$dir/engine" || true
  stop_daemon TERM
  [[ -z $plugin_socket ]] || rm -f "$plugin_socket"
  unmount_below "$dir"
  losetup --list --noheadings --output NAME,BACK-FILE | while read -r loop back; do
    [[ $back != "$dir"/* ]] || losetup --detach "$loop" || true
  done
  if grep -qF " $dir/" /proc/self/mountinfo; then
    say "Something is still mounted below $dir, so it stays there."
    return 1
  fi
  rm -rf --one-file-system "$dir"
}

finish() {
  local status=$?
  trap - EXIT
  if [[ $status != 0 && -s $dir/daemon.log ]]; then tail -n 5 "$dir/daemon.log" >&2; fi
  clean_up || status=1
  exit "$status"
}

# scratch: makes $dir and sees to its end.
scratch() {
  # Not /tmp, which may be in memory: the data should meet a disk. Short, since sockets live below it.
  dir=$(mktemp -d "${BENCH_DIR:-/var/tmp}/everhold-bench.XXXX")
  chmod 0755 "$dir"
  mkdir "$dir/samples" "$dir/at"
  trap finish EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}
