# shellcheck shell=bash disable=SC2154 # dir and its like are of lib.sh
# Part of bench.sh: 1,000 volumes on one daemon.

# ticks PID: processor time of all its threads so far, in ms.
processor_ms() { awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); print ($12 + $13) * 1000 / hz }' "/proc/$1/stat"; }

bench_thousand() {
  local count=1000 i options rounds=9 seconds=10 from before after
  [[ -z $quick ]] || { count=200 rounds=5 seconds=5; }
  section "$count volumes, half of them images of 16 MiB, half directories, on one daemon"
  for ((i = 0; i < count; i++)); do
    options='\"driver\":\"dir\"'
    ((i % 2)) || options='\"driver\":\"image\",\"size\":\"16MiB\"'
    ((i == 0)) || echo next
    cat <<REQUEST
unix-socket = "$dir/run/everhold.sock"
url = "http://everhold/v1/volumes"
output = "/dev/null"
header = "Content-Type: application/json"
data = "{\"name\":\"many$i\",\"options\":{$options}}"
REQUEST
  done >"$dir/requests"
  from=$(us)
  curl --no-progress-meter --fail-early --parallel --parallel-max 8 --config "$dir/requests" ||
    die 'volumes could not be created'
  result many-create "creating them, 8 at once, each" "$(awk -v f="$from" -v t="$(us)" -v n=$count 'BEGIN { print (t - f) / 1000 / n }')" ms
  [[ $(everhold volume ls --json | grep -o '"name": *"many[0-9]*"' | wc -l) == "$count" ]] || die 'not all of them are there'

  for ((i = 0; i < rounds; i++)); do
    # In turn after an orderly stop and after a kill.
    if ((i % 2)); then stop_daemon KILL; else stop_daemon TERM; fi
    sample "start-$((i % 2))" "$(start_daemon)"
  done
  result start 'start to the first answer, after an orderly stop' "$(of start-0)" ms '<=' 1000
  result start-killed 'start to the first answer, after kill -9' "$(of start-1)" ms '<=' 1000
  result start-log 'start to ready, as the daemon logs it' "$(sed -n 's/.*ready.* took=\([0-9.]*\)\(m*s\).*/\1 \2/p' "$dir/daemon.log" |
    tail -n "$rounds" | awk '{ print $2 == "ms" ? $1 : $1 * 1000 }' | median)" ms

  for ((i = 0; i < rounds * 2 + 1; i++)); do sample ls "$(timed everhold volume ls)"; done
  result ls 'everhold volume ls' "$(of ls)" ms '<=' 50

  sleep 4 # threads for blocking work end 2 s after their last
  before=$(processor_ms "$(daemon_pid)")
  sleep "$seconds"
  after=$(processor_ms "$(daemon_pid)")
  result idle "processor time when idle, of one core" "$(awk -v b="$before" -v a="$after" -v s="$seconds" 'BEGIN { print (a - b) / s / 10 }')" % '<=' 0.5
  result memory 'resident memory' "$(awk '/^VmRSS/ { print $2 / 1024 }' "/proc/$(daemon_pid)/status")" MiB '<=' 64
  result memory-peak 'resident memory, at most since the start' "$(awk '/^VmHWM/ { print $2 / 1024 }' "/proc/$(daemon_pid)/status")" MiB

  # How an attach depends on how many are attached.
  everhold volume create probe -o driver=image -o size=16MiB >/dev/null
  attach_and_detach "$rounds" few
  local attached=$((count / 2)) # all the images
  for ((i = 0; i < attached; i++)); do everhold volume mount --id bench "many$((i * 2))" >/dev/null 2>&1; done
  attach_and_detach "$rounds" many
  result attach-few 'everhold volume mount, image, none other attached' "$(of attach-few)" ms
  result attach-many "everhold volume mount, image, $attached others attached" "$(of attach-many)" ms
  stop_daemon KILL
  result start-attached "start to the first answer, $attached images attached, after kill -9" "$(start_daemon)" ms '<=' 1000
  for ((i = 0; i < attached; i++)); do everhold volume unmount --id bench "many$((i * 2))" >/dev/null; done
}

attach_and_detach() {
  local i
  for ((i = 0; i < $1; i++)); do
    sample "attach-$2" "$(timed everhold volume mount --id bench probe)"
    everhold volume unmount --id bench probe >/dev/null
  done
}
