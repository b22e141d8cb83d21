#!/usr/bin/env bash
# What can be set for a file system in an image on a loop device, each setting against what Everhold does now.
# usage: scripts/bench/tried.sh [SETTING…]           (default: all; the names are those of the table below)
# Environment: ROUNDS=5, SECONDS_EACH=8, SCALE=10, BENCH_DIR=/var/tmp
#
# Images made by hand, no daemon. In each round every setting runs one slice, and the reference one slice after every two
# settings; a slice counts as its ratio to the mean of the reference slices before and after it. Prints the medians.
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
  [commit-30]='mount=discard,commit=30'
  [writeback]='mount=discard,data=writeback'
  [nobarrier]='mount=discard,nobarrier'
  [xfs]='fs=xfs'
  [xfs-log-64M]='fs=xfs mkfs=-l@size=64m'
  [xfs-logbufs]='fs=xfs mount=discard,logbufs=8,logbsize=256k'
  [buffered]='dio=off'
  [mq-deadline]='queue=scheduler:mq-deadline'
  [requests-256]='queue=nr_requests:256'
  [no-wbt]='queue=wbt_lat_usec:0'
  [rq-affinity]='queue=rq_affinity:2'
)
all=(sector-512 thick written nodiscard journal-16M journal-128M journal-256M fast-commit journal-async no-journal stride noatime lazytime
  commit-30 writeback nobarrier xfs xfs-log-64M xfs-logbufs buffered mq-deadline requests-256 no-wbt rq-affinity host)

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

quick='' scale=${SCALE:-10} rounds=${ROUNDS:-5} seconds=${SECONDS_EACH:-8}
scratch
say "$((${#names[@]} + 1)) settings in $dir, $rounds rounds, about $((rounds * (${#names[@]} * 3 / 2 + 1) * (seconds + 5) / 60 + 2)) minutes …"
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

# slice NAME: tps and fsyncs per second.
slice() { echo "$(pg_slice "$dir/at/$1" "${ports[$1]}" "$seconds") $(fio_slice "$dir/at/$1" fsync 2)"; }
# The mean of two slices.
mean() { awk -v a="$1" -v b="$2" 'BEGIN { split(a, x, " "); split(b, y, " "); print (x[1] + y[1]) / 2, (x[2] + y[2]) / 2 }'; }

for ((round = 0; round < rounds; round++)); do
  mapfile -t shuffled < <(printf '%s\n' "${usable[@]}" | shuf)
  before=$(slice reference)
  for ((i = 0; i < ${#shuffled[@]}; i += 2)); do
    declare -A now=()
    for name in "${shuffled[@]:$i:2}"; do now[$name]=$(slice "$name"); done
    after=$(slice reference)
    base=$(mean "$before" "$after")
    for name in "${!now[@]}"; do
      read -r tps syncs base_tps base_syncs <<<"${now[$name]} $base"
      sample "tps-$name" "$(awk -v a="$tps" -v b="$base_tps" 'BEGIN { print a / b }')"
      sample "sync-$name" "$(awk -v a="$syncs" -v b="$base_syncs" 'BEGIN { print a / b }')"
    done
    sample "tps-reference" "$(awk -v a="${before% *}" -v b="${after% *}" 'BEGIN { print b / a }')"
    sample "sync-reference" "$(awk -v a="${before#* }" -v b="${after#* }" 'BEGIN { print b / a }')"
    sample tps "${after% *}" && sample syncs "${after#* }"
    before=$after
  done
  say "round $((round + 1)) of $rounds"
done

printf 'reference: %s tps, %s fsyncs/s; Linux %s, %s\n\n' "$(of tps)" "$(of syncs)" "$(uname -r)" "$(date +%F)"
printf '| setting | | pgbench | spread | 8K write + fsync | spread |\n|---|---|---|---|---|---|\n'
for name in reference "${usable[@]}"; do
  # shellcheck disable=SC2016 # a table in Markdown
  printf '| %s | `%s` | %.2f | %s | %.2f | %s |\n' "$name" "${settings[$name]//@/ }" "$(of "tps-$name")" "$(samples "tps-$name" | spread)" \
    "$(of "sync-$name")" "$(samples "sync-$name" | spread)"
done
