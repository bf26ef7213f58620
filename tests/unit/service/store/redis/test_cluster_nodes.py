"""When the map of a cluster is asked for, and which answer is believed."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from service.store.redis.cluster_nodes import ClusterNodes
from service.store.redis.cluster_slots import Address, SlotMap
from tests.support.aio import asynchronous, eventually

A, B, C = ("a", 1), ("b", 2), ("c", 3)
OLD = SlotMap([(0, 16383, A)], [B, C])
NEW = SlotMap([(0, 16383, B)], [A, C])


class Nodes(ClusterNodes):
    """Nodes whose answers are made up; a missing one is unreachable."""

    def __init__(self, answers: dict[Address, SlotMap], first: tuple[Address, ...] = (A,)) -> None:
        super().__init__(first, max_connections=8)
        self.answers = answers
        self.asked: list[Address] = []
        self.changes = 0
        self.changed = self._changes

    def _changes(self) -> None:
        self.changes += 1

    async def _ask_one(self, address: Address) -> SlotMap:
        self.asked.append(address)
        await asyncio.sleep(0)
        if address not in self.answers:
            raise RedisConnectionError("refused")
        return self.answers[address]


@asynchronous
async def test_callers_that_need_the_map_share_one_question() -> None:
    nodes = Nodes({A: OLD})
    assert {found.primaries for found in await asyncio.gather(*(nodes.map() for _ in range(5)))} == {(A,)}
    assert nodes.asked == [A]


@asynchronous
async def test_a_doubt_asks_all_and_believes_most_of_them() -> None:
    """The old primary was cut off, and goes on with the old map."""
    nodes = Nodes({A: OLD})
    await nodes.map()
    nodes.answers = {A: OLD, B: NEW, C: NEW}

    async def adopted() -> bool:
        nodes.doubt()
        found = nodes.slots
        return found is not None and found.primaries == (B,)

    await eventually(adopted, 10.0)
    assert nodes.changes == 1
    await nodes.aclose()


@asynchronous
async def test_where_all_known_nodes_are_gone_those_of_the_url_are_asked_again() -> None:
    nodes = Nodes({A: SlotMap([(0, 16383, B)])})
    await nodes.map()
    nodes.answers = {A: SlotMap([(0, 16383, C)])}  # B is gone, and the name in the URL leads to another node

    async def adopted() -> bool:
        nodes.doubt()
        return nodes.slots is not None and nodes.slots.primaries == (C,)

    await eventually(adopted, 10.0)
    await nodes.aclose()


@asynchronous
async def test_without_any_answer_the_next_caller_asks_at_once() -> None:
    nodes = Nodes({})
    with pytest.raises(RedisConnectionError):
        await nodes.map()
    nodes.answers = {A: OLD}
    assert (await nodes.map()).primaries == (A,)
