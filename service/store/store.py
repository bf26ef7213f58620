"""Histories and encoder states in Redis.

Keys of one subject, `gpt4rec:{u:<user>}:…` (`s:` for sessions), all in one hash slot:

    events             sorted set: score = time in ms + arrival/1024, member = event id, item id, type
    version            hash chain over the events as they arrived (`service.store.log_version`)
    signals            capped stream: impressions, searches without an item
    state:<model>      packed encoder state of one model version
    states             which model versions have a state, so that an erasure finds them all

Keys of the deployment, `gpt4rec:{ops}:…`: `mode`, `model` and `policies` (hashes: what operators set), `replicas` (a
hash: what each replica says of itself) and `audit` (a capped list).

Every method raises StoreUnavailable and nothing else. A write that raised may still have happened: repeating
it is safe, because events are idempotent and states are compared before they are set.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from service.artifact.features import is_history_event
from service.common.errors import SettingsError, StoreUnavailable
from service.store import lua_scripts as scripts
from service.store.lua_scripts import Script
from service.store.records import AppendResult, NewEvent, StoredEvent, Subject, UserRecord, parse_events
from service.store.redis_link import RedisLink, ScriptCall

__all__ = ["AppendResult", "NewEvent", "Store", "StoreSettings", "StoredEvent", "Subject", "UserRecord"]

Durability = Literal["memory", "aof", "replica"]
# Version, changed at in ms, body.
StoredMode = tuple[int, int, bytes]

DAY_S = 86_400

# Subjects written in one round trip: a large batch must not need more time than the time-out of one write gives.
_AT_ONCE = 64
_REPLICAS_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """`history_cap` must be at least the receptive field of every model that is served.

    `durability` says when an event counts as written: in Redis' memory; on its disk (WAITAOF, Redis ≥ 7.2);
    on `replicas` replicas (WAIT). States are only ever a cache of the log, so they live shorter than it.
    """

    url: str
    prefix: str = "gpt4rec:"
    history_cap: int = 256
    signals_cap: int = 1000
    ttl_s: int = 90 * DAY_S
    state_ttl_s: int = 7 * DAY_S
    signals_ttl_s: int = 30 * DAY_S
    read_timeout_ms: float = 25
    write_timeout_ms: float = 250
    durability: Durability = "memory"
    durability_timeout_ms: int = 1500
    replicas: int = 1
    max_connections: int = 16
    audit_cap: int = 1000


class Store:
    """The only door to Redis."""

    def __init__(self, settings: StoreSettings) -> None:
        """Nothing connects yet. Raises SettingsError for a URL or a durability that cannot work."""
        self.settings = settings
        self._read_s = settings.read_timeout_ms / 1000
        self._write_s = settings.write_timeout_ms / 1000
        self._append_s = self._write_s
        if settings.durability != "memory":
            self._append_s += settings.durability_timeout_ms / 1000
        self._link = RedisLink(
            settings.url,
            slowest_s=self._append_s,
            # Not as long as an append that waits for a disk: a silent connection must not hide a mode for so long.
            slowest_read_s=max(self._read_s, self._write_s),
            max_commands=settings.max_connections,
        )
        if self._link.is_cluster and settings.durability != "memory":
            raise SettingsError(
                "durability aof and replica need one connection per write, which a Redis Cluster client does "
                "not give: use durability memory and min-replicas-to-write on the servers"
            )
        self._audit_key = f"{settings.prefix}{{ops}}:audit"
        self._erased = f"{settings.prefix}{{ops}}:erased"
        self._channel = f"{settings.prefix}{{ops}}:changed"

    @classmethod
    async def connect(cls, settings: StoreSettings) -> Store:
        """A store that has tried its server once.

        A server that is away is no error: the service starts degraded and recovers by itself. A server that
        cannot do what the settings ask is a SettingsError.
        """
        store = cls(settings)
        try:
            # Side by side, so that the first requests find open connections.
            await asyncio.gather(*(store.ping() for _ in range(min(8, settings.max_connections))))
            if settings.durability != "memory":
                await store._durable([])
        except StoreUnavailable as error:
            if "appendonly is disabled" in str(error) or "unknown command" in str(error):
                await store.close()
                raise SettingsError(f"durability {settings.durability} cannot be had: {error}") from error
        return store

    async def close(self) -> None:
        await self._link.close()

    async def ping(self) -> None:
        await self._link.command("PING", timeout_s=self._write_s)

    # Histories

    async def append(self, subject: Subject, events: Sequence[NewEvent]) -> AppendResult:
        """Write events, oldest first whatever order they come in; signals go to their stream."""
        return (await self.append_many([(subject, events)]))[0]

    async def append_many(self, batch: Sequence[tuple[Subject, Sequence[NewEvent]]]) -> list[AppendResult]:
        """`append` for many subjects, a round trip for every 64 of them, each within the write time-out; one for all
        where they must be durable. Not a transaction: after a StoreUnavailable some of them may be written, and
        repeating the batch writes the rest."""
        calls = [self._append_call(subject, events) for subject, events in batch]
        if not calls:
            return []
        if self.settings.durability != "memory":
            replies = await self._durable(calls)
        elif len(calls) == 1:
            replies = [await self._link.script(calls[0], timeout_s=self._append_s)]
        else:
            replies = []
            for first in range(0, len(calls), _AT_ONCE):
                part = calls[first : first + _AT_ONCE]
                replies += (await self._link.scripts(part, barrier=None, timeout_s=self._append_s))[0]
        return [AppendResult(int(a), int(d), version.decode()) for a, d, version in replies]

    async def read(self, subject: Subject, model_version: str, timeout_s: float | None = None) -> UserRecord:
        """The log, its version and the model's state at one instant, in one round trip.

        Waits for the read time-out, or for `timeout_s` where that is shorter.
        """
        record = await self.read_if_changed(subject, model_version, "", timeout_s)
        assert record is not None  # noqa: S101 - no version is the empty one
        return record

    async def read_if_changed(
        self, subject: Subject, model_version: str, known: str, timeout_s: float | None = None
    ) -> UserRecord | None:
        """`read`, or None where the log's version is still `known`: then a few bytes travel."""
        limit = self._read_s if timeout_s is None else min(self._read_s, timeout_s)
        return _record(await self._link.read_script(self._read_call(subject, model_version, known), timeout_s=limit))

    async def read_many(self, wanted: Sequence[tuple[Subject, str]], model_version: str) -> list[UserRecord | None]:
        """`read_if_changed` for many (subject, known version), in one round trip, within the write time-out."""
        calls = [self._read_call(subject, model_version, known) for subject, known in wanted]
        return [_record(reply) for reply in await self._scripts(calls)]

    async def write_state(self, subject: Subject, model_version: str, expected_version: str, blob: bytes) -> bool:
        """Store a state made at `expected_version`; False, and nothing written, if the log has moved on."""
        return (await self.write_states([(subject, expected_version, blob)], model_version))[0]

    async def write_states(self, batch: Sequence[tuple[Subject, str, bytes]], model_version: str) -> list[bool]:
        """`write_state` for many (subject, expected version, blob), in one round trip."""
        calls = [self._write_call(subject, model_version, expected, blob) for subject, expected, blob in batch]
        return [bool(reply) for reply in await self._scripts(calls)]

    async def merge(self, session: Subject, user: Subject) -> int:
        """Move a session's history to a user, in order of time; returns how many events were new to the user.

        Copy, then delete: after a crash in between, the repeated merge finds duplicates and only deletes. The
        session goes only if nothing was added to it meanwhile; otherwise the addition is moved too.
        """
        moved = 0
        while True:
            keys = self._keys(session, "events", "version", "signals")
            log = ScriptCall(scripts.READ_LOG, keys, ())
            version, flat, signals = await self._link.script(log, timeout_s=self._write_s)
            events = [NewEvent(e.item_id, e.type, e.time_ms, e.event_id) for e in _events(flat)]
            bodies = [(fields[1].decode(), fields[3]) for _, fields in signals]
            call = self._append_call(user, events, bodies)
            if events or bodies:
                reply = await self._settled(call)
                moved += int(reply[0])
            if await self._erase(session, version or b"", len(bodies)) >= 0:
                return moved

    async def erase(self, subject: Subject) -> int:
        """Delete every key of the subject, as durably as events are written, and tell every replica; returns how many
        there were."""
        return await self._erase(subject)

    async def erasures(self) -> AsyncGenerator[Subject | None, None]:
        """Whoever is erased, by any replica; None with each new subscription: some may have been missed before."""
        async with contextlib.aclosing(self._link.messages(self._erased, greeting=True)) as messages:
            async for message in messages:
                subject = Subject.of_tag(message.decode("utf-8", "replace")) if message else None
                if subject is not None or not message:
                    yield subject
                del message, subject  # else whoever was erased last would be known here until the next one is

    # The mode and its audit

    async def read_mode(self) -> tuple[float, StoredMode | None]:
        """The server's clock, in epoch seconds, and the stored mode."""
        return await self.read_shared("mode")

    async def write_mode(
        self, version: int, changed_at_ms: int, body: bytes, *, audit: bytes = b""
    ) -> tuple[float, StoredMode]:
        """Set the mode if it is newer than the stored one and tell every replica. Returns the server's clock and what
        holds now.

        A change comes with its audit entry, and is newer by a higher version only. What a replica shares again comes
        without, and is newer by a later time as well.
        """
        return await self.write_shared("mode", version, changed_at_ms, body, audit=audit)

    async def read_shared(self, name: str) -> tuple[float, StoredMode | None]:
        """`read_mode` for anything that replicas share."""
        call = ScriptCall(scripts.READ_MODE, (self._ops_key(name),), ())
        return _mode(await self._link.read_script(call, timeout_s=self._write_s))

    async def write_shared(
        self, name: str, version: int, changed_at_ms: int, body: bytes, *, audit: bytes = b""
    ) -> tuple[float, StoredMode]:
        """`write_mode` for anything that replicas share; they are told of it on the same channel."""
        args = (version, changed_at_ms, body, self._channel, self.settings.audit_cap, audit)
        call = ScriptCall(scripts.WRITE_MODE, (self._ops_key(name), self._audit_key), args)
        now, stored = _mode(await self._link.script(call, timeout_s=self._write_s))
        if stored is None:
            raise StoreUnavailable(f"the stored {name} is damaged")
        return now, stored

    async def report_replica(self, replica: str, body: bytes) -> None:
        """What a replica says of itself, until it says something else; all of it goes an hour after the last word."""
        await self._link.command("HSET", self._ops_key("replicas"), replica, body, timeout_s=self._write_s)
        await self._link.command("EXPIRE", self._ops_key("replicas"), _REPLICAS_S, timeout_s=self._write_s)

    async def read_replicas(self) -> dict[str, bytes]:
        """The latest word of every replica, by name."""
        flat = await self._link.command("HGETALL", self._ops_key("replicas"), timeout_s=self._write_s)
        pairs = list(flat.items()) if isinstance(flat, dict) else list(zip(flat[::2], flat[1::2], strict=True))
        return {name.decode(errors="replace"): body for name, body in pairs}

    async def forget_replicas(self, *replicas: str) -> None:
        if replicas:
            await self._link.command("HDEL", self._ops_key("replicas"), *replicas, timeout_s=self._write_s)

    async def count(self, script: Script, names: Sequence[str], args: Sequence[int]) -> Any:
        """What a script of `service.access.rate_limits` answers; its keys are the deployment's. Within the read time-out."""
        keys = tuple(f"{self.settings.prefix}{name}" for name in names)
        return await self._link.read_script(ScriptCall(script, keys, tuple(args)), timeout_s=self._read_s)

    def mode_changes(self) -> AsyncGenerator[bytes, None]:
        """A message whenever the mode changes; may miss some, so poll as well."""
        return self._link.messages(self._channel)

    async def append_audit(self, entry: bytes) -> None:
        await self._link.command("LPUSH", self._audit_key, entry, timeout_s=self._write_s)
        await self._link.command("LTRIM", self._audit_key, 0, self.settings.audit_cap - 1, timeout_s=self._write_s)

    async def read_audit(self, limit: int) -> list[bytes]:
        """The latest entries, newest first."""
        entries: list[bytes] = await self._link.command(
            "LRANGE", self._audit_key, 0, limit - 1, timeout_s=self._write_s
        )
        return entries

    # Inside

    def _read_call(self, subject: Subject, model_version: str, known: str) -> ScriptCall:
        keys = (*self._keys(subject, "events", "version"), self._state_key(subject, model_version))
        return ScriptCall(scripts.READ, keys, (known,))

    def _write_call(self, subject: Subject, model_version: str, expected_version: str, blob: bytes) -> ScriptCall:
        version, states = self._keys(subject, "version", "states")
        keys = (version, self._state_key(subject, model_version), states)
        args = (expected_version, blob, self.settings.state_ttl_s * 1000, model_version)
        return ScriptCall(scripts.WRITE_STATE, keys, args)

    async def _scripts(self, calls: Sequence[ScriptCall]) -> list[Any]:
        if not calls:
            return []
        if len(calls) == 1:
            return [await self._link.script(calls[0], timeout_s=self._write_s)]
        replies, _ = await self._link.scripts(calls, barrier=None, timeout_s=self._write_s)
        return replies

    def _ops_key(self, name: str) -> str:
        return f"{self.settings.prefix}{{ops}}:{name}"

    def _keys(self, subject: Subject, *names: str) -> tuple[str, ...]:
        return tuple(f"{self.settings.prefix}{subject.tag}:{name}" for name in names)

    def _state_key(self, subject: Subject, model_version: str) -> str:
        return f"{self.settings.prefix}{subject.tag}:state:{model_version}"

    def _append_call(
        self,
        subject: Subject,
        events: Sequence[NewEvent],
        signals: Sequence[tuple[str, bytes]] = (),
    ) -> ScriptCall:
        history = sorted((e for e in events if is_history_event(e.type, e.item_id)), key=_time)
        others = [e for e in events if not is_history_event(e.type, e.item_id)]
        settings = self.settings
        args: list[str | bytes | int] = [
            settings.history_cap, settings.ttl_s * 1000, settings.signals_cap,
            settings.signals_ttl_s * 1000, len(history),
        ]  # fmt: skip
        for event in history:
            args += (event.time_ms, event.member(subject))
        for event in others:
            args += (event.identity(subject), _signal_body(event))
        for identity, body in signals:
            args += (identity, body)
        return ScriptCall(scripts.APPEND, self._keys(subject, "events", "version", "signals"), tuple(args))

    async def _settled(self, call: ScriptCall) -> Any:
        if self.settings.durability == "memory":
            return await self._link.script(call, timeout_s=self._append_s)
        return (await self._durable([call]))[0]

    async def _durable(self, calls: Sequence[ScriptCall]) -> list[Any]:
        """Run the calls and wait until what they wrote is as safe as the settings ask.

        A call that finds only duplicates still writes (it refreshes the TTL), so the barrier waits for it
        too: a repeated batch is not acknowledged before the first copy is safe.
        """
        settings = self.settings
        barrier: tuple[str | int, ...]
        if settings.durability == "aof":
            barrier = ("WAITAOF", 1, 0, settings.durability_timeout_ms)
            wanted = 1
        else:
            barrier = ("WAIT", settings.replicas, settings.durability_timeout_ms)
            wanted = settings.replicas
        replies, reached = await self._link.scripts(calls, barrier=barrier, timeout_s=self._append_s)
        copies = reached[0] if isinstance(reached, list) else reached
        if copies < wanted:
            raise StoreUnavailable(f"{barrier[0]}: {copies} of {wanted} copies within the time-out")
        return replies

    async def _erase(self, subject: Subject, *expected: bytes | int) -> int:
        keys = self._keys(subject, "events", "version", "signals", "states")
        args = (self._state_key(subject, ""), self._erased, subject.tag, *expected)
        return int(await self._settled(ScriptCall(scripts.ERASE, keys, args)))


def _record(reply: Sequence[Any]) -> UserRecord | None:
    """None where the log had not changed."""
    if len(reply) == 1:
        return None
    version, flat, blob = reply
    return UserRecord(version.decode() if version else "", _events(flat), blob)


def _events(flat: Sequence[bytes]) -> tuple[StoredEvent, ...]:
    try:
        return parse_events(flat)
    except (ValueError, OverflowError) as error:
        raise StoreUnavailable("a log holds what this service did not write") from error


def _time(event: NewEvent) -> int:
    return event.time_ms


def _mode(reply: Sequence[bytes | None]) -> tuple[float, StoredMode | None]:
    seconds, micros, version, changed_at, body = reply
    now = int(seconds or 0) + int(micros or 0) / 1e6
    if version is None or changed_at is None or body is None:
        return now, None
    try:
        return now, (int(version), int(changed_at), body)
    except ValueError:
        return now, None  # not written by this service: the mode here stays, and is written over it


def _signal_body(event: NewEvent) -> bytes:
    fields = {
        "type": event.type, "item_id": event.item_id, "time_ms": event.time_ms, "query": event.query,
        "value": event.value, "request_id": event.request_id,
    }  # fmt: skip
    return orjson.dumps({name: value for name, value in fields.items() if value is not None})
