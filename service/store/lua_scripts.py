"""The Lua scripts of the store. Each touches the keys of one hash tag only, so that it runs on a Redis Cluster.

Times and versions are passed as text: Lua has only doubles, which cannot hold 64 bits of a hash.

A script is executed as a whole or not at all. So it reads and checks before it writes, its first write is one that a
full or read-only server refuses, and what may fail after that (PUBLISH, without rights to the channel) does not end it:
what is not published is found by polling. A script for which the user lacks a right is not sent (`redis_rights`). If a
right is withdrawn at this moment, a script may still end in the middle. Its writes are ordered so that repeating it
puts everything right, and that no copy of an earlier time passes for current until then.
"""

from __future__ import annotations

from service.store import items, lua_shared, page_marks, user_features
from service.store.erasure_list import LIST_ERASED
from service.store.left_ids import REMEMBER_IDS
from service.store.lua_script import CLEAN, READS, TYPED, Script
from service.store.seen_items import REMEMBER
from service.store.streams import log_streams

# The newest events of a log, and the newest signals, among which an event id alone is looked for. A copy with the same
# item and type is found in the whole log.
IDS_KNOWN = 256

# KEYS events, version, signals, seen, ids, floor, features
# ARGV history cap, TTL ms, signals cap, signals TTL ms, number of events, how many of the newest events an id is
#      looked for in (0: only whole members are compared), items to remember beyond the log, entries of seen items to
#      add and their number, ids to remember beyond the log (0: none are added), then (time ms, member) each, oldest
#      first; then (event id, body) for each signal
# → accepted, duplicates, version, ids of the duplicates whose item or type is another, stamp of the seen items, events
#   at or below the floor, keys of another type that were replaced
#
# An event id names one event, whatever its time, item and type. A member starts with the id, and a sorted set cannot be
# searched by the start of a member, so the newest events are read once for a call with ids. Digests of ids whose events
# have left the log are kept beside it (`service.store.left_ids`).
#
# A full log does not take an event that is older than all it keeps, because it would be trimmed at once. Such an event
# counts as accepted, and the version stays, because the log did not change. Its item was seen, as was the item of every
# event that is trimmed (`service.store.seen_items`). Nor does a log take an event that is no newer than its floor, the
# score of the newest event of a checkpoint (WRITE_STATE): no state could be rebuilt with it.
APPEND = Script(
    CLEAN
    + """
local sep = '\\31'
@REMEMBER@
@REMEMBER_IDS@
local replaced = clean(KEYS[1], 'zset') + clean(KEYS[2], 'string') + clean(KEYS[3], 'stream') + clean(KEYS[4], 'string')
  + clean(KEYS[5], 'string') + clean(KEYS[6], 'string')
local cap, ttl, events = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[5])
local version = redis.call('GET', KEYS[2]) or ''
local kept = redis.call('ZCARD', KEYS[1])
local accepted, duplicates, late = 0, 0, 0
local floor = tonumber(redis.call('GET', KEYS[6]) or '')
local known, reused, looked, ids_kept = {}, {}, tonumber(ARGV[6]), tonumber(ARGV[10])
local ids = (looked > 0 or ids_kept > 0) and ids_left(KEYS[5]) or '1'
local function id_of(member)
  return string.sub(member, 1, (string.find(member, sep, 1, true) or 0) - 1)
end
local sent = {}  -- of this call, or gone from the log in it: such an event is no other one when it comes again
local function leaves(member, score)
  sent[member] = true
  leave(member, score)
  if ids_kept > 0 then
    gone[#gone + 1] = digest(id_of(member))
  end
end

if events > 0 then
  -- Until the end, the version is one that nobody knows. Should the script fail in between, no copy passes for current.
  redis.call('SET', KEYS[2], string.sub(redis.sha1hex(version .. sep .. '?' .. ARGV[12]), 1, 16), 'PX', ttl)
end
if events > 0 and looked > 0 then
  for _, member in ipairs(redis.call('ZREVRANGE', KEYS[1], 0, looked - 1)) do
    known[id_of(member)] = member
  end
end
for i = 11, 9 + 2 * events, 2 do
  local ms, member = ARGV[i], ARGV[i + 1]
  local id = looked > 0 and id_of(member)
  local same = id and known[id]
  if same or sent[member] or (id and has_left(ids, id)) or redis.call('ZSCORE', KEYS[1], member) then
    duplicates = duplicates + 1
    if same and same ~= member then
      reused[#reused + 1] = id
    end
  else
    accepted = accepted + 1
    sent[member] = true
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
    if floor and score <= floor then
      late = late + 1
      leaves(member, score)
    elseif kept < cap or score >= tonumber(oldest[2]) then
      redis.call('ZADD', KEYS[1], string.format('%.17g', score), member)
      local text = version .. sep .. ms .. sep .. string.format('%d', arrival) .. sep .. member
      version = string.sub(redis.sha1hex(text), 1, 16)
      kept = kept + 1
      if kept > cap then
        local trimmed = redis.call('ZRANGE', KEYS[1], 0, kept - cap - 1, 'WITHSCORES')
        for n = 1, #trimmed, 2 do
          leaves(trimmed[n], trimmed[n + 1])
        end
        redis.call('ZREMRANGEBYRANK', KEYS[1], 0, kept - cap - 1)
        kept = cap
      end
    else
      leaves(member, score)
    end
  end
end

local first = 11 + 2 * events
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

if version ~= '' then
  redis.call('SET', KEYS[2], version, 'PX', ttl)
else
  redis.call('UNLINK', KEYS[2])
end
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('PEXPIRE', KEYS[7], ttl)
if floor then
  redis.call('PEXPIRE', KEYS[6], ttl)
end
remember_ids(KEYS[5], ids, ids_kept, ttl)
local stamp = remember(KEYS[4], tonumber(ARGV[7]), ARGV[8], tonumber(ARGV[9]), ttl)
return {accepted, duplicates, version, reused, stamp, late, replaced}
""".replace("@KNOWN@", str(IDS_KNOWN))
    .replace("@REMEMBER@", REMEMBER)
    .replace("@REMEMBER_IDS@", REMEMBER_IDS)
)

# KEYS events, version, state, seen, features
# ARGV known version, "" for none, and known stamps of the seen items and of the features
# → version, members with scores (oldest first), state blob, seen items, features; the version alone if all are known
READ = Script(
    READS
    + TYPED
    + """
local version = typed(false, 'GET', KEYS[2])
if version and version == ARGV[1] and typed('', 'GETRANGE', KEYS[4], 1, 16) == ARGV[2]
  and typed('', 'GETRANGE', KEYS[5], 1, 16) == ARGV[3] then
  return {version}
end
return {version, typed({}, 'ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), typed(false, 'GET', KEYS[3]),
        typed(false, 'GET', KEYS[4]), typed(false, 'GET', KEYS[5])}
"""
)

# KEYS version, state, states; for a state that remembers trimmed events also checkpoint, floor
# ARGV expected version, blob, TTL ms, encoder version; then name of the checkpoint, its blob ("": the stored one
#      stays), TTL ms of the log, score of the newest event that the checkpoint covers
# → 1 written, 0 outdated
#
# The checkpoint is what a state is rebuilt from (`service.history.trim_checkpoint`): it lives as long as the log. The
# floor goes first, and never falls: from then on the log takes no event that the checkpoint cannot have.
WRITE_STATE = Script(
    TYPED
    + CLEAN
    + """
if typed(false, 'GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
clean(KEYS[3], 'set')
-- First: a state that is not listed would survive an erasure.
redis.call('SADD', KEYS[3], ARGV[4])
redis.call('PEXPIRE', KEYS[3], KEYS[4] and ARGV[7] or ARGV[3])
if KEYS[4] and ARGV[6] ~= '' then
  redis.call('SADD', KEYS[3], ARGV[5])
  local floor = tonumber(typed('', 'GET', KEYS[5]))
  clean(KEYS[5], 'string')
  redis.call('SET', KEYS[5], floor and floor > tonumber(ARGV[8]) and string.format('%.17g', floor) or ARGV[8],
             'PX', ARGV[7])
  redis.call('SET', KEYS[4], ARGV[6], 'PX', ARGV[7])
elseif KEYS[4] then
  redis.call('PEXPIRE', KEYS[4], ARGV[7])
  redis.call('PEXPIRE', KEYS[5], ARGV[7])
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
"""
)

# KEYS events, version, signals, seen, features
# → version, members with scores (oldest first), signals (oldest first), seen items, features
READ_LOG = Script(
    READS
    + TYPED
    + """
return {typed(false, 'GET', KEYS[2]), typed({}, 'ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'),
        typed({}, 'XRANGE', KEYS[3], '-', '+'), typed(false, 'GET', KEYS[4]), typed(false, 'GET', KEYS[5])}
"""
)

# KEYS events, version, signals, states, seen, ids, floor, features
# ARGV prefix of the state keys, channel, message, 1 if all must be unchanged, then expected version, signals and stamps
#      of the seen items and of the features, then versions of models
# → number of keys deleted; -1 if something has changed since
#
# The state keys are not declared in KEYS: they share the hash tag of the declared keys. They are listed in `states`;
# those of the given models are deleted even if that list is lost.
ERASE = Script(
    TYPED
    + """
if ARGV[4] == '1' then
  if (typed(false, 'GET', KEYS[2]) or '') ~= ARGV[5] or typed(0, 'XLEN', KEYS[3]) ~= tonumber(ARGV[6])
    or typed('', 'GETRANGE', KEYS[5], 1, 16) ~= ARGV[7] or typed('', 'GETRANGE', KEYS[8], 1, 16) ~= ARGV[8] then
    return -1
  end
end
local deleted = 0
for _, model in ipairs(typed({}, 'SMEMBERS', KEYS[4])) do
  deleted = deleted + redis.call('UNLINK', ARGV[1] .. model)
end
for i = 9, #ARGV do
  deleted = deleted + redis.call('UNLINK', ARGV[1] .. ARGV[i])
end
deleted = deleted + redis.call('UNLINK', unpack(KEYS))
redis.pcall('PUBLISH', ARGV[2], ARGV[3])
return deleted
"""
)

ALL = (
    APPEND,
    READ,
    WRITE_STATE,
    READ_LOG,
    ERASE,
    *user_features.ALL,
    *lua_shared.ALL,
    *log_streams.ALL,
    LIST_ERASED,
    *page_marks.ALL,
    *items.ALL,
)
