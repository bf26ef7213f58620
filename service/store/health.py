"""Whether Redis answers, asked once a second at most."""

from __future__ import annotations

import time

from service.common.deadline import Clock
from service.common.errors import StoreUnavailable
from service.common.metrics import Metrics
from service.common.single_flight import SingleFlight
from service.store.store import Store

_PING_S = 1.0


class RedisCheck:
    """Whether Redis answers. Redis is asked once a second at most, however often anybody wants to know."""

    def __init__(self, store: Store, metrics: Metrics, clock: Clock = time.monotonic) -> None:
        self._store = store
        self._metrics = metrics
        self._held: SingleFlight[bool] = SingleFlight(_PING_S, clock)

    async def answers(self) -> bool:
        return await self._held.get(self._ask)

    async def _ask(self) -> bool:
        try:
            await self._store.ping()
        except StoreUnavailable:
            self._metrics.redis_errors.labels("ping").inc()
            return False
        return True
