"""What was shown and what came of it: capped streams that other programs read, each shard in a hash slot of its own.

    exposures:<shard>   lists that were shown (`service.exposures.exposure`)
    events:<shard>      events as they were stored, and sessions that became users
    {ops}:shards        set: the numbers of shards that were ever written with, so that an erasure finds every shard

An append trims its shard to the cap. Entries that are trimmed before the consumer group `GROUP` has been given them are
counted, in the same script, because nobody else can tell afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from service.common.errors import StoreUnavailable
from service.store.erasure_list import ErasureList
from service.store.lua_script import CLEAN, ERASES, TYPED, Script
from service.store.redis.redis_link import RedisLink, ScriptCall

StreamName = Literal["exposures", "events"]
STREAMS: tuple[StreamName, ...] = ("exposures", "events")
# The consumer group of what writes the streams to files.
GROUP = "sink"
# Entries that one call of an erasure looks at: with lists of a hundred items about a megabyte.
_LOOKED_AT = 500

# KEYS stream   ARGV cap, TTL ms, group, then one MessagePack array (`packed`): for each entry the number of its fields
# and values together, and these   → entries trimmed, how many of them the group had not been given
#
# A group that does not exist has read nothing.
APPEND_ENTRIES = Script(
    CLEAN
    + """
local key, cap = KEYS[1], tonumber(ARGV[1])
clean(key, 'stream')
local packed, at = cmsgpack.unpack(ARGV[4]), 1
while packed[at] do
  local size = packed[at]
  redis.call('XADD', key, '*', unpack(packed, at + 1, at + size))
  at = at + size + 1
end
redis.call('PEXPIRE', key, ARGV[2])
local over = redis.call('XLEN', key) - cap
if over <= 0 then return {0, 0} end
local read = 0
for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
  local about = {}
  for i = 1, #group, 2 do about[group[i]] = group[i + 1] end
  if about['name'] == ARGV[3] then
    read = #redis.call('XRANGE', key, '-', about['last-delivered-id'], 'COUNT', over)
  end
end
redis.call('XTRIM', key, 'MAXLEN', cap)
return {over, over - read}
"""
)

# KEYS stream   ARGV subject, first id, last id ("" for the newest now), number of entries to look at
# → entries deleted, where to go on ("" at the end), last id, then `merged` of those that had it
#
# The second field of each entry is the subject (`service.exposures.exposure`). What says that somebody was erased
# stays: readers need it.
ERASE_ENTRIES = Script(
    TYPED
    + """
local last = ARGV[3]
if last == '' then
  local newest = typed({}, 'XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
  if not newest[1] then return {0, '', ''} end
  last = newest[1][1]
end
local found = redis.call('XRANGE', KEYS[1], ARGV[2], last, 'COUNT', ARGV[4])
local ids, reply = {}, {0, '', last}
for _, entry in ipairs(found) do
  local fields = entry[2]
  if fields[3] == 's' and fields[4] == ARGV[1] and fields[5] ~= 'erased' then
    ids[#ids + 1] = entry[1]
    if fields[5] == 'merged' then reply[#reply + 1] = fields[6] end
  end
end
if #found == tonumber(ARGV[4]) then reply[2] = '(' .. found[#found][1] end
if ids[1] then reply[1] = redis.call('XDEL', KEYS[1], unpack(ids)) end
return reply
"""
)

# KEYS stream   ARGV TTL ms, then the fields and values of the entry   → 1
#
# Nothing is trimmed: the next append does that.
TELL_ERASED = Script(
    ERASES
    + CLEAN
    + """
clean(KEYS[1], 'stream')
redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
"""
)

# KEYS shards   ARGV number of shards, 0 to add none   → every number of shards that was written with
SHARD_COUNTS = Script(
    ERASES
    + CLEAN
    + """
clean(KEYS[1], 'set')
if ARGV[1] ~= '0' then redis.call('SADD', KEYS[1], ARGV[1]) end
return redis.call('SMEMBERS', KEYS[1])
"""
)

ALL = (APPEND_ENTRIES, ERASE_ENTRIES, TELL_ERASED, SHARD_COUNTS)

# Fields and values of one entry, in turns.
Entry = tuple[str | bytes, ...]


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard of a stream."""

    stream: StreamName
    number: int


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append did besides.

    Attributes:
        trimmed: Entries that were trimmed.
        unread: How many of them the group `GROUP` had not been given.
    """

    trimmed: int
    unread: int


class LogStreams:
    """Writes the streams. Nothing here raises anything but StoreUnavailable."""

    def __init__(self, link: RedisLink, *, prefix: str, timeout_s: float, ttl_s: int) -> None:
        """Uses the connections of `link`.

        Args:
            link: The connections.
            prefix: First part of every key.
            timeout_s: Time-out of a call.
            ttl_s: A shard that nothing is added to is deleted after this time.
        """
        self._link, self._prefix, self._timeout_s, self._ttl_ms = link, prefix, timeout_s, ttl_s * 1000
        self._erased = ErasureList(link, prefix=prefix, timeout_s=timeout_s)

    def key(self, shard: Shard) -> str:
        """Returns the key of a shard."""
        return f"{self._prefix}{shard.stream}:{shard.number}"

    async def append(
        self, batches: Sequence[tuple[Shard, Sequence[Entry]]], cap: int
    ) -> list[Appended | StoreUnavailable]:
        """Appends entries to shards, with one call for each shard and one round trip in all.

        Args:
            batches: The entries for each shard, oldest first.
            cap: Entries that a shard keeps.

        Returns:
            What became of each batch. A batch that failed may have been written all the same.

        Raises:
            StoreUnavailable: All of them failed.
        """
        calls = [
            ScriptCall(APPEND_ENTRIES, (self.key(shard),), (cap, self._ttl_ms, GROUP, packed(entries)))
            for shard, entries in batches
        ]
        replies = await self._link.scripts_each(calls, timeout_s=self._timeout_s)
        return [reply if isinstance(reply, StoreUnavailable) else Appended(*map(int, reply)) for reply in replies]

    async def erase(self, shard: Shard, subject: str) -> tuple[int, list[bytes]]:
        """Deletes the entries of a subject from a shard, a bounded number of entries at a time.

        Args:
            shard: The shard.
            subject: The subject as entries have it.

        Returns:
            The number of entries deleted, and `merged` of those that had it.
        """
        deleted, merged, first, last = 0, list[bytes](), b"-", b""
        while first:
            call = ScriptCall(ERASE_ENTRIES, (self.key(shard),), (subject, first, last, _LOOKED_AT))
            reply: list[Any] = await self._link.script(call, timeout_s=self._timeout_s)
            deleted += int(reply[0])
            first, last = reply[1], reply[2]
            merged += reply[3:]
        return deleted, merged

    async def shard_counts(self, adding: int = 0) -> set[int]:
        """Returns every number of shards that was written with.

        Args:
            adding: A number to add first; 0 adds none.
        """
        call = ScriptCall(SHARD_COUNTS, (f"{self._prefix}{{ops}}:shards",), (adding,))
        return {int(count) for count in await self._link.script(call, timeout_s=self._timeout_s)}

    async def tell_erased(self, shards: Sequence[Shard], entry: Entry, subject: str, erased_ms: int) -> None:
        """Appends what tells readers of an erasure, also where the server has no memory left for appends.

        Args:
            shards: The shards that get the entry.
            entry: The entry.
            subject: Who was erased, as entries name it; listed for the sink as well, since streams are trimmed.
            erased_ms: Until when everything of it is erased.
        """
        await self._erased.add(subject, erased_ms, ttl_ms=self._ttl_ms)
        calls = [ScriptCall(TELL_ERASED, (self.key(shard),), (self._ttl_ms, *entry)) for shard in shards]
        for reply in await self._link.scripts_each(calls, timeout_s=self._timeout_s):
            if isinstance(reply, StoreUnavailable):
                raise reply


def _packed_text(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return b"\xdb%b%b" % (len(data).to_bytes(4, "big"), data)


# Each entry has the same names. Values are not remembered: they say whose an entry is, also once it is erased.
_packed_name = lru_cache(64)(_packed_text)


def packed(entries: Sequence[Entry]) -> bytes:
    """Packs entries into one argument, as MessagePack: redis-py takes microseconds for each argument."""
    parts, values = [], 0
    for entry in entries:
        values += 1 + len(entry)
        parts.append(bytes((len(entry),)))  # a number up to 127
        parts += [_packed_text(text) if n % 2 else _packed_name(text) for n, text in enumerate(entry)]
    return b"".join((b"\xdd", values.to_bytes(4, "big"), *parts))
