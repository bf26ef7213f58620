"""Calls at given times come once, in order, at their times, and never after they were forgotten."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.common.alarms import Alarms
from tests.support.aio import asynchronous


class Loop:
    """An event loop's clock and its timers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: object) -> Timer:
        self.timers.append(Timer(self, when, call))
        return self.timers[-1]

    def advance(self, until: float) -> None:
        while due := [timer for timer in self.timers if timer.when <= until]:
            timer = min(due, key=lambda one: one.when)
            self.timers.remove(timer)
            self.now = max(self.now, timer.when)
            timer.call()  # type: ignore[operator]
        self.now = until


class Timer:
    def __init__(self, loop: Loop, when: float, call: object) -> None:
        self.loop, self.when, self.call = loop, when, call

    def cancel(self) -> None:
        self.loop.timers.remove(self)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 30), st.booleans()), max_size=40))
def test_what_is_not_forgotten_is_called_at_its_time(steps: list[tuple[int, int, bool]]) -> None:
    """Against one timer for each. Steps: how much time passes, in how long to call, whether to forget another one."""
    with pytest.MonkeyPatch.context() as patch:
        loop, alarms = Loop(), Alarms()
        patch.setattr(asyncio, "get_running_loop", lambda: loop)
        called: list[tuple[float, int]] = []
        live: dict[int, float] = {}
        expected: list[tuple[float, int]] = []
        kept = []
        for number, (passes, later, forgets) in enumerate(steps):
            loop.advance(loop.now + passes)
            expected += sorted((when, n) for n, when in live.items() if when <= loop.now)
            live = {n: when for n, when in live.items() if when > loop.now}
            kept.append(alarms.at(loop.now + later, lambda n: called.append((loop.now, n)), number))
            live[number] = loop.now + later
            if forgets:
                alarms.forget(kept[number // 2])
                live.pop(number // 2, None)
        loop.advance(loop.now + 100)
        expected += sorted((when, n) for n, when in live.items())
        assert called == expected
        assert not loop.timers, "nothing waits when nothing is left"


@asynchronous
async def test_many_that_are_forgotten_take_no_room() -> None:
    alarms, loop = Alarms(), asyncio.get_running_loop()
    last = asyncio.Event()
    for _ in range(10_000):
        alarms.forget(alarms.at(loop.time() + 3600, lambda _: None, bytes(1000)))
    assert alarms.size < 3_000
    alarms.at(loop.time(), lambda _: last.set(), None)
    await asyncio.wait_for(last.wait(), 10)
