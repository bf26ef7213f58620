"""Turns on the event loop: a crowd of one space does not begin at once, and another space need not wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from service.guard.loop_turns import LoopTurns, SpaceTurn
from tests.support.aio import asynchronous


def in_progress(space: SpaceTurn, n: int) -> None:
    """Begins or ends requests, until there are so many."""
    while space.in_progress < n:
        space.begin()
    while space.in_progress > n:
        space.end()


async def begin(space: SpaceTurn, name: str, order: list[str]) -> None:
    if not space.take():
        await space.turn()
    order.append(name)


@asynchronous
async def test_a_request_of_another_space_begins_before_most_of_a_crowd_that_came_first() -> None:
    turns, order = LoopTurns(at_once=3), list[str]()
    crowd, other = turns.space(64), turns.space(64)
    in_progress(crowd, 30)
    many = [asyncio.ensure_future(begin(crowd, "crowd", order)) for _ in range(30)]
    await asyncio.sleep(0)
    assert order == ["crowd"] * 3
    await asyncio.gather(begin(other, "other", order), *many)
    assert order.index("other") <= 6
    assert order.count("crowd") == 30


@asynchronous
async def test_a_space_without_a_crowd_never_waits() -> None:
    space = LoopTurns(at_once=3).space(64)
    in_progress(space, 3)
    for _ in range(50):
        assert space.take()
        await asyncio.sleep(0)


@asynchronous
async def test_a_request_that_is_alone_takes_no_round_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, scheduled = LoopTurns(at_once=1), list[None]()
    monkeypatch.setattr(turns, "schedule", lambda: scheduled.append(None))
    one, other = turns.space(64), turns.space(64)
    one.begin()
    assert all(one.take() for _ in range(5)) and not scheduled
    other.begin()
    assert other.take() and not other.take() and scheduled


@asynchronous
async def test_requests_whose_clients_left_take_no_turns() -> None:
    turns, order = LoopTurns(at_once=1), list[str]()
    space = turns.space(64)
    in_progress(space, 20)
    many = [asyncio.ensure_future(begin(space, str(number), order)) for number in range(20)]
    await asyncio.sleep(0)
    for one in many[1:19]:
        one.cancel()
    await asyncio.gather(*many, return_exceptions=True)
    assert order == ["0", "19"]
    for _ in range(3):
        await asyncio.sleep(0)
    assert space.take()


class Clock:
    """A clock that the test moves on."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def rounds(clock: Clock, turns: int, ask: Callable[[], SpaceTurn], *, busy: float) -> None:
    """Goes through rounds of a millisecond, of which a share is spent on requests."""
    for _ in range(turns):
        space = ask()
        space.limit()
        assert space.take()
        clock.now += 0.001 * busy
        await asyncio.sleep(0)
        clock.now += 0.001 * (1.0 - busy)


@asynchronous
async def test_while_the_loop_is_busy_the_space_that_asks_most_gives_way_and_recovers() -> None:
    clock = Clock()
    turns = LoopTurns(clock=clock)
    crowd, other = turns.space(64), turns.space(64)
    order = iter(range(10_000))
    in_progress(crowd, 50)

    def ask() -> SpaceTurn:
        return other if next(order) % 20 == 0 else crowd

    await rounds(clock, 500, ask, busy=0.3)
    assert (crowd.limit(), other.limit()) == (64, 64)
    await rounds(clock, 120, ask, busy=0.9)
    assert crowd.limit() < 40
    assert other.limit() == 64
    in_progress(crowd, 4)
    await rounds(clock, 500, ask, busy=0.9)
    assert 4 <= crowd.limit() < 6
    clock.now += 10.0
    assert crowd.limit() == 64


@asynchronous
async def test_a_space_that_asks_alone_keeps_its_bound_however_busy_the_loop_is() -> None:
    clock = Clock()
    turns = LoopTurns(clock=clock)
    alone, silent = turns.space(64), turns.space(64)
    in_progress(alone, 50)
    await rounds(clock, 500, lambda: alone, busy=1.0)
    assert (alone.limit(), silent.limit()) == (64, 64)


@pytest.mark.parametrize("most", [1, 2, 64])
def test_a_cut_leaves_enough_for_a_page_and_never_more_than_the_bound(most: int) -> None:
    clock = Clock()
    space = LoopTurns(clock=clock).space(most)
    for _ in range(20):
        space.cut(clock.now)
    assert space.limit() == min(4, most)
