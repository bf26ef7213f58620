"""The items that were stored over HTTP, in Redis: the same for every replica, and there after a restart.

Keys of the deployment, `gpt4rec:{items}:…`, all in one hash slot:

    records    hash: the record of each item
    changes    sorted set: the items by the version of their last change, so that a replica reads what is new to it
    deleted    sorted set: deleted items by version; they stay in `changes` until more than `DELETED_MAX` came after
    head       hash: epoch, revision (version of the last change of all), floor, number of records
    log        capped list: who changed what, newest first

A record is packed as text:

    format "1" · version · "1" if disabled, else "0" · name of who changed it last, quoted · JSON object of the fields

separated by spaces. The version of an item is the server's time of its last change in microseconds, or one more than
the revision if that is larger. So it grows with every change of any item, and a deleted item that comes again does not
get an old one. The epoch is the time of the very first change. A replica that knows another epoch, a later revision, or
none since `floor` reads everything anew: Redis lost what it had, or the deletions that it missed are forgotten.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote, unquote

import orjson

from service.common.errors import StoreUnavailable
from service.store.lua_script import CLEAN, READS, TYPED, Script
from service.store.redis.redis_link import RedisLink, ScriptCall

Action = Literal["put", "disable", "enable", "delete"]
Outcome = Literal["created", "updated", "unchanged", "deleted", "missing", "conflict", "full"]

# Items of one write. A script holds the server's only thread: this takes about a millisecond.
WRITTEN_AT_ONCE = 128
# Changes read at a time.
PAGE = 500
# Entries of the log that are kept.
LOG_MAX = 10_000
_FORMAT = "1"
# Deletions that replicas learn of one by one; who missed more reads everything anew.
DELETED_MAX = 10_000

# KEYS head, records, changes, deleted, log
# ARGV channel, most records, most deletions kept, most entries of the log, then for each item:
#      id, action, version that it must have ("" for any, "0" for none), JSON of the fields, actor, entry of the log
# → for each item: outcome, version, whether it is disabled
#
# An entry of the log is a JSON object without its closing brace; version and outcome are added. What changes nothing
# gets no version, so nobody reads it anew.
WRITE_ITEMS = Script(
    CLEAN
    + TYPED
    + """
clean(KEYS[1], 'hash') clean(KEYS[2], 'hash') clean(KEYS[3], 'zset') clean(KEYS[4], 'zset') clean(KEYS[5], 'list')
local now = redis.call('TIME')
local clock = tonumber(now[1]) * 1000000 + tonumber(now[2])
local head = redis.call('HMGET', KEYS[1], 'epoch', 'revision', 'count', 'floor')
local epoch = head[1] or string.format('%.0f', clock)
local revision, count = tonumber(head[2] or '0') or 0, tonumber(head[3] or '0') or 0
local floor = head[4] or '0'
local replies, entries, changed = {}, {}, false
for i = 5, #ARGV, 6 do
  local id, action, expected, body, actor, entry = ARGV[i], ARGV[i+1], ARGV[i+2], ARGV[i+3], ARGV[i+4], ARGV[i+5]
  local stored = redis.call('HMGET', KEYS[2], id)[1]
  local version, flag, fields = nil, '0', '{}'
  if stored then
    local v, f, _, json = string.match(stored, '^1 (%d+) ([01]) (%S*) (.*)$')
    if v then version, flag, fields = v, f, json end
  end
  local outcome, next_flag, next_fields = version and 'updated' or 'created', flag, fields
  if action == 'put' then next_fields = body end
  if action == 'disable' then next_flag = '1' end
  if action == 'enable' then next_flag = '0' end
  if expected ~= '' and expected ~= (version or '0') then
    outcome = 'conflict'
  elseif action == 'delete' then
    outcome = stored and 'deleted' or 'missing'
  elseif version and next_flag == flag and next_fields == fields then
    outcome = 'unchanged'
  elseif action == 'enable' and not version then
    outcome = 'missing'
  elseif not stored and count >= tonumber(ARGV[2]) then
    outcome = 'full'
  end
  if outcome == 'created' or outcome == 'updated' or outcome == 'deleted' then
    revision = math.max(revision + 1, clock)
    version = string.format('%.0f', revision)
    redis.call('ZADD', KEYS[3], version, id)
    if outcome == 'deleted' then
      redis.call('ZADD', KEYS[4], version, id)
      redis.call('HDEL', KEYS[2], id)
      count = count - 1
      next_flag = '0'
    else
      if not stored then
        count = count + 1
        redis.call('ZREM', KEYS[4], id)
      end
      redis.call('HSET', KEYS[2], id, '1 ' .. version .. ' ' .. next_flag .. ' ' .. actor .. ' ' .. next_fields)
    end
    entries[#entries + 1] = entry .. ',"version":' .. version .. ',"outcome":"' .. outcome .. '"}'
    changed = true
  else
    next_flag = flag
  end
  replies[#replies + 1] = outcome
  replies[#replies + 1] = version or '0'
  replies[#replies + 1] = next_flag
end
if changed then
  local over = redis.call('ZCARD', KEYS[4]) - tonumber(ARGV[3])
  if over > 0 then
    local oldest = redis.call('ZRANGE', KEYS[4], 0, over - 1, 'WITHSCORES')
    for i = 1, #oldest, 2 do
      redis.call('ZREM', KEYS[3], oldest[i])
      redis.call('ZREM', KEYS[4], oldest[i])
      floor = string.format('%.0f', tonumber(oldest[i + 1]))
    end
  end
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'revision', string.format('%.0f', revision),
             'count', string.format('%.0f', count), 'floor', floor)
  for _, entry in ipairs(entries) do redis.call('LPUSH', KEYS[5], entry) end
  redis.call('LTRIM', KEYS[5], 0, tonumber(ARGV[4]) - 1)
  redis.pcall('PUBLISH', ARGV[1], string.format('%.0f', revision))
end
return replies
"""
)

# KEYS head, records, changes   ARGV the revision that is known, most items
# → epoch, revision, floor, number of records, then id, version, record (or nothing) of each change, oldest first
READ_CHANGES = Script(
    READS
    + TYPED
    + """
local head = typed({false, false, false, false}, 'HMGET', KEYS[1], 'epoch', 'revision', 'floor', 'count')
local found = typed({}, 'ZRANGE', KEYS[3], '(' .. ARGV[1], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[2], 'WITHSCORES')
local out = {head[1] or '', head[2] or '0', head[3] or '0', head[4] or '0'}
for i = 1, #found, 2 do
  out[#out + 1] = found[i]
  out[#out + 1] = string.format('%.0f', tonumber(found[i + 1]))
  out[#out + 1] = typed({false}, 'HMGET', KEYS[2], found[i])[1] or ''
end
return out
"""
)

# KEYS records   ARGV ids   → the record of each, "" without one
READ_ITEMS = Script(
    READS
    + TYPED
    + """
local out = {}
for i = 1, #ARGV do out[i] = typed({false}, 'HMGET', KEYS[1], ARGV[i])[1] or '' end
return out
"""
)

# KEYS log   ARGV most entries   → the newest entries
READ_LOG = Script(
    READS
    + TYPED
    + """
return typed({}, 'LRANGE', KEYS[1], 0, tonumber(ARGV[1]) - 1)
"""
)

ALL = (WRITE_ITEMS, READ_CHANGES, READ_ITEMS, READ_LOG)


@dataclass(frozen=True, slots=True)
class StoredItem:
    """The record of an item.

    Attributes:
        item_id: Its id.
        version: Of its last change.
        disabled: Whether it must not be listed, whatever other sources say.
        actor: Who changed it last.
        fields: What is stored of it, by name.
    """

    item_id: str
    version: int
    disabled: bool = False
    actor: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def unpack(cls, item_id: str, packed: bytes) -> StoredItem | None:
        """Reads a record; None if there is none, or if this service did not write it."""
        parts = packed.split(b" ", 4)
        if len(parts) != 5 or parts[0] != _FORMAT.encode() or not parts[1].isdigit():
            return None
        try:
            fields = orjson.loads(parts[4])
        except orjson.JSONDecodeError:
            return None
        if not isinstance(fields, dict):
            return None
        return cls(item_id, int(parts[1]), parts[2] == b"1", unquote(parts[3].decode("ascii", "replace")), fields)


@dataclass(frozen=True, slots=True)
class ItemWrite:
    """One change of one item.

    Attributes:
        item_id: The item.
        action: What is done to it.
        fields: For `put`: its fields, which take the place of those before.
        expected: The version that it must have; 0 for none, None for any.
    """

    item_id: str
    action: Action
    fields: Mapping[str, Any] = field(default_factory=dict)
    expected: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a change: its outcome, and the version and state of the item now."""

    outcome: Outcome
    version: int
    disabled: bool


@dataclass(frozen=True, slots=True)
class ItemChanges:
    """A page of what has changed.

    Attributes:
        epoch: Of the stored items; "" if there never were any.
        revision: Version of the newest change of all.
        floor: The newest deletion that is forgotten.
        count: Number of records.
        ids: [n] the items that changed, oldest change first.
        versions: [n] the version of each change.
        packed: [n] their records; b"" for a deleted item.
    """

    epoch: str
    revision: int
    floor: int
    count: int
    ids: Sequence[str]
    versions: Sequence[int]
    packed: Sequence[bytes]


class ItemStore:
    """Reads and writes the stored items. Every method raises StoreUnavailable and nothing else."""

    def __init__(
        self,
        link: RedisLink,
        settle: Callable[[ScriptCall], Awaitable[Any]],
        *,
        prefix: str,
        timeout_s: float,
    ) -> None:
        """Uses the connections of `link`.

        Args:
            link: Redis.
            settle: Runs a script that writes, and waits until that is as durable as the settings ask.
            prefix: Of every key.
            timeout_s: Of a read.
        """
        self._link, self._settle, self._timeout_s = link, settle, timeout_s
        head, records, changes, deleted, log = (
            f"{prefix}{{items}}:{name}" for name in ("head", "records", "changes", "deleted", "log")
        )
        self._writes = (head, records, changes, deleted, log)
        self._reads, self._records, self._log = (head, records, changes), records, log
        self._channel = f"{prefix}{{items}}:changed"

    async def write(self, writes: Sequence[ItemWrite], actor: str, most: int) -> list[Written]:
        """Makes at most `WRITTEN_AT_ONCE` changes, each by itself, and notifies every replica.

        Args:
            writes: The changes, in order.
            actor: Who makes them.
            most: Records that may be stored.

        Returns:
            What became of each.
        """
        args: list[str | bytes | int] = [self._channel, most, DELETED_MAX, LOG_MAX]
        quoted = quote(actor, safe="")
        for write in writes:
            expected = "" if write.expected is None else str(write.expected)
            entry: dict[str, Any] = {"actor": actor, "action": write.action, "item_id": write.item_id}
            if write.action == "put":
                entry["fields"] = sorted(write.fields)
            body = orjson.dumps(write.fields, option=orjson.OPT_SORT_KEYS)
            args += [write.item_id, write.action, expected, body, quoted, orjson.dumps(entry)[:-1]]
        reply = await self._settle(ScriptCall(WRITE_ITEMS, self._writes, tuple(args)))
        if len(reply) != 3 * len(writes):
            raise StoreUnavailable("the reply to a change of items is damaged")
        return [Written(reply[i].decode(), int(reply[i + 1]), reply[i + 2] == b"1") for i in range(0, len(reply), 3)]

    async def read(self, item_ids: Sequence[str]) -> list[StoredItem | None]:
        """Returns the record of each item, None for one without."""
        if not item_ids:
            return []
        call = ScriptCall(READ_ITEMS, (self._records,), tuple(item_ids))
        packed = await self._link.read_script(call, timeout_s=self._timeout_s)
        return [StoredItem.unpack(item_id, one) for item_id, one in zip(item_ids, packed, strict=True)]

    async def changes(self, since: int, most: int = PAGE) -> ItemChanges:
        """Returns what has changed after a revision, the oldest changes first.

        Args:
            since: The revision that is known; 0 for everything.
            most: Items to return.
        """
        call = ScriptCall(READ_CHANGES, self._reads, (since, most))
        reply = await self._link.read_script(call, timeout_s=self._timeout_s)
        epoch, revision, floor, count, *rest = reply
        ids = [item_id.decode("utf-8", "replace") for item_id in rest[::3]]
        try:
            numbers = int(revision), int(floor), int(count)
            return ItemChanges(epoch.decode(), *numbers, ids, [int(version) for version in rest[1::3]], rest[2::3])
        except ValueError as error:
            raise StoreUnavailable("the stored items are damaged") from error

    async def log(self, most: int) -> list[dict[str, Any]]:
        """Returns the newest entries of the log of changes, newest first."""
        reply = await self._link.read_script(ScriptCall(READ_LOG, (self._log,), (most,)), timeout_s=self._timeout_s)
        entries = []
        for text in reply:
            try:
                entries.append(orjson.loads(text))
            except orjson.JSONDecodeError:
                continue
        return entries

    def announcements(self) -> AsyncGenerator[bytes, None]:
        """Yields a message whenever an item has changed. Messages can be lost, so poll as well."""
        return self._link.messages(self._channel)
