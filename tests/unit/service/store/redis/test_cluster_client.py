"""What the client of a cluster sends where, by the replies of nodes that are made up here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from redis.exceptions import AskError, MovedError, NoScriptError, ResponseError, TryAgainError

from service.store.redis.cluster_client import ClusterClient, Command
from service.store.redis.cluster_nodes import Node, Part
from service.store.redis.cluster_slots import Address, SlotMap, key_slot
from tests.support.aio import asynchronous

A, B, C = ("a", 1), ("b", 2), ("c", 3)
WAIT: tuple[Part, ...] = ("WAIT", 1, 100)
OF_A, OF_B = "{a}x", "{b}x"  # slots 15495 and 3300


class Client(ClusterClient):
    """A client whose nodes answer from a list, the first entry first."""

    def __init__(self, **replies: list[list[Any]]) -> None:
        super().__init__([A], max_connections=8)
        self.nodes.slots = SlotMap([(0, 8191, B), (8192, 16383, A)])
        self._of = {self.nodes.node(at): at for at in (A, B, C)}
        self._replies = replies
        self.sent: list[tuple[str, tuple[tuple[Part, ...], ...]]] = []
        self.doubts = 0
        self.nodes.doubt = self._doubted  # type: ignore[method-assign]

    def _doubted(self) -> None:
        self.doubts += 1

    async def _send(
        self,
        node: Node,
        commands: Sequence[tuple[Part, ...]],
        until: float,  # noqa: ARG002
        *,
        waits: bool = False,  # noqa: ARG002
    ) -> list[Any]:
        host = self._of[node][0]
        self.sent.append((host, tuple(commands)))
        return self._replies[host].pop(0)

    async def say(self, *keys: str, barrier: tuple[Part, ...] | None = None) -> tuple[list[Any], list[Any]]:
        commands = [Command(key, ("EVALSHA", key), ("EVAL", key)) for key in keys]
        return await self.run(commands, barrier, until=asyncio.get_running_loop().time() + 10.0)


def owner(client: Client, key: str) -> Address | None:
    assert client.nodes.slots is not None
    return client.nodes.slots.owners[key_slot(key)]


@asynchronous
async def test_each_node_gets_its_writes_and_the_barrier_behind_them_in_one_piece() -> None:
    client = Client(a=[[1, 2, 5]], b=[[3, 4]])
    assert await client.say(OF_A, OF_B, OF_A, barrier=WAIT) == ([1, 3, 2], [5, 4])
    assert sorted(client.sent) == [
        ("a", (("EVALSHA", OF_A), ("EVALSHA", OF_A), WAIT)),
        ("b", (("EVALSHA", OF_B), WAIT)),
    ]


@asynchronous
async def test_what_was_moved_is_sent_again_with_a_barrier_of_its_own_and_remembered() -> None:
    client = Client(a=[[MovedError(f"{key_slot(OF_A)} c:3"), 9]], c=[[7, 1]])
    assert await client.say(OF_A, barrier=WAIT) == ([7], [1])  # the barrier of a node that wrote nothing says nothing
    assert owner(client, OF_A) == C and client.doubts


@asynchronous
async def test_asking_goes_with_its_command_on_one_connection_and_is_not_remembered() -> None:
    client = Client(a=[[AskError(f"{key_slot(OF_A)} c:3")]], c=[["OK", NoScriptError("x")], ["OK", 7]])
    assert (await client.say(OF_A))[0] == [7]
    assert client.sent[1:] == [("c", (("ASKING",), ("EVALSHA", OF_A))), ("c", (("ASKING",), ("EVAL", OF_A)))]
    assert owner(client, OF_A) == A


@asynchronous
async def test_a_write_whose_node_became_a_replica_has_no_reply_of_success() -> None:
    unblocked = ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed")
    client = Client(a=[[1, unblocked]], b=[[2, 1]])
    assert await client.say(OF_A, OF_B, barrier=WAIT) == ([unblocked, 2], [1])
    assert client.doubts


@asynchronous
async def test_keys_that_are_here_and_there_are_asked_for_again_where_the_slot_is() -> None:
    again = TryAgainError("Multiple keys request during rehashing of slot")
    client = Client(a=[[AskError(f"{key_slot(OF_A)} c:3")], [7]], c=[["OK", again]])
    assert (await client.say(OF_A))[0] == [7]
    assert [host for host, _ in client.sent] == ["a", "c", "a"]


@asynchronous
async def test_a_slot_that_is_sent_round_and_round_is_given_up() -> None:
    slot = key_slot(OF_A)
    client = Client(a=[[MovedError(f"{slot} c:3")]] * 9, c=[[MovedError(f"{slot} a:1")]] * 9)
    ((reply,), _) = await client.say(OF_A)
    assert isinstance(reply, MovedError) and len(client.sent) < 9


@asynchronous
async def test_without_writes_the_barrier_is_tried_on_every_primary() -> None:
    client = Client(a=[[[1, 0]]], b=[[ResponseError("ERR appendonly is disabled")]])
    replies, reached = await client.run([], WAIT, until=asyncio.get_running_loop().time() + 1.0)
    assert (replies, len(reached)) == ([], 2)


@asynchronous
async def test_a_slot_that_nobody_has_is_told_at_once() -> None:
    client = Client()
    client.nodes.slots = SlotMap([(0, 0, B)])
    with pytest.raises(ResponseError, match="CLUSTERDOWN slot"):
        await client.say(OF_A)
