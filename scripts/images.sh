#!/usr/bin/env bash
# Docker images for tests, demo and benchmarks, made without a registry.
# usage: scripts/images.sh                      builds what is missing or outdated, prints the paths of the tarballs
#        scripts/images.sh load [-H DOCKER_URL] [busybox|postgres|mariadb|redis]…
#                                              imports them where they aren't: everhold-test/busybox:1, …/postgres:15, …/mariadb:10, …/redis:7
#
# The tarballs (for docker import) are kept in ${EVERHOLD_CACHE:-${XDG_CACHE_HOME:-~/.cache}/everhold}. Each has a recipe
# hash beside it, which is also the label everhold.recipe of the imported image: what has another hash is made again.
set -euo pipefail
# shellcheck source=scripts/as-root.sh
. "$(dirname "$0")/as-root.sh"

here=$(cd "$(dirname "$0")" && pwd)
# Settled before root is asked for: sudo may bring another HOME.
export EVERHOLD_CACHE=${EVERHOLD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/everhold}
as_root "$@"

suite=bookworm # the one with PostgreSQL 15
work=
clean_up() {
  [[ -n $work ]] || return 0
  unmount_below "$work" # debootstrap leaves proc and sys behind when it is interrupted
  rm -rf --one-file-system "$work"
}
trap clean_up EXIT

# A small user land: applets, root and `app` (uid 1000), and /seed, whose owners and modes Docker must copy up.
build_busybox() {
  local root=$1 applet
  mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,etc,dev,proc,sys,root,tmp,home/app,seed/sub}
  cp /bin/busybox "$root/bin/busybox"
  for applet in $(busybox --list-full); do
    [[ $applet == bin/busybox || $applet == linuxrc ]] || ln -sf /bin/busybox "$root/$applet"
  done
  printf '%s\n' root:x:0:0:root:/root:/bin/sh app:x:1000:1000:app:/home/app:/bin/sh >"$root/etc/passwd"
  printf '%s\n' root:x:0: app:x:1000: >"$root/etc/group"
  echo 'from the image' >"$root/seed/file"
  echo 'from the image, deeper' >"$root/seed/sub/file"
  ln -s sub/file "$root/seed/link"
  chmod 0700 "$root/root"
  chmod 1777 "$root/tmp"
  chmod 0750 "$root"/seed{,/sub}
  chmod 0640 "$root"/seed{,/sub}/file
  chown -hR 1000:1000 "$root"/{seed,home/app}
}

# bootstrap ROOT PACKAGE,…: a small Debian with these.
bootstrap() {
  local mirror
  # The host's own mirror: what apt can reach, debootstrap can.
  # shellcheck disable=SC2016 # apt expands it
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $suite" 'Component: main' | head -n 1)
  if [[ -z $mirror ]]; then
    echo "$0: apt knows no mirror of $suite: add one to /etc/apt/sources.list.d and run apt-get update" >&2
    return 1
  fi
  # debootstrap downloads with wget, which doesn't know of apt's proxy.
  eval "$(apt-config shell http_proxy Acquire::http::Proxy https_proxy Acquire::https::Proxy)"
  export http_proxy https_proxy
  debootstrap --variant=minbase --include="$2" "$suite" "$1" "$mirror" >"$work/log" ||
    { tail -n 20 "$work/log" >&2; return 1; }
  # What nobody reads or runs in a container, and what is random or dated: the tarball is to be the same each time.
  rm -rf "$1"/usr/share/{doc,man,info,locale,i18n,lintian} "$1"/var/cache/{apt,debconf}/* "$1"/var/cache/ldconfig/* \
    "$1"/var/lib/apt/lists/* "$1"/var/log/* "$1"/debootstrap "$1"/etc/{resolv.conf,hostname,machine-id} \
    "$1"/etc/ssl/{certs,private}/ssl-cert-snakeoil.*
}

# own ROOT USER: gives a user of the image, and all that is the user's, the number 999, as in official images. adduser took
# the next free one, which depends on the order of installation.
own() {
  local root=$1 name=$2 uid gid
  uid=$(chroot "$root" id -u "$name") gid=$(chroot "$root" id -g "$name")
  chroot "$root" groupmod --gid 999 "$name"
  chroot "$root" usermod --uid 999 --gid 999 "$name"
  find "$root" -xdev -uid "$uid" -exec chown -h 999 {} +
  find "$root" -xdev -gid "$gid" -exec chgrp -h 999 {} +
  rm -f "$root"/etc/{passwd,group,shadow,gshadow}-
}

# Debian's PostgreSQL with pgbench; user postgres is 999:999.
build_postgres() {
  local root=$1
  bootstrap "$root" postgresql-15,postgresql-contrib
  # LLVM is for JIT alone, larger than all the rest, and PostgreSQL goes on without it.
  rm -rf "$root"/usr/share/postgresql/15/man "$root"/usr/lib/*/{libLLVM,libz3}* \
    "$root"/usr/lib/postgresql/15/lib/{llvmjit*,bitcode} "$root"/{var/lib,etc}/postgresql/15
  own "$root" postgres

  sed -i "s/^#listen_addresses = 'localhost'/listen_addresses = '*'/" "$root/usr/share/postgresql/15/postgresql.conf.sample"
  install -d -o 999 -g 999 -m 0700 "$root/var/lib/postgresql/data"
  install -d -o 999 -g 999 -m 2775 "$root/var/run/postgresql"
  install -m 0755 "$here/images/postgres-entrypoint.sh" "$root/usr/local/bin/docker-entrypoint.sh"
}

# Debian's MariaDB; user mysql is 999:999.
build_mariadb() {
  local root=$1
  bootstrap "$root" mariadb-server
  rm -rf "$root"/var/lib/mysql "$root"/usr/share/mysql/{test,bench} "$root"/usr/share/mysql-test
  own "$root" mysql
  install -d -o 999 -g 999 -m 0700 "$root/var/lib/mysql"
  install -d -o 999 -g 999 -m 0755 "$root/run/mysqld"
  install -m 0755 "$here/images/mariadb-entrypoint.sh" "$root/usr/local/bin/docker-entrypoint.sh"
}

# Debian's Redis; user redis is 999:999.
build_redis() {
  local root=$1
  bootstrap "$root" redis-server
  own "$root" redis
  install -d -o 999 -g 999 -m 0755 "$root/data"
}

# What the recipe of image $1 depends on, as one short hash.
recipe() {
  {
    declare -f "build_$1" bootstrap own pack
    echo "$suite"
    case $1 in
      busybox) dpkg-query --show busybox-static ;;
      postgres | mariadb) cat "$here/images/$1-entrypoint.sh" ;;
    esac
  } | sha256sum | cut -c1-16
}

# Same tree, same bytes: names in order and no time of the build.
pack() {
  tar --create --file "$2" --directory "$1" --sort=name --mtime=@0 --numeric-owner --one-file-system .
}

# Makes $EVERHOLD_CACHE/$1.tar unless it is there and current.
tarball() {
  local name=$1 tar=$EVERHOLD_CACHE/$1.tar hash
  hash=$(recipe "$name")
  if ! [[ -s $tar && $(cat "$tar.recipe" 2>/dev/null) == "$hash" ]]; then
    echo "Building $tar …" >&2
    work=$(mktemp -d "$EVERHOLD_CACHE/build.XXXXXX")
    mkdir "$work/root"
    chmod 0755 "$work/root" # it becomes / of the image
    "build_$name" "$work/root"
    pack "$work/root" "$work/tar"
    # The hash goes first and comes last: a tarball is current only once both are in place.
    rm -f "$tar.recipe"
    mv "$work/tar" "$tar"
    echo "$hash" >"$tar.recipe"
    clean_up
    work=
  fi
  echo "$tar"
}

# import NAME TAG CHANGE…: only when the engine hasn't got this very recipe.
import() {
  local name=$1 tag=everhold-test/$1:$2 tar=$EVERHOLD_CACHE/$1.tar hash changes=()
  shift 2
  hash=$(<"$tar.recipe")
  if [[ $(docker image inspect --format '{{index .Config.Labels "everhold.recipe"}}' "$tag" 2>/dev/null) != "$hash" ]]; then
    for change in "LABEL everhold.recipe=$hash" "$@"; do changes+=(--change "$change"); done
    docker import "${changes[@]}" "$tar" "$tag" >/dev/null
  fi
  echo "$tag"
}

verb=${1:-build}
(($# == 0)) || shift
if [[ $verb == load && ${1:-} == -H ]]; then
  export DOCKER_HOST=${2:?which engine?}
  [[ $DOCKER_HOST == *://* ]] || DOCKER_HOST=unix://$DOCKER_HOST
  shift 2
fi
[[ $verb == build && $# == 0 || $verb == load ]] || { sed -n '3,5s/^# //p' "$0" >&2; exit 2; }
(($#)) || set -- busybox postgres mariadb redis

mkdir -p "$EVERHOLD_CACHE"
exec 9>"$EVERHOLD_CACHE/lock" && flock 9
path='ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
for name in "$@"; do
  if [[ $verb == build ]]; then
    tarball "$name"
    continue
  fi
  tarball "$name" >/dev/null
  case $name in
    busybox) import busybox 1 "$path" 'CMD ["sh"]' ;;
    # No VOLUME: without a volume of the user's, the data goes with the container, which is what the demo shows.
    # PGUSER: docker exec comes as root, and a failed login as root would be an error in the database's log.
    postgres)
      import postgres 15 "${path/PATH=/PATH=/usr/lib/postgresql/15/bin:}" 'ENV PGDATA=/var/lib/postgresql/data' \
        'ENV LANG=C.UTF-8' 'ENV PGUSER=postgres' 'ENV POSTGRES_HOST_AUTH_METHOD=trust' 'EXPOSE 5432' \
        'ENTRYPOINT ["docker-entrypoint.sh"]' 'CMD ["postgres"]'
      ;;
    mariadb)
      import mariadb 10 "$path" 'ENV LANG=C.UTF-8' 'ENTRYPOINT ["docker-entrypoint.sh"]' 'CMD ["mariadbd"]'
      ;;
    # Nothing is saved by itself: what is in the files is what somebody asked for.
    redis)
      # shellcheck disable=SC2016 # the container's shell expands it
      import redis 7 "$path" 'ENV LANG=C.UTF-8' 'WORKDIR /data' 'USER redis' \
        'ENTRYPOINT ["sh", "-c", "exec redis-server --bind 127.0.0.1 --dir /data --save \"\" ${REDIS_PASSWORD:+--requirepass \"$REDIS_PASSWORD\"}"]'
      ;;
    *) echo "$0: no image is called $name" >&2; exit 2 ;;
  esac
done
