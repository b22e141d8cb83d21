# shellcheck shell=bash disable=SC2154 # dir and its like are of lib.sh
# Part of bench.sh: what a volume costs Docker, by Docker's own client and by calling the plugin's socket.

declare -A volume_options=(
  [image]='-o driver=image -o size=1GiB' [xfs]='-o driver=image -o fs=xfs -o size=1GiB' [dir]='-o driver=dir' [local]=''
)

# plugin_call CALL BODY: milliseconds from the request to the answer, without the client's start.
plugin_call() {
  local seconds code
  read -r seconds code < <(curl --silent --show-error --output "$dir/answer" --write-out '%{time_total} %{http_code}\n' \
    --unix-socket "$plugin_socket" --data "$2" "http://plugin/VolumeDriver.$1")
  [[ $code == 200 ]] || die "$1 $2: $(<"$dir/answer")"
  awk -v s="$seconds" 'BEGIN { print s * 1000 }'
}

# json_options -o a=b …: {"a":"b",…}
json_options() {
  local word out=''
  for word in "$@"; do [[ $word == -o ]] || out+="${out:+,}\"${word%%=*}\":\"${word#*=}\""; done
  echo "{$out}"
}

bench_docker() {
  local rounds=${quick:+7} kind i options body
  : "${rounds:=21}"
  section "Docker: docker volume create + rm, docker run --rm (busybox true); medians of $rounds rounds, client included"
  for ((i = 0; i <= rounds; i++)); do
    for kind in image xfs dir local; do
      read -ra options <<<"${volume_options[$kind]}"
      [[ $kind == local ]] || options+=(-d "$driver")
      c=$(timed docker volume create "${options[@]}" "v$i$kind")
      r=$(timed docker volume rm "v$i$kind")
      # The first round warms up.
      ((i == 0)) || { sample "create-$kind" "$c" && sample "rm-$kind" "$r"; }
    done
  done
  result create-image 'create, image ext4' "$(of create-image)" ms '<=' 60
  result create-xfs 'create, image xfs' "$(of create-xfs)" ms
  result create-dir 'create, dir' "$(of create-dir)" ms
  result create-local 'create, local driver' "$(of create-local)" ms
  result create-dir-ratio 'create, dir against local' "$(ratios create-dir create-local | median)" × '<=' 2
  result rm-image 'rm (to the trash), image ext4' "$(of rm-image)" ms
  result rm-dir 'rm (to the trash), dir' "$(of rm-dir)" ms
  result rm-local 'rm (for good), local driver' "$(of rm-local)" ms
  everhold trash empty -y >/dev/null

  for kind in image xfs dir local; do
    read -ra options <<<"${volume_options[$kind]}"
    [[ $kind == local ]] || options+=(-d "$driver")
    docker volume create "${options[@]}" "run-$kind" >/dev/null
  done
  for ((i = 0; i <= rounds; i++)); do
    for kind in none image xfs dir local; do
      options=(-v "run-$kind:/data")
      [[ $kind != none ]] || options=()
      r=$(timed docker run --rm --network none "${options[@]}" everhold-test/busybox:1 true)
      ((i == 0)) || sample "run-$kind" "$r"
    done
  done
  result run-none 'run, no volume' "$(of run-none)" ms
  result run-local 'run, local driver' "$(of run-local)" ms
  for kind in image xfs dir; do
    result "run-$kind" "run, $kind" "$(of "run-$kind")" ms
    result "run-$kind-more" "run, $kind, more than local" "$(differences "run-$kind" run-local | median)" ms '<=' 30
  done
  for kind in image xfs dir local; do docker volume rm "run-$kind" >/dev/null; done

  section "The plugin's socket alone; medians of $rounds rounds"
  for ((i = 0; i <= rounds; i++)); do
    for kind in image xfs dir; do
      read -ra options <<<"${volume_options[$kind]}"
      body="\"Name\":\"p$i$kind\""
      c=$(plugin_call Create "{$body,\"Opts\":$(json_options "${options[@]}")}")
      g=$(plugin_call Get "{$body}")
      m=$(plugin_call Mount "{$body,\"ID\":\"bench\"}")
      u=$(plugin_call Unmount "{$body,\"ID\":\"bench\"}")
      # The second time is what a container on an existing volume meets: nothing to initialise any more.
      m2=$(plugin_call Mount "{$body,\"ID\":\"bench\"}")
      u2=$(plugin_call Unmount "{$body,\"ID\":\"bench\"}")
      r=$(plugin_call Remove "{$body}")
      ((i == 0)) || {
        sample "Create-$kind" "$c" && sample "Get-$kind" "$g" && sample "Mount-$kind" "$m" && sample "Unmount-$kind" "$u"
        sample "MountAgain-$kind" "$m2" && sample "UnmountAgain-$kind" "$u2" && sample "Remove-$kind" "$r"
      }
    done
  done
  for kind in image xfs dir; do
    for call in Create Get Mount Unmount MountAgain UnmountAgain Remove; do
      result "plugin-$call-$kind" "$call, $kind" "$(of "$call-$kind")" ms
    done
  done
  everhold trash empty -y >/dev/null
}
