"""The store: histories and encoder states in Redis, and what replicas share (`service.store.shared_values`).

Keys of one subject, `gpt4rec:{u:<user>}:…` (`s:` for sessions), all in one hash slot:

    events             sorted set: score = time in ms + arrival/1024, member = event id, item id, type
    version            hash chain over the events in the order of their arrival (`service.store.log_version`)
    signals            capped stream: impressions, searches without an item
    seen               items of events that the log no longer keeps (`service.store.seen_items`)
    ids                digests of the ids of such events (`service.store.left_ids`)
    state:<encoder>    packed encoder state of one encoder version
    state:<encoder>:checkpoint   the state that one which remembers trimmed events is rebuilt from
    states             the encoder versions that have a state or a checkpoint, so that an erasure finds them all
    features           who it is, as lists may know it (`service.store.user_features`)
    floor              score of the newest event of a checkpoint: the log takes none that is no newer

What was shown and what came of it is in streams of its own (`service.store.streams.log_streams`), and so are the
subjects that wait to be encoded by another process (`service.store.streams.encode_stream`). The items that were stored
over HTTP are in `service.store.items`.

Every method raises StoreUnavailable and nothing else. A write that raised may still have happened. Repeating it is
safe, because events are idempotent and states are written with compare-and-set.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from service.common import logs
from service.common.errors import SettingsError, StoreUnavailable
from service.store.history_calls import HistoryCalls, appended_of, events_of, record_of, replaced_by
from service.store.items import ItemStore
from service.store.lua_script import Script
from service.store.outcome_fields import OutcomeFields
from service.store.page_marks import PageMarks
from service.store.records import AppendResult, NewEvent, StateWrite, Subject, UserRecord
from service.store.redis.redis_link import RedisLink, ScriptCall
from service.store.seen_items import NOTHING_SEEN, SeenItems
from service.store.server_probe import ServerProbe
from service.store.shared_values import SharedValues
from service.store.store_settings import StoreSettings
from service.store.streams.encode_stream import EncodeStream
from service.store.streams.log_streams import LogStreams
from service.store.user_features import UserFeatures, Values

log = logs.get(__name__)

# Subjects written in one round trip. A larger batch could take longer than the time-out of one write.
_BATCH = 64


class Store(SharedValues):
    """The only way to Redis for the rest of the service."""

    def __init__(self, settings: StoreSettings) -> None:
        """Creates the store, without connecting.

        Raises:
            SettingsError: The URL cannot be used.
        """
        self.settings = settings
        self._read_s = settings.read_timeout_ms / 1000
        write_s = settings.write_timeout_ms / 1000
        self._append_s = write_s
        if settings.durability != "memory":
            self._append_s += settings.durability_timeout_ms / 1000
        link = RedisLink(
            settings.url,
            slowest_s=self._append_s,
            # Shorter than an append that waits for a disk: a silent connection must not hide a new mode that long.
            slowest_read_s=max(self._read_s, write_s),
            max_commands=settings.max_connections,
        )
        super().__init__(link, prefix=settings.prefix, timeout_s=write_s, audit_cap=settings.audit_cap)
        self.streams = LogStreams(link, prefix=settings.prefix, timeout_s=write_s, ttl_s=settings.ttl_s)
        self.encoding = EncodeStream(link, prefix=settings.prefix, timeout_s=write_s, ttl_s=settings.ttl_s)
        self.pages = PageMarks(link, prefix=settings.prefix, timeout_s=write_s)
        self.outcomes = OutcomeFields(link, prefix=settings.prefix, timeout_s=write_s)
        self.items = ItemStore(link, self._settled, prefix=settings.prefix, timeout_s=write_s)
        self._erased = self._ops_key("erased")
        self._calls = HistoryCalls(settings, self._erased)
        self.server = ServerProbe(
            self._link,
            # To wait for a disk takes up to a second, and a server that cannot write to it refuses the write.
            self._durable if settings.durability == "replica" else self._scripts,
            prefix=settings.prefix,
            channel=self._erased,
            timeout_s=write_s,
        )

    @classmethod
    async def connect(cls, settings: StoreSettings) -> Store:
        """Creates a store, and tries its server once.

        A server that does not answer is no error: the service starts degraded, and recovers when the server is back.

        Raises:
            SettingsError: The server does not support the durability of the settings, or lacks the database.
        """
        store = cls(settings)
        try:
            # Concurrently, so that the first requests find open connections.
            await asyncio.gather(*(store.ping() for _ in range(min(8, settings.max_connections))))
            if settings.durability != "memory":
                await store._durable([])
        except StoreUnavailable as error:
            wrong = None
            if error.cause == "bad_database":
                wrong = "the database of the Redis URL cannot be used"
            elif "appendonly is disabled" in str(error) or "unknown command 'WAIT" in str(error):
                wrong = f"durability {settings.durability} cannot be had"
            if wrong is not None:
                await store.close()
                raise SettingsError(f"{wrong}: {error}") from error
        return store

    async def close(self) -> None:
        """Waits for the commands in flight, and disconnects."""
        await self._link.close()

    async def ping(self) -> None:
        """Sends a PING; raises StoreUnavailable if there is no answer."""
        await self._link.command("PING", timeout_s=self._write_s)

    # Histories

    async def append(self, subject: Subject, events: Sequence[NewEvent]) -> AppendResult:
        """Appends events of one subject to its log, sorted by time; signals go to their own stream."""
        return (await self.append_many([(subject, events)]))[0]

    async def append_many(self, batch: Sequence[tuple[Subject, Sequence[NewEvent]]]) -> list[AppendResult]:
        """Appends events of many subjects.

        Needs a round trip for every 64 subjects, each within the write time-out; or a single one if the events must be
        durable. This is no transaction: after a StoreUnavailable some events may be written, and repeating the batch
        writes the rest.
        """
        calls = [self._calls.append(subject, events) for subject, events in batch]
        if not calls:
            return []
        if self.settings.durability != "memory":
            replies = await self._durable(calls)
        elif len(calls) == 1:
            replies = [await self._link.script(calls[0], timeout_s=self._append_s)]
        else:
            replies = []
            for first in range(0, len(calls), _BATCH):
                part = calls[first : first + _BATCH]
                replies += (await self._link.scripts(part, barrier=None, timeout_s=self._append_s))[0]
        if replaced := sum(map(replaced_by, replies)):
            log.warning("redis_keys_replaced", count=replaced, detail="they had a type that this service did not write")
        return [appended_of(reply) for reply in replies]

    async def read(self, subject: Subject, encoder_version: str, timeout_s: float | None = None) -> UserRecord:
        """Reads the log, its version, the items seen before it and the state for an encoder, in one snapshot.

        Args:
            subject: Whose log it is.
            encoder_version: The encoder whose state is read.
            timeout_s: Time to wait, if that is shorter than the read time-out.
        """
        record = await self.read_if_changed(subject, encoder_version, None, timeout_s)
        assert record is not None  # noqa: S101 - nothing was known
        return record

    async def read_if_changed(
        self, subject: Subject, encoder_version: str, known: UserRecord | None, timeout_s: float | None = None
    ) -> UserRecord | None:
        """Reads like `read`, but returns None, after transferring only a few bytes, if `known` is still what is stored.

        `known` is a record that was read before, of any model; its state is not compared.
        """
        limit = self._read_s if timeout_s is None else min(self._read_s, timeout_s)
        call = self._calls.read(subject, encoder_version, known)
        return record_of(await self._link.read_script(call, timeout_s=limit))

    async def read_many(
        self, wanted: Sequence[tuple[Subject, UserRecord | None]], encoder_version: str
    ) -> list[UserRecord | None]:
        """Does `read_if_changed` for many (subject, known record) in one round trip, within the write time-out."""
        calls = [self._calls.read(subject, encoder_version, known) for subject, known in wanted]
        return [record_of(reply) for reply in await self._scripts(calls)]

    async def read_checkpoint(
        self, subject: Subject, encoder_version: str, timeout_s: float | None = None
    ) -> bytes | None:
        """Reads the packed checkpoint for an encoder; None if there is none.

        Args:
            subject: Whose it is.
            encoder_version: The encoder.
            timeout_s: Time to wait, if that is shorter than the read time-out.
        """
        limit = self._read_s if timeout_s is None else min(self._read_s, timeout_s)
        call = self._calls.read_checkpoint(subject, encoder_version)
        record = record_of(await self._link.read_script(call, timeout_s=limit))
        return None if record is None else record.blob

    async def write_state(self, subject: Subject, encoder_version: str, expected_version: str, blob: bytes) -> bool:
        """Stores a state computed from `expected_version` of the log; returns False if the log has changed since."""
        return (await self.write_states([(subject, StateWrite(expected_version, blob))], encoder_version))[0]

    async def write_states(self, batch: Sequence[tuple[Subject, StateWrite]], encoder_version: str) -> list[bool]:
        """Does `write_state` for many states, some with a checkpoint, in one round trip."""
        calls = [self._calls.write_state(subject, encoder_version, state) for subject, state in batch]
        return [bool(reply) for reply in await self._scripts(calls)]

    async def merge(self, session: Subject, user: Subject, late: Callable[[int], None] = lambda _: None) -> int:
        """Moves a session's history to a user, in order of time; returns how many events were new to the user.

        Events are copied, then deleted: if a crash comes between, repeating the merge finds duplicates and only
        deletes. The session is deleted only if nothing was added to it in the meantime; else the addition is moved too.
        Features of the session fill in what the user's own do not say.

        Args:
            session: Whose history is moved.
            user: To whom.
            late: Is given the number of events that no state of the user reads, as `AppendResult.late`.
        """
        moved, before = 0, NOTHING_SEEN
        while True:
            log_call = self._calls.read_log(session)
            version, flat, signals, packed, of_session = await self._link.script(log_call, timeout_s=self._write_s)
            events = [
                NewEvent(e.item_id or None, e.type, e.time_ms, e.event_id, kept_query=e.query, session=e.session)
                for e in events_of(flat)
            ]
            bodies, seen = [(fields[1].decode(), fields[3]) for _, fields in signals], SeenItems.unpack(packed)
            # A client may count the events of each session from 1, so here an equal id alone is no duplicate.
            call = self._calls.append(user, events, bodies, seen.since(before), by_id=False)
            if events or bodies or seen.count:
                reply = await self._settled(call)
                appended = appended_of(reply)
                moved += appended.accepted
                late(appended.late)
            before, features = seen, UserFeatures.unpack(of_session)
            await self._fill_features(user, features)
            if await self._erase(session, (version or b"", len(bodies), seen.stamp, features.stamp_bytes)) >= 0:
                return moved

    async def _fill_features(self, user: Subject, more: UserFeatures) -> None:
        """Adds features to those of a user, which stay as they are."""
        while more.values:
            stored = await self.read_features(user)
            values = stored.filled(more.values)
            if values == stored.values or await self._settled(self._calls.write_features(user, values, stored)):
                return

    async def read_features(self, subject: Subject) -> UserFeatures:
        """Reads the stored features of a subject."""
        call = self._calls.read_features(subject)
        return UserFeatures.unpack(await self._link.read_script(call, timeout_s=self._read_s))

    async def write_features(self, subject: Subject, values: Values) -> bool:
        """Stores features in place of those before, as durably as events; without values, deletes them.

        Returns:
            Whether something was written or deleted.
        """
        return bool(await self._settled(self._calls.write_features(subject, values)))

    async def erase(self, subject: Subject) -> int:
        """Deletes every key of the subject, as durably as events are written, and notifies every replica.

        Returns:
            The number of keys deleted.
        """
        return await self._erase(subject)

    async def erasures(self) -> AsyncGenerator[Subject | None, None]:
        """Yields each subject that a replica erases.

        Yields None after each new subscription, because erasures before it may have been missed.
        """
        async with contextlib.aclosing(self._link.messages(self._erased, greeting=True)) as messages:
            async for message in messages:
                subject = Subject.of_tag(message.decode("utf-8", "replace")) if message else None
                if subject is not None or not message:
                    yield subject
                del message, subject  # else the last erased id would stay in memory until the next erasure

    async def run_script(self, script: Script, names: Sequence[str], args: Sequence[int]) -> Any:
        """Runs a script of `service.access.rate_limits` within the read time-out.

        Args:
            script: The script.
            names: Its keys, without the prefix.
            args: Its arguments.
        """
        keys = tuple(f"{self.settings.prefix}{name}" for name in names)
        return await self._link.read_script(ScriptCall(script, keys, tuple(args)), timeout_s=self._read_s)

    async def follow(self) -> None:
        """Follows fail-overs that Sentinels announce, until cancelled."""
        await self._link.follow()

    async def _scripts(self, calls: Sequence[ScriptCall]) -> list[Any]:
        if not calls:
            return []
        if len(calls) == 1:
            return [await self._link.script(calls[0], timeout_s=self._write_s)]
        replies, _ = await self._link.scripts(calls, barrier=None, timeout_s=self._write_s)
        return replies

    async def _settled(self, call: ScriptCall) -> Any:
        if self.settings.durability == "memory":
            return await self._link.script(call, timeout_s=self._append_s)
        return (await self._durable([call]))[0]

    async def _durable(self, calls: Sequence[ScriptCall]) -> list[Any]:
        """Runs the calls, and waits until what they wrote is as durable as the settings ask.

        A call that finds only duplicates still writes, because it refreshes the TTL. So the barrier covers it too: a
        repeated batch is not acknowledged before the first copy is durable.
        """
        settings = self.settings
        barrier: tuple[str | int, ...]
        if settings.durability == "aof":
            barrier = ("WAITAOF", 1, 0, settings.durability_timeout_ms)
            wanted = 1
        else:
            barrier = ("WAIT", settings.replicas, settings.durability_timeout_ms)
            wanted = settings.replicas
        replies, copies = await self._link.scripts(calls, barrier=barrier, timeout_s=self._append_s)
        if copies < wanted:
            raise StoreUnavailable(
                f"{barrier[0]}: {copies} of {wanted} copies were written within the time-out",
                cause="disk" if settings.durability == "aof" else "too_few_replicas",
            )
        return replies

    async def _erase(self, subject: Subject, expected: tuple[bytes, int, str, bytes] | None = None) -> int:
        return int(await self._settled(self._calls.erase(subject, expected)))
