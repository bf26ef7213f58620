"""The Lua scripts of `service.store.streams.encode_stream`, the stream between the roles."""

from __future__ import annotations

from service.store.lua_script import READS, TYPED, Script
from service.store.streams.stream_group import READ_GROUP

# KEYS stream   ARGV group, consumer, ms after which an entry is taken over, number of entries, attempts, ms after which
#               an idle consumer is forgotten
# → entries given up, then for each entry that was taken over: id, fields and values
#
# XPENDING and XCLAIM in the place of XAUTOCLAIM, which tells neither the attempts nor, before Redis 7, the entries that
# were deleted meanwhile.
TAKE_OVER = Script(
    TYPED
    + """
local key, group, me, idle = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local waiting = redis.pcall('XPENDING', key, group, 'IDLE', idle, '-', '+', ARGV[4])
if waiting['err'] then
  if string.find(waiting['err'], 'NOGROUP', 1, true) or string.find(waiting['err'], 'WRONGTYPE', 1, true) then
    return {0}
  end
  return redis.call('XPENDING', key, group, 'IDLE', idle, '-', '+', ARGV[4])
end
local reply, given_up = {0}, 0
for _, one in ipairs(waiting) do
  local entry = redis.call('XCLAIM', key, group, me, idle, one[1])[1]
  if not entry then
    redis.call('XACK', key, group, one[1])
  elseif one[4] >= tonumber(ARGV[5]) then
    redis.call('XACK', key, group, one[1])
    redis.call('XDEL', key, one[1])
    given_up = given_up + 1
  else
    reply[#reply + 1] = entry
  end
end
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', key, group)) do
  local about = {}
  for i = 1, #consumer, 2 do about[consumer[i]] = consumer[i + 1] end
  if about['name'] ~= me and about['pending'] == 0 and about['idle'] > tonumber(ARGV[6]) then
    redis.call('XGROUP', 'DELCONSUMER', key, group, about['name'])
  end
end
reply[1] = given_up
return reply
"""
)

# KEYS stream   ARGV group, ids   → entries that were there
FINISH = Script(
    TYPED
    + """
typed(0, 'XACK', KEYS[1], ARGV[1], unpack(ARGV, 2))
return typed(0, 'XDEL', KEYS[1], unpack(ARGV, 2))
"""
)

# KEYS stream   ARGV group, consumer   → entries that it still holds; without any, it is forgotten
LEAVE = Script("""
local found = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if found['err'] then return 0 end
for _, consumer in ipairs(found) do
  local about = {}
  for i = 1, #consumer, 2 do about[consumer[i]] = consumer[i + 1] end
  if about['name'] == ARGV[2] then
    if about['pending'] == 0 then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2]) end
    return about['pending']
  end
end
return 0
""")

# KEYS stream   → entries, age of the oldest in ms by the server's clock
BACKLOG = Script(
    READS
    + TYPED
    + """
local oldest = typed({}, 'XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if not oldest then return {0, 0} end
local now = redis.call('TIME')
local age = now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(string.match(oldest[1], '^%d+'))
return {redis.call('XLEN', KEYS[1]), math.max(0, age)}
"""
)

# What the roles need beyond the scripts that every process runs.
ANSWERS = (BACKLOG,)
ENCODES = (READ_GROUP, TAKE_OVER, FINISH, LEAVE, BACKLOG)
