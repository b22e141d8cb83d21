# shellcheck shell=bash disable=SC2154 # dir and its like are of lib.sh
# Part of bench.sh: histories. What cuts cost an application, and how fast they, full copies and restores are, next to restic and cp.

mib() { awk -v b="$1" 'BEGIN { print b / 1048576 }'; }
per() { awk -v a="$1" -v b="$2" 'BEGIN { if (b > 0) print a / b; else print "nan" }'; }
# percentile P of numbers on standard input.
percentile() { sort -g | awk -v p="$1" '{ v[NR] = $1 } END { if (!NR) { print "nan"; exit } at = int(NR * p / 100 + 0.999999); print v[at < 1 ? 1 : at] }'; }

# protection NAME FIELD
protection() { api http://everhold/v1/protection | jq -r --arg name "$1" ".volumes[] | select(.name == \$name) | .$2 // empty"; }

# wait_for_first_cut NAME: until its whole content is in the vault.
wait_for_first_cut() {
  local end=$((SECONDS + 300))
  until [[ -n $(protection "$1" newest_cut) ]]; do
    ((SECONDS < end)) || die "no cut of $1: $(protection "$1" trouble)"
    sleep 0.02
  done
}

# sample_protection NAME SECONDS: ten times a second a line "age_ms cut freeze_ms took_ms". One connection: a process for each
# look would be a load of its own.
sample_protection() {
  perl -MIO::Socket::UNIX -MTime::HiRes=time,sleep -MTime::Local=timegm -e '
    my ($path, $name, $seconds) = @ARGV;
    my $end = time + $seconds;
    my $socket = IO::Socket::UNIX->new(Peer => $path) or die "no daemon: $!";
    while (time < $end) {
      print $socket "GET /v1/protection HTTP/1.1\r\nHost: everhold\r\n\r\n";
      my ($length, $body) = (0, "");
      while (defined(my $line = <$socket>)) { $length = $1 if $line =~ /^content-length: (\d+)/i; last if $line eq "\r\n"; }
      read $socket, $body, $length;
      my ($one) = $body =~ /(\{"name":"\Q$name\E".*?)(?=\{"name"|$)/s;
      if ($one && $one =~ /"newest_time":"(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)(\.\d+)?Z"/) {
        my $age = time - timegm($6, $5, $4, $3, $2 - 1, $1) - ($7 || 0);
        my ($cut) = $one =~ /"newest_cut":(\d+)/;
        my ($freeze) = $one =~ /"last_freeze_ms":([\d.]+)/;
        my ($took) = $one =~ /"last_cut_ms":([\d.]+)/;
        printf "%.1f %d %s %s\n", $age * 1000, $cut, $freeze // "nan", $took // "nan";
      }
      sleep 0.1;
    }' "$dir/run/everhold.sock" "$1" "$2"
}

# start_s3: an S3 server on a loopback port, of the tests; sets $s3_endpoint and the keys.
start_s3() {
  local line
  coproc S3 { exec target/release/everhold-test-s3; }
  while read -r line <&"${S3[0]}" && [[ -n $line ]]; do
    case $line in
      endpoint=*) s3_endpoint=${line#endpoint=} s3_endpoint=${s3_endpoint%% *} ;;
      *) eval "$line" ;;
    esac
  done
}

bench_history() {
  # The daemon must have the keys of the S3 server in its environment.
  stop_daemon TERM
  start_s3
  # A volume of 1 TiB wants a pool that has as much, if only on paper.
  truncate -s 2T "$dir/vast.img"
  mkfs.xfs -q "$dir/vast.img"
  mkdir "$dir/vast"
  mount -o loop "$dir/vast.img" "$dir/vast"
  printf '[pool.vast]\npath = "%s"\nreserve = "0%%"\n' "$dir/vast/pool" >>"$dir/config.toml"
  start_daemon >/dev/null
  everhold vault add far s3://vaults/bench --endpoint "$s3_endpoint" >/dev/null 2>&1
  for part in ${HISTORY_PARTS:-load sparse pipeline restore idle}; do "history_$part"; done
}

# --- What cuts cost a database ------------------------------------------------------------------------------------

history_load() {
  local i place value port=5501 rounds=4 seconds=20 scale=20
  [[ -z $quick ]] || rounds=2 seconds=8 scale=10
  section "PostgreSQL 15, pgbench TPC-B, scale $scale, 4 clients, a cut every second; $rounds rounds of $seconds s each"
  volume plain size=4GiB protect=off
  volume near size=4GiB protect=1s
  volume distant size=4GiB protect=1s vault=far
  order=(plain near distant)
  pg_template "$scale"
  declare -A ports
  for place in "${order[@]}"; do
    ports[$place]=$port
    pg_put "$dir/at/$place/pg" $((port++))
    [[ $place == plain ]] || wait_for_first_cut "$place"
    value=$(pg_slice "$dir/at/$place/pg" "${ports[$place]}" 3)
  done
  for ((i = 0; i < rounds; i++)); do
    while read -r place; do
      if [[ $place != plain ]]; then
        echo slice begin >>"$dir/samples/look-$place"
        sample_protection "$place" "$seconds" >>"$dir/samples/look-$place" &
      fi
      value=$(pg_slice "$dir/at/$place/pg" "${ports[$place]}" "$seconds")
      [[ $place == plain ]] || wait $!
      sample "tps-$place" "$value"
    done < <(rotated "$i")
  done
  for place in near distant; do
    # One line a cut. Before a slice nothing changes, so the newest cut is old and should be: ages count from the first new one on.
    awk '$2 == "begin" { first = 0; next } !first { first = $2 } $2 != first && $2 != last { last = $2; print $3 }' "$dir/samples/look-$place" >"$dir/samples/freeze-$place"
    awk '$2 == "begin" { first = 0; next } !first { first = $2 } $2 != first && $2 != last { last = $2; print $4 }' "$dir/samples/look-$place" >"$dir/samples/took-$place"
    awk '$2 == "begin" { first = 0; next } !first { first = $2 } $2 != first { print $1 / 1000 }' "$dir/samples/look-$place" >"$dir/samples/age-$place"
  done
  result history-tps 'with a cut every second, local vault, against without' "$(ratios tps-near tps-plain | median)" × '>=' 0.97
  result history-tps-s3 'with a cut every second, S3 on loopback, against without' "$(ratios tps-distant tps-plain | median)" ×
  result history-plain 'without history' "$(of tps-plain)" tps
  result history-cuts "cuts seen, both vaults ($(lines_of "$dir/samples/freeze-near") + $(lines_of "$dir/samples/freeze-distant"))" \
    "$(cat "$dir"/samples/freeze-{near,distant} | wc -l)" ''
  result history-freeze-median 'how long writers wait in a cut, median' "$(cat "$dir"/samples/freeze-{near,distant} | percentile 50)" ms
  result history-freeze-p99 'how long writers wait in a cut, p99' "$(cat "$dir"/samples/freeze-{near,distant} | percentile 99)" ms '<=' 60
  result history-freeze-most 'how long writers wait in a cut, at most' "$(cat "$dir"/samples/freeze-{near,distant} | percentile 100)" ms
  result history-took 'a whole cut under that load, median' "$(of took-near)" ms
  result history-age 'age of the newest durable cut, local vault, p99' "$(percentile 99 <"$dir/samples/age-near")" s '<=' 2
  result history-age-s3 'age of the newest durable cut, S3 on loopback, p99' "$(percentile 99 <"$dir/samples/age-distant")" s '<=' 2
  for place in "${order[@]}"; do
    pg_stop "$dir/at/$place/pg"
    drop_volume "$place"
  done
  rm -r "$dir/template"
  everhold trash empty -y >/dev/null
}

# --- A little that changes in something large ---------------------------------------------------------------------

history_sparse() {
  local i rounds=15 before memory
  [[ -z $quick ]] || rounds=7
  section "1,000 blocks of 4 KiB, spread over 4 GiB, changed in a sparse image of 1 TiB; $rounds rounds"
  before=$(awk '/^VmallocUsed/ { print $2 }' /proc/meminfo)
  volume vast size=1TiB pool=vast protect=1h
  wait_for_first_cut vast
  fallocate -l 4G "$dir/at/vast/file"
  scatter() {
    fio --name=it --filename="$dir/at/vast/file" --size=4G --rw=randwrite --bs=4k --direct=1 --io_size=4096000 --iodepth=16 \
      --ioengine=libaio --randseed="$1" --output-format=terse >/dev/null
  }
  for ((i = 0; i < rounds; i++)); do
    scatter "$i"
    sync --file-system "$dir/at/vast/file"
    everhold snapshot create vast "s$i" >/dev/null
    # The first ones write the extents' headers too.
    ((i < 2)) || sample vast-took "$(protection vast last_cut_ms)"
    ((i < 2)) || sample vast-freeze "$(protection vast last_freeze_ms)"
  done
  memory=$(awk -v b="$before" '/^VmallocUsed/ { print ($2 - b) / 1024 }' /proc/meminfo)
  result vast-cut 'a cut of 1,000 changed blocks, from beginning to queued' "$(of vast-took)" ms '<=' 50
  result vast-freeze 'of that, writers wait' "$(of vast-freeze)" ms
  result vast-memory 'memory for its tracking' "$memory" MiB '<=' 48
  drop_volume vast
  everhold trash empty -y >/dev/null
}

# --- Full copies and restores -------------------------------------------------------------------------------------

# mixed_data DIR: some 4 GiB of what hosts have: programs, libraries, texts, a database.
mixed_data() {
  local copy=0 want=$((${quick:+1} + 0 ? 1 : 4)) used
  mkdir -p "$1"
  while :; do
    cp --archive --one-file-system /usr "$1/usr$copy"
    used=$(du -s --block-size=1G "$1" | cut -f1)
    ((used < want)) || break
    copy=$((copy + 1))
  done
}

history_pipeline() {
  local size=4 took bytes from to pid
  [[ -z $quick ]] || size=1
  section "Full copies: $size GiB of half-compressible data; $size GiB and more of mixed real data against restic $(restic version | awk '{ print $2 }')"

  # One core: the daemon with all its threads.
  volume half size=$((size + 1))GiB protect=off
  perl -e 'my ($n) = @ARGV; open my $r, "<", "/dev/urandom"; for (1 .. $n * 512) { my $out = ""; for (1 .. 512) { read $r, my $x, 2048; $out .= $x . "\0" x 2048 } print $out }' \
    "$size" >"$dir/at/half/file"
  sync --file-system "$dir/at/half/file"
  quiet
  pid=$(daemon_pid)
  taskset --all-tasks --cpu-list --pid 0 "$pid" >/dev/null
  from=$(us)
  everhold protect half --interval 1h >/dev/null
  wait_for_first_cut half
  to=$(us)
  taskset --all-tasks --cpu-list --pid "0-$(($(nproc) - 1))" "$pid" >/dev/null
  bytes=$((size << 30))
  result pipeline 'the cut pipeline on one core: read, hash, compress, seal, write' \
    "$(awk -v b=$bytes -v f="$from" -v t="$to" 'BEGIN { print b / (t - f) }')" MB/s '>=' 400
  drop_volume half
  everhold trash empty -y >/dev/null

  volume mixed size=$((size * 2 + 4))GiB protect=off
  mixed_data "$dir/at/mixed"
  sync --file-system "$dir/at/mixed"
  bytes=$(du -s --block-size=1 "$dir/at/mixed" | cut -f1)
  echo 3 >/proc/sys/vm/drop_caches
  quiet
  from=$(us)
  everhold protect mixed --interval 1h >/dev/null
  wait_for_first_cut mixed
  to=$(us)
  sample full-everhold "$(awk -v f="$from" -v t="$to" 'BEGIN { print (t - f) / 1e6 }')"
  export RESTIC_PASSWORD=bench RESTIC_CACHE_DIR=$dir/restic-cache
  restic init --quiet --repository-version 2 --repo "$dir/restic"
  echo 3 >/proc/sys/vm/drop_caches
  quiet
  took=$(timed restic backup --quiet --repo "$dir/restic" "$dir/at/mixed")
  sync --file-system "$dir/restic"
  sample full-restic "$(awk -v t="$took" 'BEGIN { print t / 1000 }')"
  result full-everhold "first full cut of $(mib "$bytes" | cut -d. -f1) MiB of mixed real data" "$(of full-everhold)" s
  result full-restic 'restic backup of the same files' "$(of full-restic)" s
  result full-ratio 'how many times as fast as restic' "$(ratios full-restic full-everhold | median)" × '>=' 2
  result full-stored 'what the vault takes, against the files' \
    "$(per "$(api http://everhold/v1/volumes/mixed/history | jq .stored)" "$bytes")" ×
  result full-stored-restic 'what the repository of restic takes (it finds duplicates), against the files' \
    "$(per "$(du -s --block-size=1 "$dir/restic" | cut -f1)" "$bytes")" ×
}

# Goes on with what history_pipeline made.
history_restore() {
  local i rounds=3 took image one
  [[ -z $quick ]] || rounds=2
  section "Restores of the same data; $rounds rounds"
  image=$(find "$dir/state" -name image -size +1G -printf '%s %p\n' | sort -rn | head -n 1 | cut -d' ' -f2-)
  one=$(du -s --block-size=1 "$image" | cut -f1)
  for ((i = 0; i < rounds; i++)); do
    echo 3 >/proc/sys/vm/drop_caches
    quiet
    sample restore-everhold "$(timed everhold restore mixed --at now --as "again$i")"
    echo 3 >/proc/sys/vm/drop_caches
    quiet
    # shellcheck disable=SC2016 # the inner shell expands it
    sample restore-cp "$(timed bash -c 'cp --sparse=always "$1" "$2" && sync --file-system "$2"' _ "$image" "$dir/copy")"
    rm "$dir/copy"
    if ((i < 2)); then
      echo 3 >/proc/sys/vm/drop_caches
      quiet
      # shellcheck disable=SC2016
      sample restore-restic "$(timed bash -c 'restic restore --quiet --repo "$1" --target "$2" latest && sync --file-system "$2"' _ "$dir/restic" "$dir/restored")"
      rm -r "$dir/restored"
    fi
    everhold volume rm "again$i" >/dev/null 2>&1
    everhold trash empty -y >/dev/null
  done
  result restore "restore as a new volume, $(mib "$one" | cut -d. -f1) MiB of blocks" "$(of restore-everhold)" ms
  result restore-cp 'speed against cp --sparse=always of the image, with sync' "$(ratios restore-cp restore-everhold | median)" × '>=' 0.7
  result restore-restic 'speed against restic restore of the files, with sync' "$(ratios restore-restic restore-everhold | median)" × '>=' 3

  # One per cent of the blocks.
  fallocate -l "$((one / 100))" "$dir/at/mixed/one-per-cent"
  everhold snapshot create mixed before >/dev/null
  for ((i = 0; i < rounds; i++)); do
    dd if=/dev/urandom of="$dir/at/mixed/one-per-cent" bs=1M count=$((one / 100 >> 20)) conv=notrunc,fsync status=none
    umount "$dir/at/mixed"
    everhold volume unmount --id bench mixed >/dev/null
    quiet
    sample restore-in-place "$(timed everhold restore mixed --at before --yes)"
    mount --bind "$(everhold volume mount --id bench mixed 2>/dev/null)" "$dir/at/mixed"
  done
  result restore-in-place 'restore in place with 1 % changed, the cut of the present included' "$(of restore-in-place)" ms
  result restore-in-place-ratio 'against the full restore' "$(per "$(of restore-in-place)" "$(of restore-everhold)")" × '<=' 0.05
  drop_volume mixed
  everhold trash empty -y >/dev/null
  rm -rf "$dir/restic" "$dir/restic-cache"
}

# --- Volumes that do nothing --------------------------------------------------------------------------------------

history_idle() {
  local i count=200 seconds=30 before after end
  [[ -z $quick ]] || count=50 seconds=10
  section "$count idle protected volumes, attached, a cut every second; $seconds s"
  for ((i = 0; i < count; i++)); do
    everhold volume create "idle$i" -o size=32MiB -o protect=1s >/dev/null
    everhold volume mount --id bench "idle$i" >/dev/null 2>&1
  done
  end=$((SECONDS + 120))
  until (($(api http://everhold/v1/protection | jq '[.volumes[] | select(.newest_cut)] | length') >= count)); do
    ((SECONDS < end)) || die 'not all of them were cut'
    sleep 0.5
  done
  sleep 10 # what mounting wrote is cut once more, and lazily initialised
  before=$(processor_ms "$(daemon_pid)")
  sleep "$seconds"
  after=$(processor_ms "$(daemon_pid)")
  result history-idle 'processor time, of one core' "$(awk -v b="$before" -v a="$after" -v s="$seconds" 'BEGIN { print (a - b) / s / 10 }')" % '<=' 1
  result history-idle-memory 'resident memory of the daemon' "$(awk '/^VmRSS/ { print $2 / 1024 }' "/proc/$(daemon_pid)/status")" MiB '<=' 128
  for ((i = 0; i < count; i++)); do
    everhold volume unmount --id bench "idle$i" >/dev/null
    everhold volume rm "idle$i" >/dev/null 2>&1
  done
  everhold trash empty -y >/dev/null
}
