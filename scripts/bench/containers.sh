# shellcheck shell=bash disable=SC2154 # dir and its like are of lib.sh
# Part of bench.sh: whole containers. The audit of a hundred; a rescue and backups of 4 GiB beside what Docker and tar have for the
# same, each with what it has written on the disk at the end (everhold's commands end so by themselves).

# In each container an application writes a page of 8 KiB somewhere in one of the large files, 100 times a second, and notes the time.
application() {
  cat <<'SH'
mkdir -p "$1/small"
for n in 1 2 3 4; do [ -e "$1/$n" ] || dd if=/dev/urandom of="$1/$n" bs=1M count="$2" 2>/dev/null; done
[ -e "$1/small/1999" ] || for n in $(seq 2000); do echo "$n $n $n" >"$1/small/$n"; done
touch /ready
dd if=/dev/urandom of=/page bs=8k count=1 2>/dev/null
n=0
while :; do
  n=$(((n * 1103515245 + 12345) % 2147483648))
  dd if=/page of="$1/$((n / 7 % 4 + 1))" bs=8k count=1 seek=$((n / 31 % ($2 * 128))) conv=notrunc 2>/dev/null
  read -r up rest </proc/uptime
  echo "$up" >>/beats/beats
  usleep 5000
done
SH
}

# start_application NAME PATH MIB [docker run options…]
start_application() {
  local name=$1 path=$2 mib=$3 end=$((SECONDS + 120))
  shift 3
  mkdir -p "$dir/beats-$name"
  docker run --detach --name "$name" --network none --volume "$dir/beats-$name:/beats" "$@" everhold-test/busybox:1 \
    sh -c "$(application)" app "$path" "$mib" >/dev/null
  until docker exec "$name" ls /ready >/dev/null 2>&1; do
    ((SECONDS < end)) || die "$name has not written its files in time"
    sleep 0.2
  done
  sync
}

# longest_gap NAME: milliseconds between two beats of the application, at most, since it was last asked.
longest_gap() {
  awk 'NR > 1 && $1 - last > most { most = $1 - last } { last = $1 } END { printf "%.0f\n", most * 1000 }' "$dir/beats-$1/beats"
  : >"$dir/beats-$1/beats"
}

# durable FILE COMMAND…: runs it, and writes what it has written to the disk.
durable() {
  local file=$1
  shift
  "$@" && sync -f "$file"
}

commit_and_save() {
  docker commit --pause=true "$1" "bench-$1" >/dev/null && docker save --output "$2" "bench-$1" && sync -f "$2"
}

# It says that files have changed, which they have, by exit status 1.
tar_of() { tar --create --warning=no-file-changed --file "$1" --directory "$2" . || (($? == 1)); }

bench_containers() {
  local rounds=${quick:+1} mib=${quick:+128} i n layer volume
  : "${rounds:=3}" "${mib:=1024}"
  local size="$((mib * 4)) MiB"
  export EVERHOLD_CONFIG=$dir/config.toml

  section "Audit of 100 containers"
  for ((i = 0; i < 100; i++)); do
    docker run --detach --name "a$i" --network none everhold-test/busybox:1 \
      sh -c 'mkdir /data; for n in $(seq 200); do echo $n >/data/$n; done; exec sleep 100000' >/dev/null
  done
  sleep 2
  for ((i = 0; i < 5; i++)); do
    n=$(us)
    everhold audit >/dev/null || (($? == 1)) || die "the audit failed"
    sample audit "$((($(us) - n) / 1000))"
  done
  result audit 'time, 100 running containers of 200 files each' "$(of audit)" ms '<=' 5000
  for ((i = 0; i < 100; i++)); do echo "a$i"; done | xargs docker rm --force >/dev/null

  section "Backup and rescue of $((mib * 4)) MiB that are written to; medians of $rounds rounds"
  start_application inlayer /data "$mib"
  docker volume create onvolume >/dev/null
  start_application onvol /data "$mib" --volume onvolume:/data
  layer=$(docker inspect --format '{{.GraphDriver.Data.MergedDir}}' inlayer)
  volume=$(docker volume inspect --format '{{.Mountpoint}}' onvolume)
  for ((i = 0; i < rounds; i++)); do
    quiet
    sample tar "$(timed durable "$dir/tar.tar" tar_of "$dir/tar.tar" "$volume")"
    rm -f "$dir/tar.tar"
    longest_gap onvol >/dev/null
    quiet
    sample backup-volume "$(timed everhold container backup onvol --to "$dir/v.tar")"
    sample backup-volume-gap "$(longest_gap onvol)"
    rm -f "$dir/v.tar"
    quiet
    sample save "$(timed commit_and_save inlayer "$dir/save.tar")"
    docker rmi "bench-inlayer" >/dev/null
    rm -f "$dir/save.tar"
    longest_gap inlayer >/dev/null
    quiet
    sample backup-layer "$(timed everhold container backup inlayer --to "$dir/l.tar")"
    sample backup-layer-gap "$(longest_gap inlayer)"
    rm -f "$dir/l.tar"
    mkdir "$dir/cp"
    quiet
    sample cp "$(timed durable "$dir/cp" docker cp --archive inlayer:/data "$dir/cp")"
    rm -rf "$dir/cp"
    longest_gap inlayer >/dev/null
    quiet
    n=$(us)
    everhold rescue inlayer --path /data --volume "rescued$i" --apply --json >"$dir/rescue.json"
    # Not what it waits to see whether the new container is well.
    sample rescue "$(awk -v took="$((($(us) - n) / 1000))" 'BEGIN { print took - 3000 }')"
    sample rescue-paused "$(jq '.paused * 1000' "$dir/rescue.json")"
    sample rescue-away "$(jq '.away * 1000' "$dir/rescue.json")"
    sample rescue-gap "$(longest_gap inlayer)"
    everhold rescue inlayer --undo >/dev/null
    docker rm --force inlayer-rescued >/dev/null
    docker volume rm "rescued$i" >/dev/null
    everhold trash empty --yes >/dev/null
  done
  [[ -d $layer ]] || die "the container's files have moved"
  result backup-volume "backup, $size on a volume" "$(of backup-volume)" ms
  result backup-volume-ratio 'the same against tar of the volume' "$(ratios backup-volume tar | median)" × '<=' 1
  result backup-volume-gap 'longest pause seen by the application' "$(of backup-volume-gap)" ms '<=' 1000
  result backup-layer "backup, $size in the writable layer" "$(of backup-layer)" ms
  result backup-layer-ratio 'the same against docker commit + docker save' "$(ratios backup-layer save | median)" × '<=' 1
  result backup-layer-gap 'longest pause seen by the application' "$(of backup-layer-gap)" ms '<=' 1000
  result rescue "rescue of $size, without the 3 s of watching" "$(of rescue)" ms
  result rescue-ratio 'the same against docker cp' "$(ratios rescue cp | median)" × '<=' 1
  result rescue-paused 'pause for the last difference' "$(of rescue-paused)" ms '<=' 1000
  result rescue-away 'from the pause until the new container was started' "$(of rescue-away)" ms
  result rescue-gap 'longest pause seen by the application, which is started anew' "$(of rescue-gap)" ms '<=' 1000
  docker rm --force inlayer onvol >/dev/null
  docker volume rm onvolume >/dev/null
}
