"""The nodes of a Redis Cluster: connections to each, and the map of the slots, asked for when it is in doubt."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.asyncio import Connection, ConnectionPool
from redis.exceptions import RedisError, ResponseError

from service.common import logs
from service.store.redis.cluster_slots import Address, SlotMap, agreed, parse_slots

log = logs.get(__name__)

# The map is asked for at most this often, of at most so many nodes at once; late answers are not waited for.
_PAUSE_S, _ASKED, _LATE_S = 0.1, 8, 0.1
UNREACHABLE = (RedisError, OSError, TimeoutError)

Part = str | bytes | int


def barriers(turns: int) -> int:
    """Returns how many of so many turns writes may have that wait for their copies."""
    return max(1, turns * 3 // 4)


class Node:
    """Connections to one node."""

    def __init__(self, address: Address, connections: int, options: dict[str, Any]) -> None:
        host, port = address
        self.pool = ConnectionPool(host=host, port=port, max_connections=connections, **options)
        # The others are left to subscriptions and to questions about the map.
        self.turn = asyncio.Semaphore(max(1, connections - 4))
        self.wait = asyncio.Semaphore(barriers(connections - 4))


class ClusterNodes:
    """All nodes, and who of them has which slot.

    Attributes:
        slots: Who has which slot; None until a node was asked.
        changed: Called when other nodes than before are primaries.
    """

    def __init__(self, addresses: Sequence[Address], *, max_connections: int, **options: Any) -> None:
        """Takes note of the nodes to ask first, without connecting.

        Args:
            addresses: Nodes to ask first.
            max_connections: Connections to each node.
            options: Of redis-py's connections.
        """
        self.options = options
        self._addresses = tuple(addresses)
        self._max = max_connections
        self._nodes: dict[Address, Node] = {}
        self._asking: asyncio.Task[None] | None = None
        self._doubtful = False
        self._closing: set[asyncio.Task[Any]] = set()
        self.slots: SlotMap | None = None
        self.changed: Callable[[], None] = lambda: None
        # Refuses bad options here, not at the first command.
        options.get("connection_class", Connection)(**{k: v for k, v in options.items() if k != "connection_class"})

    def node(self, address: Address) -> Node:
        """Returns the connections to a node."""
        if address not in self._nodes:
            self._nodes[address] = Node(address, self._max, self.options)
        return self._nodes[address]

    async def map(self) -> SlotMap:
        """Returns the map, asking for it if there is none. Raises like `refresh`."""
        if self.slots is None:
            await self.refresh()
        assert self.slots is not None  # noqa: S101 - a refresh that finds none raises
        return self.slots

    async def any_primary(self) -> Node:
        """Returns some node that has slots.

        Raises:
            RedisError: There is none.
        """
        primaries = (await self.map()).primaries
        if not primaries:
            self.doubt()
            raise ResponseError("CLUSTERDOWN no node has a slot")
        return self.node(random.choice(primaries))  # noqa: S311 - any will do

    async def refresh(self) -> None:
        """Asks nodes which of them has which slot. Concurrent calls share one question.

        Raises:
            RedisError: No node answers.
        """
        self._start()
        assert self._asking is not None  # noqa: S101 - started above
        await asyncio.shield(self._asking)

    def doubt(self) -> None:
        """Has the map asked for, soon and in the background."""
        self._doubtful = True
        self._start()

    def _start(self) -> None:
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(self._asked)

    def _asked(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # retrieved: a doubt has nobody who waits for it

        def over() -> None:
            self._asking = None
            if self._doubtful:
                self.doubt()

        if self.slots is None:
            self._asking, self._doubtful = None, False  # who comes next asks at once
        else:
            asyncio.get_running_loop().call_later(_PAUSE_S, over)

    async def _ask(self) -> None:
        self._doubtful = False
        known = () if self.slots is None else (*self.slots.primaries, *self.slots.replicas)
        asked = random.sample(known, min(len(known), _ASKED)) or list(self._addresses)
        maps, failure = await self._maps(asked)
        if not maps and known:  # all of them may have been replaced
            maps, failure = await self._maps(self._addresses)
        if not maps:
            raise failure or ResponseError("CLUSTERDOWN no node answers")
        self._adopt(agreed(maps))

    async def _maps(self, addresses: Iterable[Address]) -> tuple[list[SlotMap], Exception | None]:
        """Returns the maps of the nodes that answer, and an error of one that does not."""
        tasks = [asyncio.create_task(self._ask_one(one)) for one in dict.fromkeys(addresses)]
        done, late = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        while late and all(one.exception() is not None for one in done):
            more, late = await asyncio.wait(late, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        if late:
            more, late = await asyncio.wait(late, timeout=_LATE_S)
            done |= more
        for one in late:  # it reads its reply to the end
            self._keep(one)
        failures = [error for one in done if isinstance(error := one.exception(), Exception)]
        return [one.result() for one in done if one.exception() is None], failures[0] if failures else None

    async def _ask_one(self, address: Address) -> SlotMap:
        (reply,) = await exchange(self.node(address).pool, [("CLUSTER", "SLOTS")])
        if isinstance(reply, Exception):
            raise reply
        return parse_slots(reply, address)

    def _adopt(self, found: SlotMap) -> None:
        before, self.slots = self.slots, found
        members = {*found.primaries, *found.replicas, *self._addresses}
        for address in [one for one in self._nodes if one not in members]:
            self._keep(asyncio.create_task(_close(self._nodes.pop(address).pool)))
        if before is not None and before.primaries != found.primaries:
            log.warning("redis_primaries_changed", primaries=[f"{host}:{port}" for host, port in found.primaries])
            self.changed()

    def _keep(self, task: asyncio.Task[Any]) -> None:
        """Keeps a task that nobody waits for until it has ended."""

        def ended(task: asyncio.Task[Any]) -> None:
            self._closing.discard(task)
            if not task.cancelled():
                task.exception()  # retrieved

        self._closing.add(task)
        task.add_done_callback(ended)

    async def aclose(self) -> None:
        """Closes all connections."""
        self._doubtful = False
        if waiting := {*self._closing, *((self._asking,) if self._asking else ())}:
            await asyncio.wait(waiting)
        self._doubtful = False
        for node in self._nodes.values():
            await _close(node.pool)


async def exchange(pool: ConnectionPool, commands: Sequence[tuple[Part, ...]]) -> list[Any]:
    """Sends commands in one write on one connection.

    Returns:
        The replies; those that are errors of the server are exceptions.

    Raises:
        RedisError: The connection failed. So may OSError and TimeoutError.
    """
    connection: Any = await pool.get_connection()  # type: ignore[no-untyped-call]
    try:
        packed = connection.pack_commands(commands)
        try:
            await connection.send_packed_command(packed)
        except RuntimeError:  # uvloop says so of a connection that was reset in the pool: nothing was sent
            await connection.disconnect()
            await connection.send_packed_command(packed)
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(await connection.read_response())
            except ResponseError as error:
                replies.append(error)
        return replies
    except BaseException:
        await connection.disconnect()
        raise
    finally:
        await pool.release(connection)


async def _close(pool: ConnectionPool) -> None:
    with contextlib.suppress(*UNREACHABLE):
        await pool.disconnect()
