#!/bin/sh
# Makes a cluster of nodes that know nothing of each other: half of them primaries, a replica for each. A cluster that is
# there already is left as it is, so this may run again at any time.
#
#   NODES  the nodes, separated by spaces: name or name:port
set -eu
port_of() { case $1 in *:*) echo "${1##*:}" ;; *) echo 6379 ;; esac; }

addresses='' tries=0
for node in $NODES; do
  until valkey-cli -h "${node%%:*}" -p "$(port_of "$node")" ping 2>/dev/null | grep -q PONG; do
    tries=$((tries + 1))
    [ "$tries" -lt 120 ] || { echo "$node does not answer" >&2; exit 1; }
    sleep 1
  done
  # Nodes are introduced to each other by address.
  address=$(getent hosts "${node%%:*}" | awk '{ print $1; exit }')
  addresses="$addresses $address:$(port_of "$node")"
done
first=${NODES%% *}
if valkey-cli -h "${first%%:*}" -p "$(port_of "$first")" cluster info | grep -q '^cluster_slots_assigned:16384'; then
  echo 'the cluster is there'
  exit 0
fi
# shellcheck disable=SC2086 # each address is an argument
exec valkey-cli --cluster create $addresses --cluster-replicas 1 --cluster-yes
