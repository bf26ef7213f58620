"""Turns on the event loop: a crowd of one space does not begin at once, and another space need not wait for it."""

from __future__ import annotations

import asyncio

from service.guard.loop_turns import LoopTurns, SpaceTurn
from tests.support.aio import asynchronous


async def begin(space: SpaceTurn, name: str, order: list[str]) -> None:
    if not space.take():
        await space.turn()
    order.append(name)


@asynchronous
async def test_a_request_of_another_space_begins_before_most_of_a_crowd_that_came_first() -> None:
    turns, order = LoopTurns(at_once=3), list[str]()
    crowd, other = turns.space(), turns.space()
    many = [asyncio.ensure_future(begin(crowd, "crowd", order)) for _ in range(30)]
    await asyncio.sleep(0)
    assert order == ["crowd"] * 3
    await asyncio.gather(begin(other, "other", order), *many)
    assert order.index("other") <= 6
    assert order.count("crowd") == 30


@asynchronous
async def test_a_space_without_a_crowd_never_waits() -> None:
    space = LoopTurns(at_once=3).space()
    for _ in range(50):
        assert space.take()
        await asyncio.sleep(0)


@asynchronous
async def test_requests_whose_clients_left_take_no_turns() -> None:
    turns, order = LoopTurns(at_once=1), list[str]()
    space = turns.space()
    many = [asyncio.ensure_future(begin(space, str(number), order)) for number in range(20)]
    await asyncio.sleep(0)
    for one in many[1:19]:
        one.cancel()
    await asyncio.gather(*many, return_exceptions=True)
    assert order == ["0", "19"]
    for _ in range(3):
        await asyncio.sleep(0)
    assert space.take()
