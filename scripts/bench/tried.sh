#!/usr/bin/env bash
# What can be set for a file system in an image on a loop device, each setting against what Everhold does now.
# usage: scripts/bench/tried.sh [SETTING…]           (default: all; the names are those of the table below)
# Environment: ROUNDS=6, SECONDS_EACH=4, SCALE=10, BENCH_DIR=/var/tmp
#
# Images made by hand, no daemon. In each round every setting runs one slice in random order, and the reference one before
# every third. Prints a setting's upper quartile against the reference's, and the same of the medians.
set -euo pipefail
# shellcheck source=scripts/as-root.sh
. "$(dirname "$0")/../as-root.sh"
as_root "$@"
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/bench/lib.sh
. scripts/bench/lib.sh

# Each setting: file, mkfs, mount and loop, as words FIELD=…; what is not said is as in the reference.
#   file=thin|thick|written   fs=ext4|xfs   mkfs=ARGUMENTS   mount=OPTIONS   sector=512|4096   dio=on|off
#   queue=FILE:VALUE          (below /sys/block/loopN/queue)      host: a plain directory instead
# The reference is what crates/storage/src/image does.
declare -A settings=(
  [reference]=''
  [host]='host'
  [sector-512]='sector=512'
  [thick]='file=thick mount=nodiscard'
  [written]='file=written mount=nodiscard'
  [nodiscard]='mount=nodiscard'
  [journal-16M]='mkfs=-J@size=16'
  [journal-128M]='mkfs=-J@size=128'
  [journal-256M]='mkfs=-J@size=256'
  [fast-commit]='mkfs=-O@fast_commit'
  [journal-async]='mount=discard,journal_async_commit'
  [no-journal]='mkfs=-O@^has_journal'
  [stride]='mkfs=-E@stride=16,stripe-width=16'
  [noatime]='mount=discard,noatime'
  [lazytime]='mount=discard,lazytime'
  [writeback]='mount=discard,data=writeback'
  [nobarrier]='mount=discard,nobarrier'
  [xfs]='fs=xfs'
  [xfs-log-64M]='fs=xfs mkfs=-l@size=64m'
  [buffered]='dio=off'
  [mq-deadline]='queue=scheduler:mq-deadline'
  [requests-256]='queue=nr_requests:256'
  [no-wbt]='queue=wbt_lat_usec:0'
  [rq-affinity]='queue=rq_affinity:2'
)
all=(sector-512 thick written nodiscard journal-16M journal-128M journal-256M fast-commit journal-async no-journal stride noatime lazytime
  writeback nobarrier xfs xfs-log-64M buffered mq-deadline requests-256 no-wbt rq-affinity host)

# make NAME: its image, loop device, mount in $dir/at/NAME, and a running copy of the template.
make() {
  local name=$1 file=thin fs=ext4 mkfs='' mount=discard sector=4096 dio=on queue='' word image=$dir/$1.image loop
  mkdir -p "$dir/at/$name"
  for word in ${settings[$name]}; do
    [[ $word != host ]] || return 0
    # shellcheck disable=SC2034 # each by its name
    declare "${word%%=*}=${word#*=}"
  done
  truncate --size 3G "$image"
  case $file in
    thick) fallocate --length 3G "$image" ;;
    written) dd if=/dev/zero of="$image" bs=4M count=768 oflag=direct conv=fsync,notrunc status=none ;;
  esac
  local words
  read -ra words <<<"${mkfs//@/ }"
  case $fs in
    ext4) mkfs.ext4 -q -F -m 0 -b 4096 -e remount-ro -E "nodiscard,assume_storage_prezeroed=1" "${words[@]}" "$image" ;;
    xfs) mkfs.xfs -q -f -K -s size=4096 "${words[@]}" "$image" ;;
  esac
  loop=$(losetup --find --show --direct-io=$dio --sector-size "$sector" "$image")
  [[ -z $queue ]] || echo "${queue#*:}" >"/sys/block/${loop##*/}/queue/${queue%%:*}"
  mount -o "$mount" "$loop" "$dir/at/$name"
}

names=("$@")
(($#)) || names=("${all[@]}")
for name in "${names[@]}"; do [[ -v settings[$name] ]] || die "no setting is called $name"; done

quick='' scale=${SCALE:-10} rounds=${ROUNDS:-6} seconds=${SECONDS_EACH:-4}
scratch
say "$((${#names[@]} + 1)) settings in $dir, $rounds rounds, about $((rounds * (${#names[@]} * 4 / 3 + 1) * (seconds + 3) / 60 + 2)) minutes …"
pg_template "$scale"
declare -A ports
port=5401
declare -a usable=()
for name in reference "${names[@]}"; do
  if ! make "$name" 2>"$dir/why"; then
    say "$name: not possible here: $(tail -n 1 "$dir/why")"
    continue
  fi
  ports[$name]=$port
  pg_put "$dir/at/$name/pg" $((port++))
  pg_slice "$dir/at/$name" "${ports[$name]}" 2 >/dev/null
  # The file for fio, written once, so that it is not made within a slice.
  fio_slice "$dir/at/$name" fsync 1 >/dev/null
  [[ $name == reference ]] || usable+=("$name")
done

# slice NAME: one slice of each, kept as tps-NAME and sync-NAME.
slice() {
  sample "tps-$1" "$(pg_slice "$dir/at/$1" "${ports[$1]}" "$seconds")"
  sample "sync-$1" "$(fio_slice "$dir/at/$1" fsync 1)"
}
# What disturbs only slows: the upper quartile says more about a setting than the median does.
quartile() { samples "$1" | sort -g | awk '{ v[NR] = $1 } END { print v[int((3 * NR + 3) / 4)] }'; }
quartiles() { awk -v a="$(quartile "$1-$2")" -v b="$(quartile "$1-reference")" 'BEGIN { printf "%.2f", a / b }'; }
compared() { awk -v a="$(of "$1-$2")" -v b="$(of "$1-reference")" 'BEGIN { printf "%.2f", a / b }'; }

for ((round = 0; round < rounds; round++)); do
  mapfile -t shuffled < <(printf '%s\n' "${usable[@]}" | shuf)
  for ((i = 0; i < ${#shuffled[@]}; i++)); do
    ((i % 3)) || slice reference
    slice "${shuffled[$i]}"
  done
  say "round $((round + 1)) of $rounds, $(disturbed) slices disturbed"
done

printf 'reference: %.0f tps, %.0f fsyncs/s (upper quartiles); Linux %s, %s, %s slices disturbed\n\n' \
  "$(quartile tps-reference)" "$(quartile sync-reference)" "$(uname -r)" "$(date +%F)" "$(disturbed)"
printf '| setting | | pgbench | (medians) | 8K write + fsync | (medians) |\n|---|---|---|---|---|---|\n'
for name in reference "${usable[@]}"; do
  # shellcheck disable=SC2016 # a table in Markdown
  printf '| %s | `%s` | %s | %s | %s | %s |\n' "$name" "${settings[$name]//@/ }" \
    "$(quartiles tps "$name")" "$(compared tps "$name")" "$(quartiles sync "$name")" "$(compared sync "$name")"
done
