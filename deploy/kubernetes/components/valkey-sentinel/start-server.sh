#!/bin/sh
# Starts a server as the primary, or as a replica of the one that the Sentinels name. While no Sentinel answers, the first
# server is the primary: at the first start of all.
#
#   NODE       this server, as the others reach it: name or name:port
#   FIRST      the first server
#   SENTINELS  the Sentinels, separated by spaces
set -eu
port_of() { case $1 in *:*) echo "${1##*:}" ;; *) echo "$2" ;; esac; }

primary=${FIRST%%:*} at=$(port_of "$FIRST" 6379) name=${NODE%%:*} port=$(port_of "$NODE" 6379)
for sentinel in $SENTINELS; do
  said=$(timeout 3 valkey-cli -h "${sentinel%%:*}" -p "$(port_of "$sentinel" 26379)" --raw \
    sentinel get-master-addr-by-name gpt4rec 2>/dev/null) || continue
  [ "$(echo "$said" | wc -l)" -eq 2 ] || continue
  primary=$(echo "$said" | head -n 1) at=$(echo "$said" | tail -n 1)
  break
done
set --
[ "$primary:$at" = "$name:$port" ] || set -- --replicaof "$primary" "$at"
# A primary that no replica follows refuses writes: what it took would be lost when a replica is promoted.
exec valkey-server --port "$port" --dir "${DATA:-/data}" --appendonly yes --appendfsync everysec \
  --maxmemory "${MAXMEMORY:-0}" --min-replicas-to-write 1 --min-replicas-max-lag 10 \
  --replica-announce-ip "$name" --replica-announce-port "$port" "$@"
