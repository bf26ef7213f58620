"""What the cursors of pages are checked against: the key that signs them, and who was erased since.

    {pages}:key             32 random bytes in hexadecimal digits, made once and shared by all replicas
    {pages}:erased:<hash>   a random word of the last erasure of a subject; it lives longer than any cursor

A cursor holds the word that was there when it was made, so an erasure ends it whatever the clocks of replicas say.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from hashlib import blake2b

from service.store.lua_script import CLEAN, ERASES, TYPED, Script
from service.store.redis.redis_link import RedisLink, ScriptCall

# Cursors live for a day at most.
CURSOR_TTL_MAX_S = 86_400
_MARK_TTL_MS = (CURSOR_TTL_MAX_S + 3_600) * 1000

# KEYS key, mark   ARGV a new key, TTL of marks in ms   → the key, and the mark of the subject or ""
READ_PAGES = Script(
    TYPED
    + CLEAN
    + """
clean(KEYS[1], 'string')
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('SET', KEYS[1], ARGV[1]) end
local mark = typed(false, 'GET', KEYS[2]) or ''
if mark ~= '' then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
return {redis.call('GET', KEYS[1]), mark}
"""
)

# KEYS mark   ARGV a new word, TTL in ms
MARK_ERASED = Script(
    ERASES
    + """
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
)

ALL = (READ_PAGES, MARK_ERASED)


@dataclass(frozen=True, slots=True)
class PageState:
    """What a cursor is made and checked with.

    Attributes:
        key: Signs it.
        erasure: A word that changes with each erasure of the subject; "" if there was none.
    """

    key: bytes
    erasure: str


class PageMarks:
    """The key and the marks. Nothing here raises anything but StoreUnavailable."""

    def __init__(self, link: RedisLink, *, prefix: str, timeout_s: float) -> None:
        """Uses the connections of `link`.

        Args:
            link: The connections.
            prefix: First part of every key.
            timeout_s: Time-out of a call.
        """
        self._link, self._prefix, self._timeout_s = link, f"{prefix}{{pages}}:", timeout_s

    async def read(self, subject: str, *, within_s: float = math.inf) -> PageState:
        """Returns what cursors of a subject are made and checked with; the key is made if there is none.

        Args:
            subject: As entries of the streams name it, "" for nobody.
            within_s: Longest wait; the time-out of a call, if that is shorter.
        """
        keys = (f"{self._prefix}key", self._mark(subject))
        call = ScriptCall(READ_PAGES, keys, (os.urandom(32).hex(), _MARK_TTL_MS))
        key, erasure = await self._link.script(call, timeout_s=min(self._timeout_s, max(within_s, 0.001)))
        return PageState(key, erasure.decode(errors="replace"))

    async def erased(self, subject: str) -> None:
        """Ends all cursors of a subject."""
        call = ScriptCall(MARK_ERASED, (self._mark(subject),), (os.urandom(8).hex(), _MARK_TTL_MS))
        await self._link.script(call, timeout_s=self._timeout_s)

    def _mark(self, subject: str) -> str:
        return f"{self._prefix}erased:{blake2b(subject.encode(), digest_size=16).hexdigest()}"
