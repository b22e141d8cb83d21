#!/bin/bash
# Entry point of the everhold-test/postgres image. Does what people know from the official image: makes a cluster
# in an empty $PGDATA, then runs postgres as the user postgres. Durability settings stay at their defaults (fsync on).
set -euo pipefail

[[ ${1:-postgres} != -* ]] || set -- postgres "$@"
[[ ${1:-postgres} == postgres ]] || exec "$@"

if ((EUID == 0)); then
  mkdir -p "$PGDATA"
  # Only what has another owner: a chown of everything would rewrite every inode of a large volume at each start.
  find "$PGDATA" ! -user postgres -exec chown postgres:postgres {} +
  chmod 0700 "$PGDATA"
  exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

if [[ ! -s $PGDATA/PG_VERSION ]]; then
  method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
  if [[ -z ${POSTGRES_PASSWORD:-} && $method != trust ]]; then
    echo "Set POSTGRES_PASSWORD, or POSTGRES_HOST_AUTH_METHOD=trust to let everyone in." >&2
    exit 1
  fi
  initdb --username="${POSTGRES_USER:-postgres}" --auth-local=trust --auth-host="$method" \
    --pwfile=<(printf '%s\n' "${POSTGRES_PASSWORD:-unused}")
  printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
  if [[ ${POSTGRES_DB:-postgres} != postgres ]]; then
    # Single-user mode: with a temporary server, pg_isready would say yes before the real one is there.
    echo "CREATE DATABASE \"$POSTGRES_DB\"" | postgres --single -j postgres >/dev/null
  fi
fi
exec "$@"
