#!/bin/sh
# Starts a Sentinel. It writes what it learns into its own configuration, so a restart goes on with that.
#
#   NODE    this Sentinel, as the others reach it: name or name:port
#   FIRST   the server that is the primary at the first start
#   QUORUM  Sentinels that must agree that the primary is down
set -eu
port_of() { case $1 in *:*) echo "${1##*:}" ;; *) echo "$2" ;; esac; }

config=${DATA:-/data}/sentinel.conf
if [ ! -s "$config" ]; then
  cat >"$config.new" <<END
port $(port_of "$NODE" 26379)
dir ${DATA:-/data}
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip ${NODE%%:*}
sentinel announce-port $(port_of "$NODE" 26379)
sentinel monitor gpt4rec ${FIRST%%:*} $(port_of "$FIRST" 6379) ${QUORUM:-2}
sentinel down-after-milliseconds gpt4rec ${DOWN_AFTER_MS:-5000}
sentinel failover-timeout gpt4rec 30000
END
  mv "$config.new" "$config"
fi
exec valkey-server "$config" --sentinel
