"""What all replicas share in Redis: values set by operators, their audit log, and reports of the replicas.

Keys of the deployment, `gpt4rec:{ops}:…`, all in one hash slot:

    mode, model, policies    hashes: version, time and body of what operators set; and experiments
    counts:<run>             hash: what the arms of a run of an experiment answered
    audit                    capped list of changes, newest first
    replicas                 hash: what each replica reports about itself
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from service.common.errors import StoreUnavailable
from service.store import lua_shared as scripts
from service.store.redis.redis_link import RedisLink, ScriptCall

# Version, time of the change in epoch milliseconds, body.
StoredValue = tuple[int, int, bytes]

_REPLICAS_S = 3600


class SharedValues:
    """Reads and writes what replicas share. Every method raises StoreUnavailable and nothing else."""

    def __init__(self, link: RedisLink, *, prefix: str, timeout_s: float, audit_cap: int) -> None:
        """Uses the connections of `link`; each command has `timeout_s`."""
        self._link = link
        self._prefix = prefix
        self._write_s = timeout_s
        self._audit_cap = audit_cap
        self._audit_key = self._ops_key("audit")
        self._channel = self._ops_key("changed")

    async def read_shared(self, name: str) -> tuple[float, StoredValue | None]:
        """Reads a shared value.

        Returns:
            The server's clock in epoch seconds, and the stored value. The value is None if there is none, or if this
            service did not write it.
        """
        call = ScriptCall(scripts.READ_SHARED, (self._ops_key(name),), ())
        return _parse(await self._link.read_script(call, timeout_s=self._write_s))

    async def write_shared(
        self, name: str, version: int, changed_at_ms: int, body: bytes, *, audit: bytes = b""
    ) -> tuple[float, StoredValue]:
        """Writes a shared value if it is newer than the stored one, and notifies every replica.

        Args:
            name: `mode`, `model`, `policies` or `experiments`.
            version: Number of the change.
            changed_at_ms: Time of the change, in epoch milliseconds.
            body: The value.
            audit: The audit entry of a change, which is newer only by a higher version. Without one, a replica shares
                the value that it has; that is newer also by a later time.

        Returns:
            The server's clock in epoch seconds, and the value that is stored now.
        """
        args = (version, changed_at_ms, body, self._channel, self._audit_cap, audit)
        call = ScriptCall(scripts.WRITE_SHARED, (self._ops_key(name), self._audit_key), args)
        now, stored = _parse(await self._link.script(call, timeout_s=self._write_s))
        if stored is None:
            raise StoreUnavailable(f"the stored {name} is damaged")
        return now, stored

    def shared_changes(self) -> AsyncGenerator[bytes, None]:
        """Yields a message whenever a shared value changes. Messages can be lost, so poll as well."""
        return self._link.messages(self._channel)

    async def append_audit(self, entry: bytes) -> None:
        """Adds an entry to the audit log."""
        call = ScriptCall(scripts.APPEND_AUDIT, (self._audit_key,), (self._audit_cap, entry))
        await self._link.script(call, timeout_s=self._write_s)

    async def read_audit(self, limit: int) -> list[bytes]:
        """Returns the latest entries of the audit log, newest first."""
        entries: list[bytes] = await self._unless_strange([], "LRANGE", self._audit_key, 0, limit - 1)
        return entries

    async def report_replica(self, replica: str, body: bytes) -> None:
        """Stores what a replica reports about itself. All reports expire an hour after the latest one."""
        call = ScriptCall(scripts.REPORT_REPLICA, (self._ops_key("replicas"),), (_REPLICAS_S, replica, body))
        await self._link.script(call, timeout_s=self._write_s)

    async def read_replicas(self) -> dict[str, bytes]:
        """Returns the latest report of each replica, by name."""
        flat = await self._unless_strange([], "HGETALL", self._ops_key("replicas"))
        pairs = list(flat.items()) if isinstance(flat, dict) else list(zip(flat[::2], flat[1::2], strict=True))
        return {name.decode(errors="replace"): body for name, body in pairs}

    async def forget_replicas(self, *replicas: str) -> None:
        """Deletes the reports of some replicas."""
        if replicas:
            await self._unless_strange(0, "HDEL", self._ops_key("replicas"), *replicas)

    async def add_counts(self, name: str, counts: Mapping[str, int], ttl_s: int) -> None:
        """Adds to counts, all at once.

        Args:
            name: Name of the hash.
            counts: What to add, by field.
            ttl_s: Seconds after which the hash is forgotten.
        """
        pairs = [part for pair in counts.items() for part in pair]
        call = ScriptCall(scripts.ADD_COUNTS, (self._ops_key(name),), (ttl_s, *pairs))
        await self._link.script(call, timeout_s=self._write_s)

    async def read_counts(self, name: str) -> dict[str, int]:
        """Returns all counts of a name; those that are no numbers are left out."""
        flat = await self._unless_strange([], "HGETALL", self._ops_key(name))
        pairs = list(flat.items()) if isinstance(flat, dict) else list(zip(flat[::2], flat[1::2], strict=True))
        return {field.decode(errors="replace"): int(n) for field, n in pairs if n.lstrip(b"-").isdigit()}

    async def _unless_strange(self, instead: Any, *command: str | int) -> Any:
        """Runs a command; returns `instead` if its key has another type. The next write replaces such a key."""
        try:
            return await self._link.command(*command, timeout_s=self._write_s)
        except StoreUnavailable as error:
            if error.cause != "wrong_type":
                raise
            return instead

    def _ops_key(self, name: str) -> str:
        return f"{self._prefix}{{ops}}:{name}"


def _parse(reply: Sequence[bytes | None]) -> tuple[float, StoredValue | None]:
    seconds, micros, version, changed_at, body = reply
    now = int(seconds or 0) + int(micros or 0) / 1e6
    if version is None or changed_at is None or body is None:
        return now, None
    try:
        return now, (int(version), int(changed_at), body)
    except ValueError:
        return now, None  # not written by this service: this replica keeps its value, and overwrites the stored one
