#!/bin/sh
# Starts a node of a cluster. What it knows of the cluster is in its data folder; its address may change with a restart.
#
#   NODE  this node, as the others and the service reach it: name or name:port
set -eu
port=6379
case $NODE in *:*) port=${NODE##*:} ;; esac
exec valkey-server --port "$port" --dir "${DATA:-/data}" --appendonly yes --appendfsync everysec --maxmemory "${MAXMEMORY:-0}" \
  --cluster-enabled yes --cluster-config-file nodes.conf --cluster-node-timeout "${NODE_TIMEOUT_MS:-5000}" \
  --cluster-announce-hostname "${NODE%%:*}" --cluster-preferred-endpoint-type hostname
