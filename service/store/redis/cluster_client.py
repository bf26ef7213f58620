"""A client of a Redis Cluster: commands go to the nodes that have their keys, and a barrier goes with the writes.

redis-py's own client sends ASKING and the command that it is for on two connections, has no way to send WAIT on the
connection that wrote, reads the whole table of commands again after every lost connection, and closes all connections
when the map of the slots changes. So here its connections and pools are used, and its client is not.

What was redirected was not executed, so it is sent again. What got no reply may have been executed: the caller decides.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from service.common.errors import StoreUnavailable
from service.store.redis.cluster_nodes import UNREACHABLE, ClusterNodes, Node, Part, exchange
from service.store.redis.cluster_slots import Address, SlotMap, is_down, key_slot, redirect_of

# A command that is redirected more often than this is given up.
_HOPS = 6
_AGAIN_S = 0.005


@dataclass(frozen=True, slots=True)
class Command:
    """A command with a key.

    Attributes:
        key: Its first key; the others are in the same slot.
        parts: The command.
        unknown: What is sent instead to a node that does not know the script.
    """

    key: str
    parts: tuple[Part, ...]
    unknown: tuple[Part, ...] | None = None


@dataclass(slots=True)
class _Waiting:
    """A command that has no final reply yet."""

    place: int
    command: Command
    to: Address
    asking: bool = False
    evaluates: bool = False

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.command.unknown if self.evaluates and self.command.unknown else self.command.parts


class ClusterClient:
    """Sends commands to the nodes of a cluster. Raises what redis-py raises.

    Attributes:
        nodes: The nodes, and who of them has which slot.
    """

    def __init__(self, addresses: Sequence[Address], *, max_connections: int, **options: Any) -> None:
        """Creates the client, without connecting.

        Args:
            addresses: Nodes to ask first.
            max_connections: Connections to each node.
            options: Of redis-py's connections.
        """
        self.nodes = ClusterNodes(addresses, max_connections=max_connections, **options)

    async def execute_command(self, *parts: Part, until: float) -> Any:
        """Runs one command: on the node of its key, or on any primary if it is `PING` or `INFO`."""
        if len(parts) > 1 and parts[0] not in ("INFO", "PING"):
            ((reply,), _) = await self.run([Command(str(parts[1]), parts)], None, until=until)
        else:
            (reply,) = await self._send(await self.nodes.any_primary(), [parts], until)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def run(
        self, commands: Sequence[Command], barrier: tuple[Part, ...] | None, *, until: float
    ) -> tuple[list[Any], list[Any]]:
        """Runs commands, all that go to one node in one round trip, followed by the barrier on the same connection.

        Args:
            commands: The commands.
            barrier: A WAIT or WAITAOF command, or None. Without commands, it goes to every primary.
            until: Time of the event loop after which nothing is sent again.

        Returns:
            For each command its reply, which may be an exception; and the replies to the barriers. A command whose
            barrier failed, as on a node that became a replica, has the barrier's exception for a reply.
        """
        known = await self.nodes.map()
        if not commands and barrier is not None:
            sent = await asyncio.gather(
                *(self._send(self.nodes.node(one), [barrier], until, waits=True) for one in known.primaries)
            )
            return [], [reply for replies in sent for reply in replies]
        replies: list[Any] = [None] * len(commands)
        reached: list[Any] = []
        waiting = [_Waiting(n, one, self._owner(known, one.key)) for n, one in enumerate(commands)]
        for hop in range(_HOPS):
            groups: dict[Address, list[_Waiting]] = defaultdict(list)
            for one in waiting:
                groups[one.to].append(one)
            settled = await asyncio.gather(
                *(self._group(to, group, barrier, replies, until) for to, group in groups.items())
            )
            reached += [barrier_reply for barrier_reply in settled if barrier_reply is not None]
            waiting = [one for one in waiting if self._goes_on(one, replies[one.place])]
            if not waiting or hop == _HOPS - 1 or asyncio.get_running_loop().time() >= until:
                break
            if any((found := redirect_of(replies[one.place])) and found.kind == "again" for one in waiting):
                await asyncio.sleep(_AGAIN_S * 2**hop)
        return replies, reached

    async def _group(
        self, to: Address, group: Sequence[_Waiting], barrier: tuple[Part, ...] | None, replies: list[Any], until: float
    ) -> Any:
        """Runs the commands of one node; returns the reply to the barrier if it covers any of them, else None."""
        parts: list[tuple[Part, ...]] = []
        places: list[int] = []
        for one in group:
            if one.asking:
                parts.append(("ASKING",))
            places.append(len(parts))
            parts.append(one.parts)
        if barrier is not None:
            parts.append(barrier)
        got = await self._send(self.nodes.node(to), parts, until, waits=barrier is not None)
        done = False
        for one, place in zip(group, places, strict=True):
            replies[one.place] = got[place]
            done |= not isinstance(got[place], Exception)
        if barrier is None or not done:
            return None
        if isinstance(got[-1], Exception):
            for one in group:
                if not isinstance(replies[one.place], Exception):
                    replies[one.place] = got[-1]
            self._note(got[-1])
            return None
        return got[-1]

    def _goes_on(self, one: _Waiting, reply: Any) -> bool:
        """Whether a command is to be sent again; says where, and takes note of what its reply tells of the cluster."""
        self._note(reply)
        if isinstance(reply, NoScriptError) and one.command.unknown is not None and not one.evaluates:
            one.evaluates = True
            return True
        found = redirect_of(reply)
        if found is None:
            return False
        if found.to is not None:
            one.to = (found.to[0] or one.to[0], found.to[1])
        one.asking = found.kind == "ask"
        known, slot = self.nodes.slots, key_slot(one.command.key)
        if found.kind == "moved" and known is not None:
            known.owners[slot] = one.to
        elif found.kind == "again" and known is not None:
            one.to = known.owners[slot] or one.to
        return True

    def _owner(self, known: SlotMap, key: str) -> Address:
        owner = known.owners[key_slot(key)]
        if owner is None:
            self.nodes.doubt()
            raise ResponseError(f"CLUSTERDOWN slot {key_slot(key)} is not covered by the cluster")
        return owner

    async def _send(
        self, node: Node, commands: Sequence[tuple[Part, ...]], until: float, *, waits: bool = False
    ) -> list[Any]:
        """Sends commands in one write; returns replies, among which are exceptions."""
        async with AsyncExitStack() as turns:
            try:
                async with asyncio.timeout_at(until):
                    for turn in (node.wait, node.turn) if waits else (node.turn,):
                        await turns.enter_async_context(turn)
            except TimeoutError:
                return [StoreUnavailable("no connection became free", cause="timeout")] * len(commands)
            try:
                return await exchange(node.pool, commands)
            except UNREACHABLE as error:
                self.nodes.doubt()
                return [error] * len(commands)

    def _note(self, reply: Any) -> None:
        if isinstance(reply, ResponseError):
            found = redirect_of(reply)
            if (found is not None and found.kind == "moved") or is_down(reply) or "UNBLOCKED" in str(reply):
                self.nodes.doubt()

    async def subscriber(self) -> Any:
        """Returns a subscription to some primary; a message reaches all nodes of the cluster."""
        node = await self.nodes.any_primary()
        return Redis(connection_pool=node.pool).pubsub()

    async def aclose(self) -> None:
        """Closes all connections."""
        await self.nodes.aclose()
