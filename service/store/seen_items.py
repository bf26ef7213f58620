"""The items of events that a log no longer keeps: how often each was seen, and when last.

They stay out of lists. A log keeps the events that the encoder reads. When
an event leaves the log, or is older than everything a full log keeps, its item is added here; so most subjects, whose
logs never fill up, have no value at all. Packed as text:

    format "2" · stamp, 16 hex digits · number of entries, 6 digits · entries
    entry: time in seconds, 8 hex digits · item id · 1E and the number of events, if that is not 1 · 1F

Entries are appended, so an item may have several. When there are more than a quarter above the limit, the entries of
each item become one, with the time of the newest and the sum of the counts, and the oldest items beyond the limit go.
So the newest `limit` items are always there.

The stamp changes with every addition: version of the log and stamp together tell whether a copy is current. Format 1
had no counts: each of its entries stands for one event. It is read, and the next addition makes it format 2. A value of
another format counts as empty; the next event that leaves the log replaces it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from service.artifact.array_types import IntArray

_FORMATS = (b"1", b"2")
_STAMP = slice(1, 17)
_COUNT = slice(17, 23)
_HEADER_BYTES = 23
_TIME_DIGITS = 8
_TIMES = "\x1e"
_END = "\x1f"
_ENTRY = re.compile("([0-9a-f]{8})([^\x1e\x1f]*)(?:\x1e([1-9][0-9]{0,5}))?\x1f")

# Larger counts are stored as this one, so that an entry is bounded.
COUNT_MAX = 999_999


class SeenById(NamedTuple):
    """Items seen in events that the log no longer keeps, each once, in the order in which they were last seen.

    Attributes:
        item_ids: [n] The items, the one last seen longest ago first.
        counts: [n] int64 events of each item, at most `COUNT_MAX`.
        last_ms: [n] int64 time of its last event in epoch milliseconds, in whole seconds.
    """

    item_ids: list[str]
    counts: IntArray
    last_ms: IntArray


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
        if packed[:1] not in _FORMATS or not count.isdigit():
            return cls(stamp)
        return cls(stamp, int(count), packed[_HEADER_BYTES:])

    def item_ids(self) -> list[str]:
        """Returns the items in the order of their entries; an item may be repeated."""
        entries = self.entries.decode().split(_END)[:-1]
        return [entry[_TIME_DIGITS:].partition(_TIMES)[0] for entry in entries]

    def by_item(self) -> SeenById:
        """Returns each item once, with its count and the time of its last event, oldest first.

        The same whether entries have been merged or not, as long as no item has been dropped.
        """
        entries = _ENTRY.findall(self.entries.decode(errors="replace"))
        seconds = np.frombuffer(bytes.fromhex("".join([entry[0] for entry in entries])), ">u4").astype(np.int64)
        # A merge keeps the order of equal times, so the position decides between them.
        order = np.argsort(seconds, kind="stable")
        items = [entries[entry][1] for entry in order.tolist()]
        counts = np.array([int(entries[entry][2] or 1) for entry in order.tolist()], np.int64)
        last = {item: place for place, item in enumerate(items)}
        totals = np.zeros(len(items), np.int64)
        np.add.at(totals, [last[item] for item in items], counts)
        places = np.flatnonzero(totals)
        kept = [items[place] for place in places.tolist()]
        return SeenById(kept, np.minimum(totals[places], COUNT_MAX), seconds[order[places]] * 1000)

    def since(self, earlier: SeenItems) -> SeenItems:
        """Returns what was added after an earlier reading; everything if entries have been merged since."""
        if not self.entries.startswith(earlier.entries):
            return self
        return SeenItems(self.stamp, self.count - earlier.count, self.entries[len(earlier.entries) :])

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
  if item and item ~= '' then  -- a search without an item has none
    local seconds = math.min(math.floor(tonumber(score) / 1000), 4294967295)
    left[#left + 1] = string.format('%08x', seconds) .. item .. sep
  end
end

local function newest(entries, limit)
  -- A rank is the time and, for equal times, the position: both fit into one double.
  local rank, counts, items, position = {}, {}, {}, 0
  for time, item, count in string.gmatch(entries, '(%x%x%x%x%x%x%x%x)([^\\30\\31]*)\\30?(%d*)\\31') do
    position = position + 1
    local own = tonumber(time, 16) * 1048576 + position
    if not rank[item] then
      items[#items + 1] = item
    end
    rank[item] = math.max(rank[item] or 0, own)
    counts[item] = math.min((counts[item] or 0) + (tonumber(count) or 1), @COUNT_MAX@)
  end
  table.sort(items, function(a, b) return rank[a] < rank[b] end)
  local kept = {}
  for i = math.max(1, #items - limit + 1), #items do
    local item = items[i]
    local count = counts[item] > 1 and '\\30' .. string.format('%d', counts[item]) or ''
    kept[#kept + 1] = string.format('%08x', math.floor(rank[item] / 1048576)) .. item .. count .. sep
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
  local format = string.sub(header, 1, 1)
  local before = (format == '1' or format == '2') and tonumber(string.sub(header, 18, 23))
  local most = limit + math.floor((limit + 3) / 4)
  if before and before + count <= most then
    redis.call('APPEND', key, added)
    redis.call('SETRANGE', key, 0, '2' .. stamp .. string.format('%06d', before + count))
  else
    local entries = added
    if before then
      count = before + count
      entries = redis.call('GETRANGE', key, 23, -1) .. added
    end
    if count > most then
      entries, count = newest(entries, limit)
    end
    redis.call('SET', key, '2' .. stamp .. string.format('%06d', count) .. entries)
  end
  redis.call('PEXPIRE', key, ttl)
  return stamp
end
""".replace("@COUNT_MAX@", str(COUNT_MAX))
