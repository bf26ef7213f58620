"""Who was erased, until the sink of the log has it in its files.

The streams say so too, but they are capped: where the sink is away for long, what they say is trimmed unread.

    {ops}:erased   sorted set: subject as entries name it → until when everything of it is erased, epoch milliseconds
"""

from __future__ import annotations

from collections.abc import Mapping

from service.store.lua_script import CLEAN, ERASES, TYPED, Script
from service.store.redis.redis_link import RedisLink, ScriptCall

# Where nothing reads the list, the oldest leave it.
MOST = 100_000
# Names that one call removes: Lua passes a bounded number of arguments on.
_REMOVED = 1000

# KEYS list   ARGV TTL ms, time, subject, most entries
LIST_ERASED = Script(
    ERASES
    + CLEAN
    + """
clean(KEYS[1], 'zset')
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[3])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[4]))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
"""
)

# KEYS list   → subject and time in turns
READ_ERASED = Script(
    TYPED
    + """
return typed({}, 'ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
"""
)

# KEYS list   ARGV subject and time in turns   → how many were removed; who was erased again since stays
REMOVE_ERASED = Script(
    TYPED
    + """
local removed = 0
for i = 1, #ARGV, 2 do
  local time = typed(false, 'ZSCORE', KEYS[1], ARGV[i])
  if time and tonumber(time) <= tonumber(ARGV[i + 1]) then
    removed = removed + redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
return removed
"""
)


class ErasureList:
    """The list. Nothing here raises anything but StoreUnavailable."""

    def __init__(self, link: RedisLink, *, prefix: str, timeout_s: float) -> None:
        """Uses the connections of `link`.

        Args:
            link: The connections.
            prefix: First part of every key.
            timeout_s: Time-out of a call.
        """
        self._link, self._key, self._timeout_s = link, f"{prefix}{{ops}}:erased", timeout_s

    async def add(self, subject: str, erased_ms: int, *, ttl_ms: int) -> None:
        """Adds an erasure; the list is deleted when nothing was added for so long."""
        await self._call(LIST_ERASED, ttl_ms, erased_ms, subject, MOST)

    async def read(self) -> dict[str, int]:
        """Returns until when everything of each subject is erased."""
        reply: list[bytes] = await self._call(READ_ERASED)
        return {
            subject.decode(errors="replace"): int(float(time))
            for subject, time in zip(reply[::2], reply[1::2], strict=True)
        }

    async def remove(self, done: Mapping[str, int]) -> None:
        """Removes erasures up to their time."""
        pairs = [part for pair in done.items() for part in pair]
        for first in range(0, len(pairs), 2 * _REMOVED):
            await self._call(REMOVE_ERASED, *pairs[first : first + 2 * _REMOVED])

    async def _call(self, script: Script, *arguments: str | int) -> list[bytes]:
        call = ScriptCall(script, (self._key,), arguments)
        reply: list[bytes] = await self._link.script(call, timeout_s=self._timeout_s)
        return reply
