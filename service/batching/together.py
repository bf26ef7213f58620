"""Requests that came together: their jobs are queued together, so that those of one group share a run."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Any, TypeVar

from service.batching.batcher import Batcher
from service.batching.job_queue import Entry
from service.batching.run_costs import Forecast
from service.common.deadline import Deadline

J = TypeVar("J")
R = TypeVar("R")

# Part of the time of all that the first job may wait for the others: one of them may have a history to encode first.
_WAIT_SHARE = 0.1


class Together:
    """Holds jobs back until each of the requests has one or has ended, then queues them at once.

    Used on the event loop alone. Call `ended` when a request ends, whatever came of it.
    """

    def __init__(self, requests: int, deadline: Deadline) -> None:
        """Begins with so many requests, all of which run.

        Args:
            requests: Their number.
            deadline: Of all of them.
        """
        self._running = requests
        self._requests = requests
        self._held: list[tuple[Batcher[Any, Any], Entry[Any, Any]]] = []
        self._asked: dict[tuple[Batcher[Any, Any], Hashable], _Asked] = {}
        self._wait_s = _WAIT_SHARE * max(0.0, deadline.remaining())
        self._timer: asyncio.TimerHandle | None = None

    def forecast(self, batcher: Batcher[J, R], group: Hashable) -> Forecast:
        """Forecasts when a job would be done if it were queued with those of the group that were asked for before."""
        asked = self._asked.setdefault((batcher, group), _Asked())
        asked.jobs += 1
        if asked.jobs > asked.foretold:
            # In steps, since a run of so many rows is what each of them waits for.
            asked.foretold = min(2 * asked.foretold, self._requests) or 1
            asked.forecast = batcher.forecast(group, jobs=asked.foretold)
        return asked.forecast

    async def submit(self, batcher: Batcher[J, R], job: J, deadline: Deadline) -> R:
        """Runs a job of one of the requests; otherwise as `Batcher.submit`."""
        entry = batcher.entry(job, deadline)
        entry.party = self
        self._held.append((batcher, entry))
        self.ended()
        if self._held and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._wait_s, self._queue)
        try:
            return await batcher.result(entry)
        finally:
            self._running += 1

    def ended(self) -> None:
        """Notes that a request has ended, or waits for its job."""
        self._running -= 1
        if self._running <= 0:
            self._queue()

    def _queue(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, []
        self._asked.clear()
        for batcher in dict.fromkeys(batcher for batcher, _ in held):
            batcher.queue([entry for other, entry in held if other is batcher])


class _Asked:
    """Jobs of a group that were asked for, and the forecast for as many as it holds for."""

    __slots__ = ("forecast", "foretold", "jobs")

    def __init__(self) -> None:
        self.jobs, self.foretold, self.forecast = 0, 0, Forecast()
