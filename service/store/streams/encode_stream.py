"""Subjects whose new events wait to be encoded by another process: a stream in shards, and a consumer group.

    encode:<shard>         v (format), s (tag of the subject), l (version of its log), traceparent and tracestate if any
    {ops}:encode-shards    set: the numbers of shards that were ever written with

An entry says that a log has this version, and nothing of its events. Whoever reads it encodes the log as it is then, so
an entry that is read twice, late or in another order does no harm. Each shard is in a hash slot of its own, and each
call names one shard. An entry leaves the stream when it is done: what is in the stream is the backlog.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.common.errors import StoreUnavailable
from service.store.records import Subject
from service.store.redis.redis_link import RedisLink, ScriptCall
from service.store.streams.encode_scripts import BACKLOG, FINISH, LEAVE, TAKE_OVER
from service.store.streams.log_streams import APPEND_ENTRIES, ERASE_ENTRIES, SHARD_COUNTS, Entry, packed
from service.store.streams.stream_group import NEW, READ_GROUP

FORMAT = "1"
GROUP = "encoders"
# Entries that one call finishes, or one call of an erasure looks at.
_AT_ONCE = 500
# Attempts after which an entry is given up: the next request of its subject encodes.
DELIVERIES_MAX = 16
# A consumer that was silent for this many times the patience of a claim, and holds nothing, is forgotten.
_FORGOTTEN_AFTER = 10


@dataclass(frozen=True, slots=True)
class Handed:
    """A subject that was handed over.

    Attributes:
        subject: Whose log is to be encoded.
        version: Version of the log when it was handed over; "" if something else changed, as features.
        traceparent: The trace of the request that wrote, "" if there is none.
        tracestate: What its caller and others wrote beside it.
    """

    subject: Subject
    version: str
    traceparent: str = ""
    tracestate: str = ""

    def entry(self) -> Entry:
        """Returns the fields of its entry. Erasures look for the subject in the second one."""
        fields = ("v", FORMAT, "s", self.subject.tag, "l", self.version)
        return (*fields, *(part for pair in self.carrier().items() for part in pair))

    def carrier(self) -> dict[str, str]:
        """Returns the fields of its trace that have a value."""
        both = {"traceparent": self.traceparent, "tracestate": self.tracestate}
        return {name: value for name, value in both.items() if value}


@dataclass(frozen=True, slots=True)
class Taken:
    """An entry that was given to a consumer.

    Attributes:
        shard: Number of its shard.
        id: Its id in the shard.
        handed: What it says; None if this release cannot read it.
    """

    shard: int
    id: str
    handed: Handed | None

    @property
    def time_ms(self) -> int:
        """When it was handed over, by the server's clock, in epoch milliseconds."""
        return int(self.id.partition("-")[0])


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in all shards.

    Attributes:
        entries: Entries that are not done.
        age_s: Age of the oldest of them; 0 without any.
    """

    entries: int = 0
    age_s: float = 0.0


class EncodeStream:
    """Writes and reads the stream. Nothing here raises anything but StoreUnavailable."""

    def __init__(self, link: RedisLink, *, prefix: str, timeout_s: float, ttl_s: int) -> None:
        """Uses the connections of `link`.

        Args:
            link: The connections.
            prefix: First part of every key.
            timeout_s: Time-out of a call.
            ttl_s: A shard that nothing is added to is deleted after this time.
        """
        self._link, self._prefix, self._timeout_s, self._ttl_ms = link, prefix, timeout_s, ttl_s * 1000

    def key(self, shard: int) -> str:
        """Returns the key of a shard."""
        return f"{self._prefix}encode:{shard}"

    async def shard_counts(self, adding: int = 0) -> set[int]:
        """Returns every number of shards that was written with, after `adding` one; 0 adds none."""
        call = ScriptCall(SHARD_COUNTS, (f"{self._prefix}{{ops}}:encode-shards",), (adding,))
        return {int(count) for count in await self._link.script(call, timeout_s=self._timeout_s)}

    async def hand_over(self, batch: Sequence[Handed], *, shards: int, cap: int) -> tuple[list[Handed], int]:
        """Adds entries, with one call for each shard and one round trip in all.

        Args:
            batch: What is handed over, oldest first.
            shards: Number of shards.
            cap: Entries that a shard keeps; older ones are trimmed.

        Returns:
            What could not be added, and the number of entries that were trimmed.

        Raises:
            StoreUnavailable: Nothing was added, or it is not known.
        """
        parts: dict[int, list[Handed]] = {}
        for one in batch:
            parts.setdefault(shard_of(one.subject, shards), []).append(one)
        calls = [
            ScriptCall(
                APPEND_ENTRIES,
                (self.key(shard),),
                (cap, self._ttl_ms, GROUP, packed([one.entry() for one in part])),
            )
            for shard, part in parts.items()
        ]
        replies = await self._link.scripts_each(calls, timeout_s=self._timeout_s)
        left: list[Handed] = []
        trimmed = 0
        for part, reply in zip(parts.values(), replies, strict=True):
            if isinstance(reply, StoreUnavailable):
                left += part
            else:
                trimmed += int(reply[0])
        return left, trimmed

    async def read(self, shards: Sequence[int], consumer: str, count: int) -> list[Taken]:
        """Takes new entries, at most `count` of each shard, in one round trip. A shard that fails has none.

        Raises:
            StoreUnavailable: No shard could be read. Entries may have been given to this consumer all the same.
        """
        calls = [ScriptCall(READ_GROUP, (self.key(shard),), (GROUP, consumer, count, NEW)) for shard in shards]
        return [one for shard, reply in await self._each(shards, calls) for one in _taken(shard, reply)]

    async def take_over(
        self, shards: Sequence[int], consumer: str, count: int, patience_s: float
    ) -> tuple[list[Taken], int]:
        """Takes entries over that a consumer was given `patience_s` ago and has not finished; forgets gone consumers.

        Returns:
            The entries, at most `count` of each shard, and how many were given up after `DELIVERIES_MAX` attempts.

        Raises:
            StoreUnavailable: No shard could be read.
        """
        patience_ms = max(1, int(patience_s * 1000))
        args = (GROUP, consumer, patience_ms, count, DELIVERIES_MAX, _FORGOTTEN_AFTER * patience_ms)
        calls = [ScriptCall(TAKE_OVER, (self.key(shard),), args) for shard in shards]
        replies = await self._each(shards, calls)
        found = [one for shard, reply in replies for one in _taken(shard, reply[1:])]
        return found, sum(int(reply[0]) for _, reply in replies)

    async def finish(self, taken: Sequence[Taken]) -> None:
        """Removes entries that are done.

        Raises:
            StoreUnavailable: Some may be left; they are given to somebody once more.
        """
        ids: dict[int, list[str]] = {}
        for one in taken:
            ids.setdefault(one.shard, []).append(one.id)
        calls = [
            ScriptCall(FINISH, (self.key(shard),), (GROUP, *some[first : first + _AT_ONCE]))
            for shard, some in ids.items()
            for first in range(0, len(some), _AT_ONCE)
        ]
        for reply in await self._link.scripts_each(calls, timeout_s=self._timeout_s) if calls else ():
            if isinstance(reply, StoreUnavailable):
                raise reply

    async def leave(self, shards: Sequence[int], consumer: str) -> int:
        """Forgets a consumer where it holds nothing; returns how many entries it still holds elsewhere."""
        calls = [ScriptCall(LEAVE, (self.key(shard),), (GROUP, consumer)) for shard in shards]
        return sum(int(reply) for _, reply in await self._each(shards, calls))

    async def backlog(self, shards: Sequence[int]) -> Backlog:
        """Returns what waits in these shards.

        Raises:
            StoreUnavailable: A shard could not be read.
        """
        calls = [ScriptCall(BACKLOG, (self.key(shard),), ()) for shard in shards]
        replies = await self._link.scripts_each(calls, timeout_s=self._timeout_s) if calls else []
        for reply in replies:
            if isinstance(reply, StoreUnavailable):
                raise reply
        return Backlog(sum(int(one[0]) for one in replies), max((int(one[1]) for one in replies), default=0) / 1000.0)

    async def erase(self, subject: Subject) -> int:
        """Deletes the entries of a subject; returns how many there were."""
        deleted = 0
        for shard in sorted({shard_of(subject, count) for count in await self.shard_counts()}):
            first, last = b"-", b""
            while first:
                call = ScriptCall(ERASE_ENTRIES, (self.key(shard),), (subject.tag, first, last, _AT_ONCE))
                reply: list[Any] = await self._link.script(call, timeout_s=self._timeout_s)
                deleted += int(reply[0])
                first, last = reply[1], reply[2]
        return deleted

    async def _each(self, shards: Sequence[int], calls: Sequence[ScriptCall]) -> list[tuple[int, Any]]:
        """Runs one call for each shard; returns the replies of those that could be had, if any could."""
        replies = await self._link.scripts_each(calls, timeout_s=self._timeout_s) if calls else []
        found = [
            (shard, reply)
            for shard, reply in zip(shards, replies, strict=True)
            if not isinstance(reply, StoreUnavailable)
        ]
        if replies and not found:
            raise replies[0]
        return found


def shard_of(subject: Subject, shards: int) -> int:
    """Returns the shard of a subject."""
    return zlib.crc32(subject.tag.encode()) % shards


def _taken(shard: int, reply: Sequence[Any]) -> list[Taken]:
    """A script's reply ends before a value that is nil, so an entry that was deleted meanwhile may have an id alone."""
    return [Taken(shard, one[0].decode(), _handed(one[1] if len(one) > 1 else None)) for one in reply if one]


def _handed(values: Sequence[bytes] | None) -> Handed | None:
    if not values:
        return None
    fields: Mapping[str, str] = {
        name.decode(errors="replace"): value.decode(errors="replace")
        for name, value in zip(values[::2], values[1::2], strict=True)
    }
    subject = Subject.of_tag(fields.get("s", ""))
    if fields.get("v") != FORMAT or subject is None:
        return None
    return Handed(subject, fields.get("l", ""), fields.get("traceparent", ""), fields.get("tracestate", ""))
