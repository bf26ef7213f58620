"""Which models of all spaces are in memory: those that were used last, as far as the bound allows.

    a model is loaded ──► over the bound? ──► the least recently used ones that are idle are closed
    a closed model is asked for ──► its lists come from the rungs below ──► room is made, it is opened and checked again

One model is opened at a time, behind the answers. A model that was opened stays for a while before it may be closed.
After that, one that nobody asks for any more makes room at once, and one in use only for a model that is asked for at
least as often. So spaces of equal use that do not all fit take turns, and a request now and then takes no model away
from a busy space.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from service.common import logs
from service.common.deadline import Clock
from service.lifecycle.evictable_engine import EvictableEngine
from service.metrics.service_metrics import Metrics
from service.process.memory import return_freed

log = logs.get(__name__)

# How long a model stays once it was opened, and stays closed once it was closed; also how long after its last use it is
# out of use. Longer than a request may take: one that began with the closed engine must not meet the new one.
_STAYS_S = 10.0
# How long after a failure a model is tried again.
_AGAIN_S = 5.0
# How often it is looked whether a model makes room.
_LOOK_S = 0.25
_MIB = 2**20

Sleep = Callable[[float], Awaitable[object]]


@dataclass(slots=True, eq=False)
class Resident:
    """A model that may be closed and opened again.

    Attributes:
        engine: Its engine.
        space: The name of its space.
        nbytes: What it was seen to take.
        busy: Returns whether a job runs or waits.
        metrics: Of its space.
        since: Clock time at which it was opened or closed last.
        asked: How often it had been asked for then.
        wanted: Whether it is asked for while it is closed.
    """

    engine: EvictableEngine
    space: str
    nbytes: int
    busy: Callable[[], bool]
    metrics: Metrics
    since: float
    asked: int = 0
    wanted: bool = False

    def demand(self, now: float) -> float:
        """Returns how often a second it was asked for since it was opened or closed."""
        return (self.engine.asked - self.asked) / max(now - self.since, 1e-3)

    def changed(self, now: float) -> None:
        """Notes that it was opened or closed."""
        self.since, self.asked = now, self.engine.asked


class ResidentModels:
    """Bounds the memory of the models of all spaces together.

    A model that is larger than the bound is served all the same, alone.

    Args:
        bytes_max: The bound.
        stays_s: How long a model stays once it was opened or closed.
        clock: Monotonic seconds.
        sleep: Waits for so many seconds of that clock.
    """

    def __init__(
        self, bytes_max: int, *, stays_s: float = _STAYS_S, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._bytes_max, self._stays_s, self._clock, self._sleep = bytes_max, stays_s, clock, sleep
        self._models: list[Resident] = []
        self._lock = asyncio.Lock()
        self._opening: asyncio.Task[None] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the models that are open, as far as they were seen to take them."""
        return sum(model.nbytes for model in self._models if not model.engine.evicted)

    async def adopt(
        self, engine: EvictableEngine, *, space: str, nbytes: int, busy: Callable[[], bool], metrics: Metrics
    ) -> Resident:
        """Takes in a model that was just opened, and closes others if it does not fit beside them.

        Args:
            engine: Its engine.
            space: The name of its space.
            nbytes: What it was seen to take.
            busy: Returns whether a job runs or waits.
            metrics: Of its space.
        """
        model = Resident(engine, space, nbytes, busy, metrics, self._clock())
        loop = asyncio.get_running_loop()

        def wanted() -> None:
            with contextlib.suppress(RuntimeError):  # the event loop is gone
                loop.call_soon_threadsafe(self._want, model)

        engine.on_wanted = wanted
        self._models.append(model)
        async with self._lock:
            # Nobody waits for it to stay: a start with many spaces opens each of them once.
            await self._make_room(0, model, at_once=True)
        return model

    def forget(self, model: Resident) -> None:
        """Forgets a model that is closed for good."""
        model.engine.on_wanted = lambda: None
        if model in self._models:
            self._models.remove(model)

    async def close(self) -> None:
        """Ends what opens models."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)

    def _want(self, model: Resident) -> None:
        if model not in self._models or not model.engine.evicted:
            return
        model.wanted = True
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open_wanted())

    async def _open_wanted(self) -> None:
        """Opens the models that are asked for, those first that were closed first, until none is asked for any more."""
        while wanted := [model for model in self._models if model.wanted]:
            model = min(wanted, key=lambda one: one.since)
            until = self._clock() - self._stays_s
            if model.since > until:
                await self._sleep(model.since - until)
                continue
            async with self._lock:
                fits = await self._make_room(model.nbytes, model)
                if fits and model in self._models:
                    await self._open(model)
            if not fits:
                await self._sleep(self._until_next_s())

    def _until_next_s(self) -> float:
        """Seconds until it is worth to look again whether a model can make room."""
        ends = [model.since + self._stays_s for model in self._models if not model.engine.evicted]
        return max(_LOOK_S, min(ends, default=0.0) - self._clock())

    async def _make_room(self, nbytes: int, wanted: Resident, *, at_once: bool = False) -> bool:
        """Closes other models until so many bytes fit; returns whether they do, or there is none to close."""
        while self.nbytes + nbytes > self._bytes_max:
            others = [model for model in self._models if model is not wanted and not model.engine.evicted]
            if not others:
                return True  # it is larger than the bound
            victim = min(others, key=lambda one: one.engine.used) if at_once else self._victim(others, wanted)
            if victim is None:
                return False
            await self._evict(victim)
        return True

    def _victim(self, others: Sequence[Resident], wanted: Resident) -> Resident | None:
        """The model that makes room for another one; None if none does at present."""
        now = self._clock()
        stayed = [model for model in others if model.since <= now - self._stays_s]
        unused = [model for model in stayed if model.engine.used <= now - self._stays_s and not model.busy()]
        if unused:
            return min(unused, key=lambda one: one.engine.used)
        least = min(stayed, key=lambda one: one.demand(now), default=None)
        return least if least is not None and least.demand(now) <= wanted.demand(now) else None

    async def _evict(self, model: Resident) -> None:
        if not await asyncio.to_thread(model.engine.evict):
            model.changed(self._clock())  # a run hangs: others are tried first
            return
        await asyncio.to_thread(return_freed)
        model.changed(self._clock())
        model.metrics.model_evictions.inc()
        model.metrics.models_evicted.inc()
        log.info(
            "model_evicted",
            space=model.space,
            model_version=model.engine.model_version,
            mib=round(model.nbytes / _MIB, 1),
        )

    async def _open(self, model: Resident) -> None:
        began = self._clock()
        try:
            await asyncio.to_thread(model.engine.reopen)
        except Exception as error:
            # Tried again if it is still asked for after a while.
            model.since = self._clock() + _AGAIN_S - self._stays_s
            model.metrics.model_reopenings.labels("failed").inc()
            version = model.engine.model_version
            log.error("model_not_reopened", space=model.space, model_version=version, **logs.where(error))
        else:
            model.changed(self._clock())
            model.metrics.model_reopenings.labels("opened").inc()
            model.metrics.models_evicted.dec()
            log.info(
                "model_reopened",
                space=model.space,
                model_version=model.engine.model_version,
                seconds=round(model.since - began, 3),
            )
        model.wanted = False
