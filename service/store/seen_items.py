"""The items of events that a log no longer keeps, so that they stay out of lists.

A log keeps the events that the encoder reads. When an event leaves the log, or is older than everything a full log
keeps, its item is added here; so most subjects, whose logs never fill up, have no value at all. Packed as text:

    format "1" · stamp, 16 hex digits · number of entries, 6 digits · entries
    entry: time in seconds, 8 hex digits · item id · 1F

Entries are appended, so an item may have several. When there are more than a quarter above the limit, each item keeps
its newest entry, and the oldest items beyond the limit go. So the newest `limit` items are always there.

The stamp changes with every addition: version of the log and stamp together tell whether a copy is current. A value of
another format counts as empty; the next event that leaves the log replaces it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

_FORMAT = b"1"
_STAMP = slice(1, 17)
_COUNT = slice(17, 23)
_HEADER_BYTES = 23
_TIME_DIGITS = 8
_END = "\x1f"


@dataclass(frozen=True, slots=True)
class SeenItems:
    """Items seen in events that the log no longer keeps.

    Attributes:
        stamp: Changes with every addition; "" if nothing was ever added.
        count: Number of entries.
        entries: The packed entries.
    """

    stamp: str = ""
    count: int = 0
    entries: bytes = b""

    @classmethod
    def unpack(cls, packed: bytes | None) -> SeenItems:
        """Reads a stored value; None means that there is none."""
        if not packed:
            return NOTHING_SEEN
        stamp, count = packed[_STAMP].decode("latin-1"), packed[_COUNT]
        if not packed.startswith(_FORMAT) or not count.isdigit():
            return cls(stamp)
        return cls(stamp, int(count), packed[_HEADER_BYTES:])

    def item_ids(self) -> list[str]:
        """Returns the items in the order of their entries; an item may be repeated."""
        return [entry[_TIME_DIGITS:] for entry in self.entries.decode().split(_END)[:-1]]

    def after(self, left: Iterable[tuple[str, int]], limit: int) -> SeenItems | None:
        """Predicts the value after events have left the log in one append, so that it need not be read again.

        Args:
            left: Item id and time in epoch milliseconds of each event, in the order in which they left.
            limit: Items to remember; 0 remembers none.

        Returns:
            None if entries must be merged, which only the store does.
        """
        added = [f"{min(time_ms // 1000, 0xFFFFFFFF):08x}{item_id}{_END}" for item_id, time_ms in left]
        if not added or not limit:
            return self
        count = self.count + len(added)
        if count > entries_max(limit):
            return None
        text = "".join(added).encode()
        digest = hashlib.sha1(self.stamp.encode() + _END.encode() + text, usedforsecurity=False)
        return SeenItems(digest.hexdigest()[:16], count, self.entries + text)


NOTHING_SEEN = SeenItems()


def entries_max(limit: int) -> int:
    """Returns the number of entries above which they are merged down to `limit` items."""
    return limit + (limit + 3) // 4


# The Lua side. `leave` is called for each event that leaves the log; `remember` once, at the end of an append. Expects
# `sep`; `limit` is the number of items to remember.
REMEMBER = """
local left = {}

local function leave(member, score)
  local item = string.match(member, sep .. '([^' .. sep .. ']*)' .. sep)
  if item then
    local seconds = math.min(math.floor(tonumber(score) / 1000), 4294967295)
    left[#left + 1] = string.format('%08x', seconds) .. item .. sep
  end
end

local function newest(entries, limit)
  -- A rank is the time and, for equal times, the position: both fit into one double.
  local rank, items, position = {}, {}, 0
  for time, item in string.gmatch(entries, '(%x%x%x%x%x%x%x%x)([^' .. sep .. ']*)' .. sep) do
    position = position + 1
    local own = tonumber(time, 16) * 1048576 + position
    if not rank[item] then
      items[#items + 1] = item
    end
    rank[item] = math.max(rank[item] or 0, own)
  end
  table.sort(items, function(a, b) return rank[a] < rank[b] end)
  local kept = {}
  for i = math.max(1, #items - limit + 1), #items do
    kept[#kept + 1] = string.format('%08x', math.floor(rank[items[i]] / 1048576)) .. items[i] .. sep
  end
  return table.concat(kept), #kept
end

local function remember(key, limit, carried, n_carried, ttl)
  local header = redis.call('GETRANGE', key, 0, 22)
  local stamp = string.sub(header, 2, 17)
  if limit == 0 or #left + n_carried == 0 then
    redis.call('PEXPIRE', key, ttl)
    return stamp
  end
  local added = carried .. table.concat(left)
  local count = #left + n_carried
  stamp = string.sub(redis.sha1hex(stamp .. sep .. added), 1, 16)
  local before = string.sub(header, 1, 1) == '1' and tonumber(string.sub(header, 18, 23))
  local most = limit + math.floor((limit + 3) / 4)
  if before and before + count <= most then
    redis.call('APPEND', key, added)
    redis.call('SETRANGE', key, 1, stamp .. string.format('%06d', before + count))
  else
    local entries = added
    if before then
      count = before + count
      entries = redis.call('GETRANGE', key, 23, -1) .. added
    end
    if count > most then
      entries, count = newest(entries, limit)
    end
    redis.call('SET', key, '1' .. stamp .. string.format('%06d', count) .. entries)
  end
  redis.call('PEXPIRE', key, ttl)
  return stamp
end
"""
