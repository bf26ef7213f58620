"""Whatever makes Redis unusable has one cause of a small set."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import hiredis
import pytest
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.store.redis.redis_causes import CAUSES, MEANINGS, cause_of

FOUND = [
    ("wrong_password", AuthenticationError("invalid username-password pair or user is disabled.")),
    ("wrong_password", hiredis.ReplyError("WRONGPASS invalid username-password pair")),
    ("wrong_password", hiredis.ReplyError("NOAUTH Authentication required.")),
    ("no_permission", NoPermissionError("this user has no permissions to run the 'evalsha' command")),
    ("no_permission", ResponseError("The user executing the script can't run this command or subcommand")),
    ("no_permission", ResponseError("ACL failure in script: User a has no permissions to run the 'set' command")),
    ("bad_database", ResponseError("DB index is out of range")),
    ("too_old", ResponseError("Error compiling script (new function): user_script:1: unexpected symbol near '#'")),
    ("no_scripts", ResponseError("unknown command 'EVALSHA', with args beginning with: 'x'")),
    ("no_master", ResponseError("unknown command 'SENTINEL', with args beginning with: 'MASTERS'")),
    ("cluster_off", RedisClusterException("Cluster mode is not enabled on this node")),
    ("cluster_on", MovedError("866 127.0.0.1:7001")),
    ("cluster_on", hiredis.ReplyError("MOVED 866 127.0.0.1:7001")),
    ("slots_uncovered", RedisClusterException("All slots are not covered after query all startup_nodes.")),
    ("slots_uncovered", hiredis.ReplyError("CLUSTERDOWN Hash slot not served")),
    ("read_only", ReadOnlyError("You can't write against a read only replica.")),
    ("read_only", RedisConnectionError("The previous master is now a slave")),
    ("read_only", hiredis.ReplyError("UNBLOCKED force unblock from blocking operation")),
    ("too_few_replicas", ResponseError("NOREPLICAS Not enough good replicas to write.")),
    ("out_of_memory", OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")),
    ("disk", ResponseError("MISCONF Errors writing to the AOF file: No space left on device")),
    ("loading", BusyLoadingError("Redis is loading the dataset in memory")),
    ("wrong_type", hiredis.ReplyError("WRONGTYPE Operation against a key holding the wrong kind of value")),
    ("too_many_clients", ResponseError("max number of clients reached")),
    ("tls", ssl.SSLCertVerificationError("certificate verify failed")),
    ("tls", hiredis.ProtocolError("Protocol error, got \"\\x15\" as reply type byte")),
    ("unknown_host", socket.gaierror(-2, "Name or service not known")),
    ("unknown_host", UnicodeError("label too long")),
    ("refused", ConnectionRefusedError(111, "Connect call failed")),
    ("refused", FileNotFoundError(2, "No such file or directory")),
    ("timeout", RedisTimeoutError("Timeout reading from 127.0.0.1:6379")),
    ("timeout", TimeoutError()),
    ("no_master", RedisConnectionError("No master found for 'shop'")),
    ("not_redis", hiredis.ProtocolError("Protocol error, got \"H\" as reply type byte")),
    ("disconnected", ConnectionResetError(104, "Connection reset by peer")),
    ("disconnected", RedisConnectionError("Connection closed by server.")),
    ("other", ValueError("what is this")),
]  # fmt: skip


@pytest.mark.parametrize(("cause", "error"), FOUND, ids=lambda value: str(value)[:40])
def test_an_error_has_its_cause_also_inside_another(cause: str, error: Exception) -> None:
    assert cause_of(error) == cause
    try:
        raise RuntimeError("wrapped") from error
    except RuntimeError as outer:
        assert cause_of(outer) == cause


def test_every_cause_is_found_and_has_its_words() -> None:
    assert {cause for cause, _ in FOUND} == set(CAUSES) == set(MEANINGS)
    page = (Path(__file__).parents[5] / "docs" / "deployment.md").read_text()
    assert all(f"| `{cause}` | {meaning} |" in page for cause, meaning in MEANINGS.items())
