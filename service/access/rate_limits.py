"""Limits how many requests an API key may make, counted in Redis for all replicas together.

`limits` does the counting (a sliding window of two counters, one script per request) over the store's connections. When
Redis is away or too slow, no key is refused because of that: this process counts on its own until Redis answers again,
so a key gets at most its rate from each process. A request waits for Redis no longer than its deadline and the read
time-out allow. The time at which a refused key has room again is remembered, and until then the key is refused without
a call to Redis.
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
from service.common.errors import SettingsError, StoreUnavailable
from service.common.request_errors import TooManyRequests
from service.metrics.service_metrics import Metrics
from service.settings.service_settings import Settings
from service.store.lua_script import Script
from service.store.store import Store

_ACQUIRE = Script(RedisBridge.SCRIPT_ACQUIRE_SLIDING_WINDOW.decode())
_LOOK = Script(RedisBridge.SCRIPT_SLIDING_WINDOW.decode())

SCRIPTS = (_ACQUIRE, _LOOK)

# Pause after a failure before Redis is tried again, so that not every request waits for a time-out.
_PAUSE_S = 1.0
# Most keys whose refusal is remembered.
_REFUSED_MAX = 10_000


def rate_of(text: str) -> RateLimitItem:
    """Parses a rate such as `100/second`, `5000/minute` or `10 per 2 seconds`.

    Raises:
        SettingsError: the text is not a rate.
    """
    try:
        return parse(text)
    except ValueError:
        raise SettingsError(
            "GPT4REC_API_RATE: write a number of requests and a period, such as 100/second or 5000/minute"
        ) from None


def rates_for(settings: Settings, store: Store, metrics: Metrics) -> Rates | None:
    """Opens the rate limits of the settings; None when no rate is configured.

    Raises:
        SettingsError: the configured rate is malformed.
    """
    return Rates(rate_of(settings.api_rate), store, metrics) if settings.api_rate else None


class _Counters(Storage, SlidingWindowCounterSupport):
    """The part of a `limits` storage that its sliding window needs, backed by the store."""

    STORAGE_SCHEME = None

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    @property
    def base_exceptions(self) -> type[Exception]:
        return StoreUnavailable

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return bool(await self._store.run_script(_ACQUIRE, _windows(key), (limit, expiry, amount)))

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        before, before_ms, now, now_ms = await self._store.run_script(_LOOK, _windows(key), (expiry,))
        return int(before or 0), max(0, int(before_ms)) / 1000, int(now or 0), max(0, int(now_ms)) / 1000

    async def clear_sliding_window(self, key: str, expiry: int) -> None:  # noqa: ARG002 - the library's signature
        self._unsupported()

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:  # noqa: ARG002
        self._unsupported()

    async def get(self, key: str) -> int:  # noqa: ARG002
        self._unsupported()

    async def get_expiry(self, key: str) -> float:  # noqa: ARG002
        self._unsupported()

    async def check(self) -> bool:
        self._unsupported()

    async def reset(self) -> int | None:
        self._unsupported()

    async def clear(self, key: str) -> None:  # noqa: ARG002
        self._unsupported()

    def _unsupported(self) -> NoReturn:
        raise NotImplementedError("this storage supports only the sliding window")


def _windows(key: str) -> tuple[str, str]:
    """Returns the keys of the previous and the current window. One hash tag puts both in one slot of a cluster."""
    tag = f"{{rate:{key}}}"
    return f"{tag}:before", f"{tag}:now"


class Rates:
    """Counts the requests of every API key and refuses those above the rate."""

    def __init__(self, rate: RateLimitItem, store: Store, metrics: Metrics, clock: Clock = time.monotonic) -> None:
        self._rate = rate
        store.server.expect(*SCRIPTS)
        self._shared = SlidingWindowCounterRateLimiter(_Counters(store))
        self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._metrics = metrics
        self._clock = clock
        self._away_until = -math.inf
        self._refused_until: dict[str, tuple[float, str]] = {}

    async def take(self, caller: Caller, lists: int = 1) -> None:
        """Counts a request of a key; one for several lists counts as so many.

        Raises:
            TooManyRequests: the request is above the rate. The error has the time after which there is room again.
        """
        until, where = self._refused_until.get(caller.name, (-math.inf, ""))
        if (left_s := until - self._clock()) > 0.0:
            self._refuse(where, left_s)
        limiter = self._own
        if self._clock() >= self._away_until:
            limiter = self._shared
        try:
            room = await limiter.hit(self._rate, caller.name, cost=lists)
        except StoreUnavailable:
            self._metrics.redis_errors.labels("rate").inc()
            self._away_until = self._clock() + _PAUSE_S
            limiter = self._own
            room = await limiter.hit(self._rate, caller.name, cost=lists)
        where = "shared" if limiter is self._shared else "own"
        if room:
            self._metrics.rate_checks.labels(where, "allowed").inc()
            return
        left_s = await self._wait_s(limiter, caller)
        if lists == 1:  # there may be room for less than a batch
            self._remember(caller.name, self._clock() + left_s, where)
        self._refuse(where, left_s)

    def _remember(self, key: str, until: float, where: str) -> None:
        self._refused_until.pop(key, None)
        while len(self._refused_until) >= _REFUSED_MAX:
            del self._refused_until[next(iter(self._refused_until))]
        self._refused_until[key] = until, where

    def _refuse(self, where: str, left_s: float) -> NoReturn:
        """Raises TooManyRequests with the wait in whole seconds, at least one."""
        self._metrics.rate_checks.labels(where, "refused").inc()
        raise TooManyRequests(f"more than {self._rate} requests", retry_after_s=max(1, math.ceil(left_s)))

    async def _wait_s(self, limiter: SlidingWindowCounterRateLimiter, caller: Caller) -> float:
        """Returns the time until there is room for one request, at most the rate's period; 0 when unknown."""
        try:
            reset: float = (await limiter.get_window_stats(self._rate, caller.name)).reset_time
        except StoreUnavailable:
            return 0.0
        longest: int = self._rate.get_expiry()
        return max(0.0, min(reset - time.time(), longest))
