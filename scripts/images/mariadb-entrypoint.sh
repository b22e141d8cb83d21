#!/bin/bash
# Entry point of the everhold-test/mariadb image. Makes a database in an empty /var/lib/mysql, then runs mariadbd as the user mysql.
# Durability settings stay at their defaults (innodb_flush_log_at_trx_commit=1, double write on).
set -euo pipefail

[[ ${1:-mariadbd} == mariadbd ]] || exec "$@"
data=/var/lib/mysql

if ((EUID == 0)); then
  mkdir -p "$data"
  # Only what has another owner: a chown of everything would rewrite every inode of a large volume at each start.
  find "$data" ! -user mysql -exec chown mysql:mysql {} +
  chmod 0700 "$data"
  exec setpriv --reuid=mysql --regid=mysql --init-groups "$0" "$@"
fi

if [[ ! -d $data/mysql ]]; then
  # docker exec comes as root, and root logs in by being root on the socket.
  mariadb-install-db --user=mysql --datadir="$data" --auth-root-authentication-method=socket --skip-test-db >/dev/null
fi
exec mariadbd --datadir="$data" --socket=/run/mysqld/mysqld.sock --skip-networking --skip-name-resolve "${@:2}"
