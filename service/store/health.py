"""A health check of Redis, made at most once a second."""

from __future__ import annotations

import time

from service.common.deadline import Clock
from service.common.errors import StoreUnavailable
from service.common.metrics import Metrics
from service.common.single_flight import SingleFlight
from service.store.store import Store

_PING_S = 1.0


class RedisCheck:
    """Tells whether Redis answers. It is pinged at most once a second, however often the question comes."""

    def __init__(self, store: Store, metrics: Metrics, clock: Clock = time.monotonic) -> None:
        self._store = store
        self._metrics = metrics
        self._check: SingleFlight[bool] = SingleFlight(_PING_S, clock)

    async def answers(self) -> bool:
        """Returns whether Redis answered the latest ping."""
        return await self._check.get(self._ping)

    async def _ping(self) -> bool:
        try:
            await self._store.ping()
        except StoreUnavailable:
            self._metrics.redis_errors.labels("ping").inc()
            return False
        return True
