"""The ids of events that a log no longer keeps, so that an event sent again stays a duplicate.

When an event leaves the log, or is older than everything a full log keeps, a digest of its id is added here; so most
subjects, whose logs never fill up, have no value at all. Packed as text:

    format "1" · digests: the first 12 hex digits of the SHA-1 of an id, 48 bits; oldest first

Of a thousand digests one is taken for another event's once in 10¹¹ events. When there are more than a quarter above the
limit, the oldest beyond the limit go. A value of another format counts as empty.
"""

from __future__ import annotations

# The ids that are always remembered, of the events that left last.
LEFT_IDS = 1024

# The Lua side. `gone` takes the digest of each event that leaves the log; `has_left` is called for each event that
# arrives, and `remember_ids` once, at the end of an append.
REMEMBER_IDS = """
local gone = {}

local function digest(id)
  return string.sub(redis.sha1hex(id), 1, 12)
end

local function ids_left(key)
  local packed = redis.call('GET', key)
  return packed and string.sub(packed, 1, 1) == '1' and packed or '1'
end

local function has_left(packed, id)
  local wanted, at = digest(id), 1
  repeat
    at = string.find(packed, wanted, at + 1, true)
  until not at or at % 12 == 2  -- where a digest begins, after the format
  return at
end

local function remember_ids(key, packed, limit, ttl)
  if #gone > 0 then
    local added = table.concat(gone)
    if #packed > 1 and #packed + #added <= 1 + 15 * limit then
      redis.call('APPEND', key, added)
    else
      redis.call('SET', key, '1' .. string.sub(string.sub(packed, 2) .. added, -12 * limit))
    end
  end
  redis.call('PEXPIRE', key, ttl)
end
"""
