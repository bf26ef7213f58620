"""Whether Redis can be used, and if not, why: probed once a second, logged when it changes."""

from __future__ import annotations

import asyncio
import math
import time
from typing import cast

from service.common import logs
from service.common.deadline import Clock
from service.common.errors import StoreUnavailable
from service.common.single_flight import SingleFlight
from service.metrics.service_metrics import Metrics
from service.store.redis.redis_causes import CAUSES, MEANINGS, Cause
from service.store.store import Store

log = logs.get(__name__)

_PROBE_S = 1.0
# How often the eviction policy and the right to subscribe are looked at while all is well.
_INSPECT_S = 60.0
_DETAIL_MAX = 300
# A cause that comes back sooner is not logged again until then.
_SILENT_S = 60.0
_OK = "ok"

STATES = (_OK, *CAUSES)


class RedisCheck:
    """Tells whether a write and a script would work. Probes at most once a second, however often the question comes.

    Attributes:
        cause: Why Redis cannot be used, one of `redis_causes.CAUSES`; None if it can.
        detail: What the server or the network said.
    """

    def __init__(self, store: Store, metrics: Metrics, clock: Clock = time.monotonic) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._check: SingleFlight[bool] = SingleFlight(_PROBE_S, clock)
        self._inspect_at = clock()
        self._policy = ""
        self._logged: Cause | None = None
        self._silent_until: dict[Cause, float] = {}
        self._missing: frozenset[str] = frozenset()
        self.cause: Cause | None = None
        self.detail = ""
        metrics.one_hot(metrics.redis_state, STATES, _OK)

    @property
    def usable(self) -> bool:
        """Whether the latest probe succeeded."""
        return self.cause is None

    @property
    def meaning(self) -> str | None:
        """The cause in words; None if Redis can be used."""
        return None if self.cause is None else MEANINGS[self.cause]

    async def answers(self) -> bool:
        """Returns whether a write and a script worked a moment ago."""
        return await self._check.get(self._probe)

    async def run(self) -> None:
        """Probes every second until cancelled."""
        while True:
            await self.answers()
            await asyncio.sleep(_PROBE_S)

    async def _probe(self) -> bool:
        try:
            missing = await self._store.server.write()
        except StoreUnavailable as error:
            self._metrics.redis_errors.labels("ping").inc()
            self._note(cast("Cause", error.cause), str(error)[:_DETAIL_MAX])
            return False
        if not self.usable:
            self._inspect_at = self._clock()
        self._note(None, "")
        if self._clock() >= self._inspect_at:
            self._inspect_at = self._clock() + _INSPECT_S
            await self._inspect(missing)
        return True

    def _note(self, cause: Cause | None, detail: str) -> None:
        """Logs a new cause once: an outage is two lines, not one a second, also if its cause goes to and fro.

        The log's last word is true in the end: a cause that came back too soon is logged if it stays.
        """
        before, self.cause, self.detail = self.cause, cause, detail
        if cause != before:
            self._metrics.one_hot(self._metrics.redis_state, STATES, cause or _OK)
        if cause == self._logged:
            return
        if cause is None:
            self._logged = None
            log.warning("redis_usable_again", was=before)
        elif self._clock() >= self._silent_until.get(cause, -math.inf):
            self._silent_until[cause] = self._clock() + _SILENT_S
            self._logged = cause
            log.error("redis_unusable", cause=cause, meaning=MEANINGS[cause], detail=detail)

    async def _inspect(self, missing: frozenset[str]) -> None:
        """Warns of what harms later: a policy that evicts histories, rights without which changes spread slowly."""
        try:
            if not await self._store.server.subscribe():
                missing |= {"SUBSCRIBE"}
            policy = await self._store.server.eviction_policy()
        except StoreUnavailable as error:
            if error.cause != "no_permission":
                return
            missing, policy = missing | {"INFO"}, ""
        if missing != self._missing and missing:
            names = ", ".join(f"+{name.lower()}" for name in sorted(missing))
            log.warning(
                "redis_rights_missing",
                missing=names,
                detail="erasures and operators' changes reach other replicas by polling only, and what cannot be read "
                "is not shown: see the ACL line in docs/deployment.md",
            )
        if policy != self._policy and policy.startswith(("allkeys", "volatile")):
            log.warning(
                "redis_may_evict_histories",
                policy=policy,
                detail="when maxmemory is reached, users lose their history without a word: set maxmemory-policy "
                "noeviction",
            )
        self._policy, self._missing = policy, missing
