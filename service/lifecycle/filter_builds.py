"""Builds the masks of new filters: off the event loop and off the decoder's thread, rationed, one after the other.

The engine holds the masks (`service.engine.interface.FilterMasks`) and is the only cache of them. What is here decides
which filters are built, and how long a request waits.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor

from service.artifact.items.item_filters import ItemFilter
from service.common import logs
from service.common.deadline import Deadline
from service.common.errors import FilterNotReady
from service.engine.held_filters import FilterMasks, HeldFilter
from service.lifecycle.filter_ration import FilterRation
from service.metrics.service_metrics import Metrics

log = logs.get(__name__)

# Filters that may wait to be built, and those of one caller among them, behind which those of others wait.
_WAITING_MAX, _WAITING_OF_CALLER = 32, 4


class FilterBuilds:
    """The filters of one model.

    Args:
        masks: Returns what the engine holds for its present catalogue.
        ration: How much may be built.
        metrics: Counts builds and refusals.
        thread: Where filters are built.
    """

    def __init__(
        self, masks: Callable[[], FilterMasks], ration: FilterRation, metrics: Metrics, thread: Executor
    ) -> None:
        self._masks, self._ration, self._metrics, self._thread = masks, ration, metrics.catalogue, thread
        self._running: dict[bytes, asyncio.Future[HeldFilter]] = {}
        self._waiting: Counter[str] = Counter()
        self._evicted = 0

    def held(self, wanted: ItemFilter) -> HeldFilter | None:
        """Returns a filter that is built already; None if it is not. Safe to call from any thread."""
        return self._masks().held(wanted.values)

    async def ready(self, wanted: ItemFilter, caller: str, deadline: Deadline) -> HeldFilter:
        """Returns a filter, which is built if it is new. A filter is built once, however many requests wait for it.

        Args:
            wanted: The filter.
            caller: Who asks: its ration is charged.
            deadline: How long to wait. The work goes on after it, for a later request.

        Raises:
            FilterNotReady: A ration is spent, the time is up, or the filter cannot be built.
        """
        held = self.held(wanted)
        if held is not None:
            return held
        running = self._running.get(wanted.key) or self._start(wanted, caller)
        # A caller that is cancelled or has no time left does not stop the work for the others.
        await asyncio.wait({running}, timeout=deadline.remaining())
        if not running.done():
            self._count("late")
            raise FilterNotReady("the filter is not built in time")
        if running.cancelled() or running.exception() is not None:
            raise FilterNotReady("the filter cannot be built")
        return running.result()

    def _start(self, wanted: ItemFilter, caller: str) -> asyncio.Future[HeldFilter]:
        refusal = self._ration.refusal(caller)
        if refusal is None and self._waiting[caller] >= _WAITING_OF_CALLER:
            refusal = "caller"
        if refusal is None and len(self._running) >= _WAITING_MAX:
            refusal = "total"
        if refusal is not None:
            self._count(f"refused_{refusal}")
            raise FilterNotReady("too many new filters")
        return self._run(wanted, caller)

    def _run(self, wanted: ItemFilter, caller: str) -> asyncio.Future[HeldFilter]:
        took_s = 0.0

        def build() -> HeldFilter:
            nonlocal took_s
            began = time.thread_time()  # waiting for a busy processor costs the caller nothing
            try:
                return self._masks().build(wanted.values, caller)
            finally:
                took_s = time.thread_time() - began

        def finished(done: asyncio.Future[HeldFilter]) -> None:
            del self._running[wanted.key]
            self._waiting -= Counter([caller])
            self._ration.end(caller, expected_s, took_s)
            self._report(done)

        expected_s = self._ration.begin(caller)
        running = asyncio.get_running_loop().run_in_executor(self._thread, build)
        self._running[wanted.key] = running
        self._waiting[caller] += 1
        running.add_done_callback(finished)
        return running

    def _report(self, done: asyncio.Future[HeldFilter]) -> None:
        if done.cancelled():
            return
        # Reading the exception marks it as retrieved: the callers may have stopped waiting.
        error = done.exception()
        self._count("built" if error is None else "failed")
        if error is not None:
            log.error("filter_not_built", **logs.where(error))
        usage = self._masks().usage
        self._metrics.filters_held.set(usage.held)
        self._metrics.filter_bytes.set(usage.bytes)
        # Another catalogue begins with another count.
        evicted = usage.evicted - self._evicted if usage.evicted >= self._evicted else usage.evicted
        self._metrics.filter_builds.labels("evicted").inc(evicted)
        self._evicted = usage.evicted

    def _count(self, outcome: str) -> None:
        self._metrics.filter_builds.labels(outcome).inc()
