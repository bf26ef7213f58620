"""What lists earned, kept for all replicas: a hash that the sink writes and the service reads.

{ops}:outcomes   hash: what `service.experiments.outcomes` packs; the oldest fields go first when there are too many
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

from service.common.errors import StoreUnavailable
from service.store.lua_script import CLEAN, Script
from service.store.redis.redis_link import RedisLink, ScriptCall

FIELDS_MOST = 10_000
TTL_MS = 60 * 86_400_000
# Fields of one call: Lua passes a bounded number of arguments on.
_AT_ONCE = 500

# KEYS hash   ARGV most fields, TTL in ms, number of names, names to remove, then field, value, …
#
# Names begin with the number of a day, so that the oldest come first.
WRITE_OUTCOMES = Script(
    CLEAN
    + """
clean(KEYS[1], 'hash')
local first = 4 + tonumber(ARGV[3])
if first > 4 then redis.call('HDEL', KEYS[1], unpack(ARGV, 4, first - 1)) end
if #ARGV >= first then redis.call('HSET', KEYS[1], unpack(ARGV, first)) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local over = redis.call('HLEN', KEYS[1]) - tonumber(ARGV[1])
if over > 0 then
  local names = redis.call('HKEYS', KEYS[1])
  table.sort(names)
  for i = 1, over do redis.call('HDEL', KEYS[1], names[i]) end
end
return 0
"""
)


class OutcomeFields:
    """Reads and writes the hash. Nothing here raises anything but StoreUnavailable."""

    def __init__(self, link: RedisLink, *, prefix: str, timeout_s: float) -> None:
        """Uses the connections of `link`; each call has `timeout_s`."""
        self._link, self._timeout_s = link, timeout_s
        self._key = f"{prefix}{{ops}}:outcomes"

    async def write(self, fields: Mapping[str, bytes], removed: Iterable[str] = ()) -> None:
        """Writes fields in place of those of the same names, and removes others; up to 500 of both in one step."""
        rest = iter([*((name, None) for name in removed), *fields.items()])
        while some := list(islice(rest, _AT_ONCE)):
            names = [name for name, body in some if body is None]
            flat = [part for name, body in some if body is not None for part in (name, body)]
            call = ScriptCall(WRITE_OUTCOMES, (self._key,), (FIELDS_MOST, TTL_MS, len(names), *names, *flat))
            await self._link.script(call, timeout_s=self._timeout_s)

    async def read(self) -> dict[str, bytes]:
        """Returns every field; none if the key is of another type."""
        try:
            flat = await self._link.command("HGETALL", self._key, timeout_s=self._timeout_s)
        except StoreUnavailable as error:
            if error.cause != "wrong_type":
                raise
            return {}
        pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
        return {name.decode(errors="replace"): body for name, body in pairs}
