"""The Lua scripts of the store. Each touches the keys of one hash tag only, so that it runs on a Redis Cluster.

Times and versions are passed as text: Lua has only doubles, which cannot hold 64 bits of a hash.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from service.store.seen_items import REMEMBER


@dataclass(frozen=True)
class Script:
    """A Lua script, and the SHA-1 by which EVALSHA calls it."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


# The newest events, and signals, of a subject among which an event id is looked for.
IDS_KNOWN = 256

# KEYS events, version, signals, seen
# ARGV history cap, TTL ms, signals cap, signals TTL ms, number of events, how many of the newest events an id is
#      looked for in (0: only whole members are compared), items to remember beyond the log, entries of seen items to
#      add and their number, then (time ms, member) each, oldest first; then (event id, body) for each signal
# → accepted, duplicates, version, ids of the duplicates whose item or type is another, stamp of the seen items
#
# An event id names one event, whatever its time, item and type. A member starts with the id, and a sorted set cannot be
# searched by the start of a member, so the newest events are read once for a call with ids.
#
# A full log does not take an event that is older than all it keeps, because it would be trimmed at once. Such an event
# counts as accepted, and the version stays, because the log did not change. Its item was seen, as was the item of every
# event that is trimmed (`service.store.seen_items`).
APPEND = Script(
    """
local sep = '\\31'
@REMEMBER@
local cap, ttl, events = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[5])
local version = redis.call('GET', KEYS[2]) or ''
local before = version
local kept = redis.call('ZCARD', KEYS[1])
local accepted, duplicates = 0, 0
local known, reused, looked = {}, {}, tonumber(ARGV[6])
local function id_of(member)
  return string.sub(member, 1, (string.find(member, sep, 1, true) or 0) - 1)
end

if events > 0 and looked > 0 then
  for _, member in ipairs(redis.call('ZREVRANGE', KEYS[1], 0, looked - 1)) do
    known[id_of(member)] = member
  end
end
for i = 10, 8 + 2 * events, 2 do
  local ms, member = ARGV[i], ARGV[i + 1]
  local id = looked > 0 and id_of(member)
  local same = id and known[id]
  if same or redis.call('ZSCORE', KEYS[1], member) then
    duplicates = duplicates + 1
    if same and same ~= member then
      reused[#reused + 1] = id
    end
  else
    accepted = accepted + 1
    if id then
      known[id] = member
    end
    local time = tonumber(ms)
    local upper = '(' .. string.format('%.0f', time + 1)
    local tie = redis.call('ZREVRANGEBYSCORE', KEYS[1], upper, ms, 'WITHSCORES', 'LIMIT', 0, 1)
    local arrival = 0
    if tie[2] then
      arrival = math.min((tonumber(tie[2]) - time) * 1024 + 1, 1023)
    end
    local score = time + arrival / 1024
    local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
    if kept < cap or score >= tonumber(oldest[2]) then
      redis.call('ZADD', KEYS[1], string.format('%.17g', score), member)
      local text = version .. sep .. ms .. sep .. string.format('%d', arrival) .. sep .. member
      version = string.sub(redis.sha1hex(text), 1, 16)
      kept = kept + 1
      if kept > cap then
        local trimmed = redis.call('ZRANGE', KEYS[1], 0, kept - cap - 1, 'WITHSCORES')
        for n = 1, #trimmed, 2 do
          leave(trimmed[n], trimmed[n + 1])
        end
        redis.call('ZREMRANGEBYRANK', KEYS[1], 0, kept - cap - 1)
        kept = cap
      end
    else
      leave(member, score)
    end
  end
end

local first = 10 + 2 * events
if ARGV[first] then
  -- A stream has no notion of identity: a repeated batch is recognised among the latest entries.
  local seen = {}
  for _, entry in ipairs(redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', @KNOWN@)) do
    seen[entry[2][2]] = true
  end
  for i = first, #ARGV, 2 do
    if seen[ARGV[i]] then
      duplicates = duplicates + 1
    else
      accepted = accepted + 1
      seen[ARGV[i]] = true
      redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', 'id', ARGV[i], 'event', ARGV[i + 1])
    end
  end
  redis.call('PEXPIRE', KEYS[3], ARGV[4])
end

if version ~= before then
  redis.call('SET', KEYS[2], version, 'PX', ttl)
else
  redis.call('PEXPIRE', KEYS[2], ttl)
end
redis.call('PEXPIRE', KEYS[1], ttl)
local stamp = remember(KEYS[4], tonumber(ARGV[7]), ARGV[8], tonumber(ARGV[9]), ttl)
return {accepted, duplicates, version, reused, stamp}
""".replace("@KNOWN@", str(IDS_KNOWN)).replace("@REMEMBER@", REMEMBER)
)

# KEYS events, version, state, seen   ARGV known version, "" for none, and known stamp of the seen items
# → version, members with scores (oldest first), state blob, seen items; the version alone if both are known
READ = Script("""
local version = redis.call('GET', KEYS[2])
if version and version == ARGV[1] and redis.call('GETRANGE', KEYS[4], 1, 16) == ARGV[2] then
  return {version}
end
return {version, redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), redis.call('GET', KEYS[3]),
        redis.call('GET', KEYS[4])}
""")

# KEYS version, state, states   ARGV expected version, blob, TTL ms, model version   → 1 written, 0 outdated
WRITE_STATE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('SADD', KEYS[3], ARGV[4])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return 1
""")

# KEYS events, version, signals, seen
# → version, members with scores (oldest first), signals (oldest first), seen items
READ_LOG = Script("""
return {redis.call('GET', KEYS[2]), redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'),
        redis.call('XRANGE', KEYS[3], '-', '+'), redis.call('GET', KEYS[4])}
""")

# KEYS events, version, signals, states, seen
# ARGV prefix of the state keys, channel, message [, expected version, expected signals, expected stamp of the seen]
# → number of keys deleted; -1 if the log has changed since
#
# The state keys are not declared in KEYS: they are listed in `states`, and share the hash tag of the declared keys.
ERASE = Script("""
if ARGV[4] then
  if (redis.call('GET', KEYS[2]) or '') ~= ARGV[4] or redis.call('XLEN', KEYS[3]) ~= tonumber(ARGV[5])
    or redis.call('GETRANGE', KEYS[5], 1, 16) ~= ARGV[6] then
    return -1
  end
end
local deleted = 0
for _, model in ipairs(redis.call('SMEMBERS', KEYS[4])) do
  deleted = deleted + redis.call('UNLINK', ARGV[1] .. model)
end
deleted = deleted + redis.call('UNLINK', unpack(KEYS))
redis.call('PUBLISH', ARGV[2], ARGV[3])
return deleted
""")

# KEYS value   → the server's clock (s, µs), then version, changed at, body of the stored value
READ_SHARED = Script("""
local stored = redis.call('HMGET', KEYS[1], 'version', 'changed_at', 'body')
local now = redis.call('TIME')
return {now[1], now[2], stored[1], stored[2], stored[3]}
""")

# KEYS value, audit   ARGV version, changed at (ms), body, channel, audit cap, audit entry or ""
# → the server's clock (s, µs), then version, changed at, body of the value in force now
#
# Only a newer value replaces the stored one: a write that is executed late, when its sender has given up, must not
# override what was decided meanwhile. A change comes with an audit entry, and needs a higher version. Without an entry,
# a replica shares the value that it has: of two values with the same version, made apart, the later is newer.
WRITE_SHARED = Script("""
local stored = redis.call('HMGET', KEYS[1], 'version', 'changed_at', 'body')
local version, changed_at = tonumber(ARGV[1]), tonumber(ARGV[2])
local stored_version, stored_at = tonumber(stored[1] or '0') or 0, tonumber(stored[2] or '0') or 0
local newer = version > stored_version
if ARGV[6] == '' then
  newer = newer or (version == stored_version and changed_at > stored_at)
end
local in_force = stored
if newer or not stored[3] then
  in_force = {ARGV[1], ARGV[2], ARGV[3]}
  redis.call('HSET', KEYS[1], 'version', ARGV[1], 'changed_at', ARGV[2], 'body', ARGV[3])
  if ARGV[6] ~= '' then
    redis.call('LPUSH', KEYS[2], ARGV[6])
    redis.call('LTRIM', KEYS[2], 0, tonumber(ARGV[5]) - 1)
  end
  redis.call('PUBLISH', ARGV[4], ARGV[1])
end
local now = redis.call('TIME')
return {now[1], now[2], in_force[1], in_force[2], in_force[3]}
""")

ALL = (APPEND, READ, WRITE_STATE, READ_LOG, ERASE, READ_SHARED, WRITE_SHARED)
