"""Reads the streams of lists and events as the consumer group `GROUP`: at least once, one reader at a time.

There is one consumer, `CONSUMER`. Who may act as it holds a lease, so what a reader had been given when it died is
pending under the same name, and its successor reads it again from there.

    {ops}:sink   string: who reads; it expires when nobody renews it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.common.errors import StoreUnavailable
from service.store.lua_script import CLEAN, TYPED, Script
from service.store.redis.redis_link import RedisLink, ScriptCall
from service.store.streams.log_streams import GROUP, SHARD_COUNTS, Shard

CONSUMER = "sink"
# Entries that one call acknowledges: Lua passes a bounded number of arguments on.
_ACKNOWLEDGED = 1000
# Entries that are counted one by one where the server cannot say how many are unread.
_COUNTED = 20_000

# KEYS stream   ARGV group, consumer, number of entries, id after which pending entries are wanted, or ">" for new ones
# → entries: id, then fields and values; or false for one that was trimmed
#
# A stream that was deleted, as by a flush, has lost its group: it begins anew with the oldest entry.
READ_GROUP = Script("""
local key = KEYS[1]
local found = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3], 'STREAMS', key, ARGV[4])
if found and found['err'] then
  if string.find(found['err'], 'NOGROUP', 1, true) then
    redis.call('XGROUP', 'CREATE', key, ARGV[1], '0', 'MKSTREAM')
  end
  found = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3], 'STREAMS', key, ARGV[4])
end
if not found then return {} end
return found[1][2]
""")

# KEYS stream   ARGV group, ids   → how many of them were pending
ACKNOWLEDGE = Script(
    TYPED
    + """
return typed(0, 'XACK', KEYS[1], ARGV[1], unpack(ARGV, 2))
"""
)

# KEYS stream   ARGV group, number of entries to count   → entries not given yet, entries not acknowledged
#
# The server does not know the first after entries were deleted.
LAG = Script(
    TYPED
    + """
for _, group in ipairs(typed({}, 'XINFO', 'GROUPS', KEYS[1])) do
  local about = {}
  for i = 1, #group, 2 do about[group[i]] = group[i + 1] end
  if about['name'] == ARGV[1] then
    local lag = about['lag']
    if not lag then
      lag = #redis.call('XRANGE', KEYS[1], '(' .. about['last-delivered-id'], '+', 'COUNT', ARGV[2])
    end
    return {lag, about['pending']}
  end
end
return {typed(0, 'XLEN', KEYS[1]), 0}
"""
)

# KEYS lease   ARGV who asks, its length in ms, who is known to be gone   → who has it, "" if it is who asks
LEASE = Script(
    CLEAN
    + """
clean(KEYS[1], 'string')
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] and held ~= ARGV[3] then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ''
"""
)

# KEYS lease   ARGV who gives it back
RELEASE = Script(
    TYPED
    + """
if typed('', 'GET', KEYS[1]) == ARGV[1] then redis.call('UNLINK', KEYS[1]) end
return 0
"""
)

ALL = (READ_GROUP, ACKNOWLEDGE, LAG, LEASE, RELEASE, SHARD_COUNTS)

NEW = ">"
BEGINNING = "0"


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """An entry of a stream.

    Attributes:
        id: Its id in the stream.
        fields: Its fields; None if the stream was trimmed before it was read again.
    """

    id: str
    fields: Mapping[str, bytes] | None

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        return 200 + (sum(map(len, self.fields.values())) if self.fields else 0)


Page = list[StreamEntry] | StoreUnavailable


class StreamGroup:
    """The consumer group, on connections of its own. Nothing here raises anything but StoreUnavailable."""

    def __init__(self, url: str, *, prefix: str, timeout_s: float, owner: str) -> None:
        """Creates the client, without connecting.

        Args:
            url: See `service.store.redis.redis_url`.
            prefix: First part of every key.
            timeout_s: Time-out of a call.
            owner: Who asks for the lease; no other process has this name.

        Raises:
            SettingsError: The URL cannot be used.
        """
        self._link = RedisLink(url, slowest_s=timeout_s, max_commands=4)
        self._prefix, self._timeout_s, self._owner = prefix, timeout_s, owner
        self._lease = f"{prefix}{{ops}}:sink"

    @property
    def link(self) -> RedisLink:
        """The connections, for what else is kept on this server."""
        return self._link

    async def lease(self, seconds: float, gone: str = "") -> str:
        """Takes the lease, or renews it.

        Args:
            seconds: For how long.
            gone: A holder that is known to be gone, whose lease may be taken.

        Returns:
            Who else has it; empty if it is this process.
        """
        call = ScriptCall(LEASE, (self._lease,), (self._owner, int(seconds * 1000), gone))
        held: bytes = await self._link.script(call, timeout_s=self._timeout_s)
        return held.decode(errors="replace")

    async def release(self) -> None:
        """Gives the lease back, if this process has it."""
        await self._link.script(ScriptCall(RELEASE, (self._lease,), (self._owner,)), timeout_s=self._timeout_s)

    async def shards(self) -> int:
        """Returns how many shards each stream has or had at most; 0 if nothing was ever written."""
        call = ScriptCall(SHARD_COUNTS, (f"{self._prefix}{{ops}}:shards",), (0,))
        return max(map(int, await self._link.script(call, timeout_s=self._timeout_s)), default=0)

    async def read(self, places: Mapping[Shard, str], count: int) -> dict[Shard, Page]:
        """Reads from many shards, with one call for each and one round trip in all.

        Args:
            places: For each shard `NEW`, or the id after which pending entries are wanted (`BEGINNING` for all).
            count: Most entries of each.

        Returns:
            The entries of each shard, or why it could not be read.

        Raises:
            StoreUnavailable: None could be read. Entries may have been given to this consumer all the same.
        """
        calls = [ScriptCall(READ_GROUP, (self._key(s),), (GROUP, CONSUMER, count, at)) for s, at in places.items()]
        replies = await self._link.scripts_each(calls, timeout_s=self._timeout_s)
        return {
            shard: reply if isinstance(reply, StoreUnavailable) else [_entry(*one) for one in reply]
            for shard, reply in zip(places, replies, strict=True)
        }

    async def acknowledge(self, ids: Mapping[Shard, Sequence[str]]) -> None:
        """Acknowledges entries: they are safe, and are not given to anybody again."""
        calls = [
            ScriptCall(ACKNOWLEDGE, (self._key(shard),), (GROUP, *some[first : first + _ACKNOWLEDGED]))
            for shard, some in ids.items()
            for first in range(0, len(some), _ACKNOWLEDGED)
        ]
        for reply in await self._link.scripts_each(calls, timeout_s=self._timeout_s) if calls else ():
            if isinstance(reply, StoreUnavailable):
                raise reply

    async def lag(self, shards: Sequence[Shard]) -> dict[Shard, tuple[int, int]]:
        """Returns how many entries of each shard were not given to the group, and how many it has not acknowledged."""
        calls = [ScriptCall(LAG, (self._key(shard),), (GROUP, _COUNTED)) for shard in shards]
        replies = await self._link.scripts_each(calls, timeout_s=self._timeout_s) if calls else []
        return {
            shard: (int(reply[0]), int(reply[1]))
            for shard, reply in zip(shards, replies, strict=True)
            if not isinstance(reply, StoreUnavailable)
        }

    async def close(self) -> None:
        """Waits for what is in flight, and disconnects."""
        await self._link.close()

    def _key(self, shard: Shard) -> str:
        return f"{self._prefix}{shard.stream}:{shard.number}"


def _entry(name: bytes, values: Sequence[Any] | None = None) -> StreamEntry:
    """A script's reply ends before a value that is nil, so a trimmed entry may have an id alone."""
    if not values:
        return StreamEntry(name.decode(), None)
    pairs = zip(values[::2], values[1::2], strict=True)
    return StreamEntry(name.decode(), {field.decode(errors="replace"): value for field, value in pairs})
