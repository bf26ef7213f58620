"""Why Redis cannot be used: one small set of causes, for logs, metrics, /readyz and the console.

Every error of redis-py, of the operating system and of the server is put under one of them by `cause_of`. The texts of
the servers are matched, because redis-py has no class of its own for most of them.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Literal, get_args

Cause = Literal[
    "wrong_password",
    "no_permission",
    "bad_database",
    "too_old",
    "no_scripts",
    "cluster_off",
    "cluster_on",
    "slots_uncovered",
    "read_only",
    "too_few_replicas",
    "out_of_memory",
    "disk",
    "loading",
    "wrong_type",
    "too_many_clients",
    "tls",
    "unknown_host",
    "refused",
    "timeout",
    "no_master",
    "not_redis",
    "disconnected",
    "other",
]
CAUSES: tuple[Cause, ...] = get_args(Cause)

MEANINGS: dict[Cause, str] = {
    "wrong_password": "the user or the password is wrong",
    "no_permission": "the user lacks rights: see the ACL line in docs/deployment.md",
    "bad_database": "the server does not have this database",
    "too_old": "the server is older than Redis 7, or than the durability needs",
    "no_scripts": "the server does not run Lua scripts",
    "cluster_off": "the URL is that of a cluster, and the server is none",
    "cluster_on": "the server belongs to a cluster: use redis+cluster://",
    "slots_uncovered": "some slots of the cluster have no server",
    "read_only": "the server is a replica, so a fail-over is under way or the address is that of a replica",
    "too_few_replicas": "too few replicas have the writes",
    "out_of_memory": "the server has no memory left (maxmemory)",
    "disk": "the server cannot write to its disk",
    "loading": "the server is loading its data",
    "wrong_type": "a key has a type that this service did not write",
    "too_many_clients": "the server has no connection left (maxclients)",
    "tls": "the TLS handshake failed",
    "unknown_host": "the name of the host is unknown",
    "refused": "nothing listens at the address",
    "timeout": "there was no reply in time (with rediss, also if the port does not speak TLS)",
    "no_master": "no Sentinel knows a master of this name",
    "not_redis": "what listens at the address does not speak the protocol of Redis",
    "disconnected": "the connection was lost (with redis, also if the port speaks TLS)",
    "other": "see the detail",
}

# The first line with a text that occurs in the error decides. Replies of servers come before errors of the network,
# because a text about a reply may quote the network.
_TEXTS: tuple[tuple[Cause, tuple[str, ...]], ...] = (
    ("wrong_password", ("wrongpass", "noauth", "invalid password", "invalid username", "authentication required",
                        "without any password configured", "no password is set")),
    ("too_old", ("error compiling script", "unknown command 'waitaof'", "unknown command `waitaof`")),
    # Inside a script, Redis 7.0 and Valkey 9 say so without the code NOPERM.
    ("no_permission", ("noperm", "the user executing the script", "acl failure", "has no permissions")),
    ("bad_database", ("db index is out of range", "select is not allowed", "invalid db index")),
    ("no_master", ("unknown command 'sentinel'",)),
    ("no_scripts", ("unknown command", "unknown redis command")),
    ("cluster_off", ("cluster support disabled", "cluster mode is not enabled")),
    ("slots_uncovered", ("clusterdown", "is not covered by the cluster", "slots are not covered", "slotnotcovered")),
    ("cluster_on", ("moved ", "movederror", "crossslot")),
    ("read_only", ("readonly", "read only replica", "masterdown", "unblocked", "previous master is now a slave")),
    ("too_few_replicas", ("noreplicas", "not enough good replicas", "copies were written")),
    ("out_of_memory", ("oom ", "used memory > 'maxmemory'")),
    ("disk", ("misconf", "appendonly is disabled")),
    ("loading", ("loading ", "busyloading")),
    ("wrong_type", ("wrongtype",)),
    ("too_many_clients", ("max number of clients",)),
    ("tls", ("ssl:", "[ssl", "sslerror", "certificate", "\\x15")),
    ("not_redis", ("protocol error",)),
    ("unknown_host", ("name or service not known", "name resolution", "nodename nor servname",
                      "no address associated")),
    ("refused", ("connection refused", "connect call failed", "error 111", "error 2 connecting", "no such file")),
    ("timeout", ("timeout", "timed out", "no reply in time", "became free")),
    ("no_master", ("no master found",)),
    ("disconnected", ("connection closed", "connection lost", "was lost", "connection reset", "broken pipe")),
)  # fmt: skip

# Types say what their texts may not: redis-py often wraps an error in one with a text of its own.
_TYPES: tuple[tuple[type[BaseException], Cause], ...] = (
    (ssl.SSLError, "tls"),
    (socket.gaierror, "unknown_host"),
    (UnicodeError, "unknown_host"),
    (ConnectionRefusedError, "refused"),
    (FileNotFoundError, "refused"),
    (TimeoutError, "timeout"),
    (ConnectionError, "disconnected"),
)


def meaning(cause: str) -> str:
    """Returns a cause in words; "unknown" for one that is not among `CAUSES`."""
    return next((words for name, words in MEANINGS.items() if name == cause), "unknown")


def cause_of(error: BaseException) -> Cause:
    """Returns the cause of an error of redis-py, of a reply of the server, or of the network."""
    chain = list(_chain(error))
    text = "\n".join(f"{type(one).__name__}: {one}" for one in chain).lower()
    for cause, texts in _TEXTS:
        if any(part in text for part in texts):
            return cause
    for kind, cause in _TYPES:
        if any(isinstance(one, kind) for one in chain):
            return cause
    return "disconnected" if "connectionerror" in text else "other"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields the error and those that led to it, at most a few."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__
