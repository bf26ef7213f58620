"""Prepares filters off the event loop, and keeps what requests need of them: the item mask and the engine's number.

This is the only cache of filters above the engine. Below it, the engine keeps the masks over the nodes of its trie, by
number (`service.engine.decode.filters`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Generic, TypeVar

from service.artifact.array_types import BoolArray
from service.artifact.item_filters import Filters, filter_key

# Filters kept of each kind: their masks are large, and a shop uses few of them.
_FILTERS_MAX = 128

_T = TypeVar("_T")


class FilterCache:
    """The filters of one model over one catalogue.

    Args:
        allowed: Computes the mask of a filter, [items] bool, None when every item is allowed.
        engine_id: Computes the engine's number of a filter.
        thread: Where both run, one after the other, so that a new filter delays nothing but other new filters.
    """

    def __init__(
        self, allowed: Callable[[Filters], BoolArray | None], engine_id: Callable[[Filters], int], thread: Executor
    ) -> None:
        self._engine_id, self._thread = engine_id, thread
        self._masks = _Prepared(allowed, thread)
        self._ids = _Prepared(engine_id, thread)

    def over(self, allowed: Callable[[Filters], BoolArray | None]) -> FilterCache:
        """Returns an empty cache of the same model over another catalogue."""
        return FilterCache(allowed, self._engine_id, self._thread)

    async def mask(self, filters: Filters) -> BoolArray | None:
        """Returns which items a filter allows, [items] bool, None for all; raises what `allowed` raises."""
        return await self._masks.get(filters)

    async def engine_id(self, filters: Filters, timeout_s: float) -> int:
        """Returns the engine's number of a filter; raises what the engine raises.

        Raises:
            TimeoutError: it is not ready in time. The work goes on, for a later request.
        """
        return await self._ids.get(filters, timeout_s)


class _Prepared(Generic[_T]):
    """The results of one kind of work by filter. The work on a filter is done once, however many requests wait."""

    def __init__(self, work: Callable[[Filters], _T], thread: Executor) -> None:
        self._work, self._thread = work, thread
        self._results: OrderedDict[bytes, _T] = OrderedDict()
        self._running: dict[bytes, asyncio.Future[_T]] = {}

    async def get(self, filters: Filters, timeout_s: float | None = None) -> _T:
        key = filter_key(filters)
        if key in self._results:
            return self._results[key]
        running = self._running.get(key)
        if running is None:
            running = asyncio.get_running_loop().run_in_executor(self._thread, self._work, filters)
            self._running[key] = running
            running.add_done_callback(lambda done: self._finished(key, done))
        # A caller that is cancelled or has no time left does not stop the work for the others.
        await asyncio.wait({running}, timeout=timeout_s)
        if not running.done():
            raise TimeoutError
        return running.result()

    def _finished(self, key: bytes, done: asyncio.Future[_T]) -> None:
        del self._running[key]
        # Reading the exception marks it as retrieved: the callers may have stopped waiting.
        if done.cancelled() or done.exception() is not None:
            return
        self._results[key] = done.result()
        if len(self._results) > _FILTERS_MAX:
            self._results.popitem(last=False)
