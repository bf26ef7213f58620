"""The Lua scripts of what replicas share (`service.store.shared_values`)."""

from __future__ import annotations

from service.store.lua_script import CLEAN, READS, TYPED, Script

# Makes room before it adds: a list that cannot be trimmed must not grow.
_PUSH = """
local function push(key, cap, entry)
  redis.call('LTRIM', key, cap > 1 and 0 or 1, math.max(cap - 2, 0))
  redis.call('LPUSH', key, entry)
end
"""

# KEYS value   → the server's clock (s, µs), then version, changed at, body of the stored value
READ_SHARED = Script(
    READS
    + TYPED
    + """
local stored = typed({false, false, false}, 'HMGET', KEYS[1], 'version', 'changed_at', 'body')
local now = redis.call('TIME')
return {now[1], now[2], stored[1], stored[2], stored[3]}
"""
)

# KEYS value, audit   ARGV version, changed at (ms), body, channel, audit cap, audit entry or ""
# → the server's clock (s, µs), then version, changed at, body of the value in force now
#
# Only a newer value replaces the stored one: a write that is executed late, when its sender has given up, must not
# override what was decided meanwhile. A change comes with an audit entry, and needs a higher version. Without an entry,
# a replica shares the value that it has: of two values with the same version, made apart, the later is newer.
WRITE_SHARED = Script(
    TYPED
    + CLEAN
    + _PUSH
    + """
local stored = typed({false, false, false}, 'HMGET', KEYS[1], 'version', 'changed_at', 'body')
local version, changed_at = tonumber(ARGV[1]), tonumber(ARGV[2])
local stored_version, stored_at = tonumber(stored[1] or '0') or 0, tonumber(stored[2] or '0') or 0
local newer = version > stored_version
if ARGV[6] == '' then
  newer = newer or (version == stored_version and changed_at > stored_at)
end
local in_force = stored
if newer or not stored[3] then
  in_force = {ARGV[1], ARGV[2], ARGV[3]}
  clean(KEYS[1], 'hash')
  if ARGV[6] ~= '' then
    clean(KEYS[2], 'list')
    push(KEYS[2], tonumber(ARGV[5]), ARGV[6])
  end
  redis.call('HSET', KEYS[1], 'version', ARGV[1], 'changed_at', ARGV[2], 'body', ARGV[3])
  redis.pcall('PUBLISH', ARGV[4], ARGV[1])
end
local now = redis.call('TIME')
return {now[1], now[2], in_force[1], in_force[2], in_force[3]}
"""
)

# KEYS audit   ARGV cap, entry
APPEND_AUDIT = Script(
    CLEAN
    + _PUSH
    + """
clean(KEYS[1], 'list')
push(KEYS[1], tonumber(ARGV[1]), ARGV[2])
return 1
"""
)

# KEYS replicas   ARGV TTL s, name, report
REPORT_REPLICA = Script(
    CLEAN
    + """
clean(KEYS[1], 'hash')
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
"""
)

# KEYS hash   ARGV ttl (s), then pairs: field, number to add
ADD_COUNTS = Script(
    CLEAN
    + """
clean(KEYS[1], 'hash')
for i = 2, #ARGV, 2 do
  local number = tonumber(ARGV[i + 1]) + (tonumber(redis.call('HMGET', KEYS[1], ARGV[i])[1] or '0') or 0)
  redis.call('HSET', KEYS[1], ARGV[i], string.format('%.0f', number))
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
"""
)

ALL = (READ_SHARED, WRITE_SHARED, APPEND_AUDIT, REPORT_REPLICA, ADD_COUNTS)
