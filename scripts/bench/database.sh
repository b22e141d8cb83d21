# shellcheck shell=bash disable=SC2154 # dir and its like are of lib.sh
# Part of bench.sh: PostgreSQL and fio on volumes, against a directory of the same host file system.

# What is compared, and the options of its volume; "host" is the plain directory.
declare -A places=(
  [host]='' [dir]='driver=dir' [image]='driver=image size=6GiB' [thick]='driver=image size=6GiB provisioning=thick'
  [xfs]='driver=image size=6GiB fs=xfs'
)
order=(host dir image thick xfs)
declare -A called=([host]='host directory' [dir]=dir [image]='image ext4 thin' [thick]='image ext4 thick' [xfs]='image xfs thin')

# rotated N: the places, beginning with another one each round, so that none always comes after the same.
rotated() { printf '%s\n' "${order[@]:$(($1 % ${#order[@]}))}" "${order[@]:0:$(($1 % ${#order[@]}))}"; }

bench_database() {
  local place options i port rounds=4 seconds=20 scale=20 value
  [[ -z $quick ]] || { order=(host dir image) rounds=2 seconds=8 scale=10; }

  for place in "${order[@]}"; do
    [[ $place != host ]] || { mkdir -p "$dir/at/host" && continue; }
    read -ra options <<<"${places[$place]}"
    volume "$place" "${options[@]}"
  done

  section "PostgreSQL 15, pgbench TPC-B, scale $scale, 4 clients; $rounds rounds of $seconds s each, medians of the ratios of each round"
  pg_template "$scale"
  port=5401
  declare -A ports
  for place in "${order[@]}"; do
    ports[$place]=$port
    pg_put "$dir/at/$place/pg" $((port++))
    value=$(pg_slice "$dir/at/$place/pg" "${ports[$place]}" 3) # the first writes after the copy: allocation, hint bits, caches
  done
  for ((i = 0; i < rounds; i++)); do
    while read -r place; do
      value=$(pg_slice "$dir/at/$place/pg" "${ports[$place]}" "$seconds")
      sample "tps-$place" "$value"
    done < <(rotated "$i")
  done
  for place in "${order[@]}"; do
    pg_stop "$dir/at/$place/pg"
    rm -r "$dir/at/$place/pg"
  done
  rm -r "$dir/template"
  report_places tps tps 1.0 0.75

  rounds=2 seconds=4
  [[ -z $quick ]] || { rounds=1 seconds=2; }
  local job
  declare -A jobs=([fsync]='8K write + fsync' [random]='4K random write, queue depth 16' [write]='1M sequential write' [read]='1M sequential read')
  for job in fsync random write read; do
    section "fio, ${jobs[$job]}; $rounds rounds of $seconds s"
    for ((i = 0; i < rounds; i++)); do
      while read -r place; do
        sample "$job-$place" "$(fio_slice "$dir/at/$place" "$job" "$seconds")"
      done < <(rotated "$i")
    done
    case $job in fsync | random) report_places "$job" IOPS ;; *) report_places "$job" MiB/s ;; esac
  done
  for place in "${order[@]}"; do
    rm "$dir/at/$place/fio"
    [[ $place == host ]] || drop_volume "$place"
  done
  everhold trash empty -y >/dev/null
}

# report_places KEY UNIT [AIM-OF-DIR AIM-OF-IMAGE]
report_places() {
  local place relation aim
  for place in "${order[@]}"; do result "$1-$place" "${called[$place]}" "$(of "$1-$place")" "$2"; done
  for place in "${order[@]:1}"; do
    relation='' aim=''
    case $place in
      # The same directory measured twice differs by some per cent: 1.0 as far as can be told.
      dir) aim=${3:+0.97} ;;
      image) aim=${4:-} ;;
    esac
    [[ -z $aim ]] || relation='>='
    result "$1-$place-ratio" "${called[$place]} against the host directory ($(ratios "$1-$place" "$1-host" | spread))" \
      "$(ratios "$1-$place" "$1-host" | median)" × "$relation" "$aim"
  done
}
