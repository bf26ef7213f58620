"""The lag of the event loop is measured often while requests are beside each other, and seldom otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from service.guard.loop_turns import LoopTurns, SpaceTurn
from service.guard.loop_watch import LoopWatch
from service.metrics.service_metrics import Metrics, value_of
from tests.support.aio import asynchronous, eventually

INTERVAL_S = 0.002


@dataclass
class Watched:
    """A watch at work, the delays of the timers that it set, and the lags that it told."""

    turns: LoopTurns
    spaces: list[SpaceTurn]
    metrics: Metrics
    told: list[float]
    delays: list[float] = field(default_factory=list)

    async def more(self, n: int) -> list[float]:
        """Returns the delays before the next measurements."""
        before, already = len(self.told), len(self.delays)

        async def measured() -> bool:
            return len(self.told) >= before + n

        await eventually(measured, within_s=20.0)
        return self.delays[already:]


@asynccontextmanager
async def watched(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    loop, turns, metrics, told = asyncio.get_running_loop(), LoopTurns(), Metrics(), list[float]()
    watch = LoopWatch(metrics, turns, INTERVAL_S, told.append)
    found = Watched(turns, [turns.space(8), turns.space(8)], metrics, told)
    call_at, clock, read = loop.call_at, loop.time, [loop.time()]

    def time() -> float:
        read.append(clock())
        return read[-1]

    def noted(when: float, callback: Any, *args: Any, **more: Any) -> asyncio.TimerHandle:
        if getattr(callback, "__self__", None) is watch:
            found.delays.append((when - read[-1]) / INTERVAL_S)
        return call_at(when, callback, *args, **more)

    monkeypatch.setattr(loop, "call_at", noted)
    monkeypatch.setattr(loop, "time", time)
    running = asyncio.create_task(watch.run())
    await asyncio.sleep(0)
    try:
        yield found
    finally:
        running.cancel()
        await asyncio.wait([running])
        assert turns.on_several is None


def near(delays: list[float], times: float) -> bool:
    """Whether there are timers, and all of them were set so many intervals ahead."""
    return bool(delays) and delays == pytest.approx([times] * len(delays))


@asynchronous
async def test_requests_of_any_spaces_beside_each_other_are_measured_often(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(monkeypatch) as found:
        one, other = found.spaces
        assert near(await found.more(2), 5)
        one.begin()
        assert near(await found.more(2), 5)
        other.begin()
        await found.more(1)
        assert near(await found.more(3), 1)
        one.end()
        await found.more(1)
        assert near(await found.more(2), 5)
        assert all(lag >= 0 for lag in found.told)
        assert value_of(found.metrics.loop_lag) == found.told[-1]


@asynchronous
async def test_the_second_request_brings_the_next_measurement_forward_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(monkeypatch) as found:
        (space, _), before = found.spaces, len(found.delays)
        for _ in range(10):  # in one round of the loop, so that no timer runs in between
            space.begin()
            space.begin()
            space.end()
            space.end()
        assert len(found.delays) == before + 1
        assert near(found.delays[before:], 1)
