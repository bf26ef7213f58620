"""How many requests an API key may make, counted in Redis for all replicas together.

The counting is that of `limits` (a sliding window of two counters, one script a request), over the connections that the
store has. With Redis away, or too slow, a key is not refused for it: this process counts by itself until Redis answers
again, so that a key gets at most its rate from each process. A request waits for Redis within its own time, and no
longer than the read time-out. When there is room again for a key that was refused is remembered: until then it is
refused without asking.
"""

from __future__ import annotations

import math
import time
from typing import NoReturn

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, SlidingWindowCounterSupport, Storage
from limits.aio.storage.redis.bridge import RedisBridge
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from service.access.keys import Caller
from service.common.deadline import Clock
from service.common.errors import SettingsError, StoreUnavailable, TooManyRequests
from service.common.metrics import Metrics
from service.common.settings import Settings
from service.store.lua_scripts import Script
from service.store.store import Store

_ACQUIRE = Script(RedisBridge.SCRIPT_ACQUIRE_SLIDING_WINDOW.decode())
_LOOK = Script(RedisBridge.SCRIPT_SLIDING_WINDOW.decode())

# After a failure Redis is asked again so much later: a request must not wait for it in vain, one after the other.
_PAUSE_S = 1.0
# Keys whose refusal is remembered.
_REFUSED_MAX = 10_000


def rate_of(text: str) -> RateLimitItem:
    """`100/second`, `5000/minute`, `10 per 2 seconds`.

    Raises:
        SettingsError: anything else.
    """
    try:
        return parse(text)
    except ValueError:
        raise SettingsError(
            "GPT4REC_API_RATE: write it as a number of requests and a time, such as 100/second or 5000/minute"
        ) from None


def rates_for(settings: Settings, store: Store, metrics: Metrics) -> Rates | None:
    """None where no rate is set. Raises SettingsError for one that is none."""
    return Rates(rate_of(settings.api_rate), store, metrics) if settings.api_rate else None


class _Counters(Storage, SlidingWindowCounterSupport):
    """The storage of `limits`, as far as its sliding window needs one, over the store."""

    STORAGE_SCHEME = None

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    @property
    def base_exceptions(self) -> type[Exception]:
        return StoreUnavailable

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return bool(await self._store.count(_ACQUIRE, _windows(key), (limit, expiry, amount)))

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        before, before_ms, now, now_ms = await self._store.count(_LOOK, _windows(key), (expiry,))
        return int(before or 0), max(0, int(before_ms)) / 1000, int(now or 0), max(0, int(now_ms)) / 1000

    async def clear_sliding_window(self, key: str, expiry: int) -> None:  # noqa: ARG002 - the library's signature
        self._other()

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:  # noqa: ARG002
        self._other()

    async def get(self, key: str) -> int:  # noqa: ARG002
        self._other()

    async def get_expiry(self, key: str) -> float:  # noqa: ARG002
        self._other()

    async def check(self) -> bool:
        self._other()

    async def reset(self) -> int | None:
        self._other()

    async def clear(self, key: str) -> None:  # noqa: ARG002
        self._other()

    def _other(self) -> NoReturn:
        raise NotImplementedError("only the sliding window is used")


def _windows(key: str) -> tuple[str, str]:
    """The key of the window before, and of this one: one hash tag, so one slot of a cluster."""
    tag = f"{{rate:{key}}}"
    return f"{tag}:before", f"{tag}:now"


class Rates:
    """`take` counts a request of a key, and raises where it is one too many."""

    def __init__(self, rate: RateLimitItem, store: Store, metrics: Metrics, clock: Clock = time.monotonic) -> None:
        self._rate = rate
        self._shared = SlidingWindowCounterRateLimiter(_Counters(store))
        self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._metrics = metrics
        self._clock = clock
        self._away_until = -math.inf
        self._refused_until: dict[str, tuple[float, str]] = {}

    async def take(self, caller: Caller) -> None:
        """Raises TooManyRequests, with the time after which there is room again."""
        until, where = self._refused_until.get(caller.name, (-math.inf, ""))
        if (left := until - self._clock()) > 0.0:
            self._refuse(where, left)
        limiter = self._own
        if self._clock() >= self._away_until:
            limiter = self._shared
        try:
            room = await limiter.hit(self._rate, caller.name)
        except StoreUnavailable:
            self._metrics.redis_errors.labels("rate").inc()
            self._away_until = self._clock() + _PAUSE_S
            limiter = self._own
            room = await limiter.hit(self._rate, caller.name)
        where = "shared" if limiter is self._shared else "own"
        if room:
            self._metrics.rate_checks.labels(where, "allowed").inc()
            return
        left = await self._wait_s(limiter, caller)
        self._remember(caller.name, self._clock() + left, where)
        self._refuse(where, left)

    def _remember(self, key: str, until: float, where: str) -> None:
        self._refused_until.pop(key, None)
        while len(self._refused_until) >= _REFUSED_MAX:
            del self._refused_until[next(iter(self._refused_until))]
        self._refused_until[key] = until, where

    def _refuse(self, where: str, left_s: float) -> NoReturn:
        """Tells whole seconds, at least one."""
        self._metrics.rate_checks.labels(where, "refused").inc()
        raise TooManyRequests(f"more than {self._rate} requests", retry_after_s=max(1, math.ceil(left_s)))

    async def _wait_s(self, limiter: SlidingWindowCounterRateLimiter, caller: Caller) -> float:
        """Until there is room for one request; no longer than the rate's own time. 0 where that is not known."""
        try:
            reset: float = (await limiter.get_window_stats(self._rate, caller.name)).reset_time
        except StoreUnavailable:
            return 0.0
        longest: int = self._rate.get_expiry()
        return max(0.0, min(reset - time.time(), longest))
