"""Commands to Redis, each with a time-out. The only place where the exceptions of redis-py are translated.

A command in flight is never cancelled. redis-py hands a connection from one command to the next, and a command that is
cancelled between its request and its reply can leave that reply to the next caller (redis-py #2624, #2665). So each
command runs in a task of its own: a caller that times out or is cancelled stops waiting, while the task reads its reply
to the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import hiredis
from redis.asyncio import Connection, ConnectionPool, UnixDomainSocketConnection
from redis.exceptions import NoScriptError

from service.common.alarms import Alarms
from service.common.errors import StoreUnavailable
from service.store.lua_script import Script
from service.store.redis.cluster_client import ClusterClient, Command
from service.store.redis.cluster_nodes import barriers
from service.store.redis.redis_causes import Cause, cause_of
from service.store.redis.redis_client import Client, client_for
from service.store.redis.redis_read_lane import RedisLane
from service.store.redis.role_changes import RoleChanges
from service.store.redis.subscription import messages
from service.store.redis.waiting import from_now, in_time, overdue, taken

T = TypeVar("T")

# The nodes of a cluster among which one that hangs leaves turns to the others.
_NODES = 8


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """A call of a Lua script, with its keys and arguments."""

    script: Script
    keys: tuple[str, ...]
    args: tuple[str | bytes | int, ...]

    def evalsha(self) -> tuple[Any, ...]:
        """Returns the command that names the script by its SHA-1."""
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    def eval(self) -> tuple[Any, ...]:
        """Returns the command that sends the source, for a server that does not know the script."""
        return ("EVAL", self.script.source, len(self.keys), *self.keys, *self.args)

    def command(self) -> Command:
        """Returns the call as a command for a cluster."""
        return Command(self.keys[0], self.evalsha(), self.eval())


def _lane(client: Client, slowest_s: float) -> RedisLane | None:
    """A connection for reads; None unless the server is one plain TCP address or Unix socket."""
    pool = getattr(client, "connection_pool", None)
    if type(pool) is not ConnectionPool or pool.connection_class not in (Connection, UnixDomainSocketConnection):
        return None
    return RedisLane(pool.connection_kwargs, slowest_s=slowest_s)


class RedisLink:
    """One client, shared by all requests.

    At most `max_commands` run at a time; a command waits for its turn within its own time-out. Every method raises
    StoreUnavailable and nothing else.
    """

    def __init__(
        self, url: str, *, slowest_s: float, slowest_read_s: float | None = None, max_commands: int = 16
    ) -> None:
        """Creates the client, without connecting.

        Args:
            url: See `service.store.redis.redis_url`.
            slowest_s: A connection is dropped if a reply takes longer.
            slowest_read_s: The same for the connection of `read_script`; defaults to `slowest_s`.
            max_commands: Commands that run at the same time.

        Raises:
            SettingsError: The URL cannot be used.
        """
        # Four more connections than commands: three for subscriptions, and one to spare.
        self._client: Any = client_for(url, socket_timeout_s=slowest_s, max_connections=max_commands + 4)
        self._lane = _lane(self._client, slowest_read_s or slowest_s)
        self._roles = RoleChanges(self._client, self._leave_reads)
        self._alarms = Alarms()
        self._cluster = self._client if isinstance(self._client, ClusterClient) else None
        # Of a cluster, each node has so many turns.
        turns = max_commands * (1 if self._cluster is None else _NODES)
        self._turn = asyncio.Semaphore(turns)
        # A write that waits for its copies may wait long: some turns are left to reads and to everything else.
        self._wait = asyncio.Semaphore(barriers(turns))
        self._in_flight: set[asyncio.Task[Any]] = set()
        self.denied: frozenset[str] = frozenset()
        """Commands that the server does not let this user run. A script that needs one is not sent at all."""
        self.refusals = 0
        """How often the server refused a command for a lack of rights."""

    @property
    def is_cluster(self) -> bool:
        """Whether the URL is that of a Redis Cluster."""
        return self._cluster is not None

    @property
    def uncovered_slots(self) -> int:
        """Number of slots of the cluster that no server is known for; 0 without a cluster, or before it was asked."""
        slots = None if self._cluster is None else self._cluster.nodes.slots
        return 0 if slots is None else slots.uncovered

    async def refresh_slots(self, *, timeout_s: float) -> None:
        """Asks the cluster again which server has which slot."""
        if self._cluster is not None:
            await self._bounded("CLUSTER SLOTS", self._cluster.nodes.refresh, timeout_s)

    async def command(self, *args: str | bytes | int, timeout_s: float) -> Any:
        """Runs one command and returns its reply."""
        return await self._bounded(str(args[0]), lambda: self._executed(args, timeout_s), timeout_s)

    async def _executed(self, args: tuple[str | bytes | int, ...], timeout_s: float) -> Any:
        if self._cluster is not None:
            return await self._cluster.execute_command(*args, until=from_now(timeout_s))
        return await self._client.execute_command(*args)

    async def script(self, call: ScriptCall, *, timeout_s: float) -> Any:
        """Runs a script with EVALSHA, and sends its source only if the server does not know it."""
        self._admit(call)
        self._hold(call)
        return await self._bounded("EVALSHA", lambda: self._evaluated(call, timeout_s), timeout_s)

    async def _evaluated(self, call: ScriptCall, timeout_s: float) -> Any:
        if self._cluster is not None:
            ((reply,), _) = await self._cluster.run([call.command()], None, until=from_now(timeout_s))
            if isinstance(reply, Exception):
                raise reply
            return reply
        try:
            return await self._client.execute_command(*call.evalsha())
        except NoScriptError:
            return await self._client.execute_command(*call.eval())

    async def read_script(self, call: ScriptCall, *, timeout_s: float) -> Any:
        """Runs a script that only reads, on the connection shared by all reads if there is one."""
        self._admit(call)
        if self._lane is None:
            return await self._bounded("EVALSHA", lambda: self._evaluated(call, timeout_s), timeout_s)
        deadline = asyncio.get_running_loop().time() + timeout_s
        if not self._lane.open:
            await in_time("connect", self._lane.connect(), deadline)
        future = self._lane.ask(call.evalsha())
        alarm = self._alarms.at(deadline, overdue, future)
        try:
            reply = await future
        finally:
            self._alarms.forget(alarm)
        if not isinstance(reply, hiredis.ReplyError):
            return reply
        if str(reply).startswith("NOSCRIPT"):
            left_s = deadline - asyncio.get_running_loop().time()
            return await self._bounded("EVALSHA", lambda: self._evaluated(call, left_s), left_s)
        raise self._failed("EVALSHA", reply)

    async def scripts(
        self, calls: Sequence[ScriptCall], *, barrier: tuple[str | int, ...] | None, timeout_s: float
    ) -> tuple[list[Any], int]:
        """Runs many scripts in one round trip; in a cluster, in one to each node.

        Args:
            calls: The scripts.
            barrier: A WAIT or WAITAOF command, or None. It covers only the writes of its own connection, so it is sent
                in the same pipeline, to every node that is written to.
            timeout_s: Time for all of them together.

        Returns:
            The replies of the scripts, and how many copies have all writes: the smallest number that a barrier gave.
        """
        replies, reached = await self._replies(calls, barrier, timeout_s)
        for reply in (*replies, *reached):
            if isinstance(reply, Exception):
                raise self._failed("EVALSHA", reply) from reply
        return replies, min((one[0] if isinstance(one, list) else int(one) for one in reached), default=0)

    async def scripts_each(self, calls: Sequence[ScriptCall], *, timeout_s: float) -> list[Any]:
        """Runs many scripts in one round trip, and returns what became of each: its reply, or StoreUnavailable."""
        replies, _ = await self._replies(calls, None, timeout_s)
        return [self._failed("EVALSHA", reply) if isinstance(reply, Exception) else reply for reply in replies]

    async def _replies(
        self, calls: Sequence[ScriptCall], barrier: tuple[str | int, ...] | None, timeout_s: float
    ) -> tuple[list[Any], list[Any]]:
        """Runs many scripts in one round trip; returns their replies and those to barriers: some may be exceptions."""
        self._admit(*calls)
        self._hold(*calls)
        cluster = self._cluster
        if cluster is not None:
            commands, until = [call.command() for call in calls], from_now(timeout_s)
            return await self._bounded(
                "EVALSHA", lambda: cluster.run(commands, barrier, until=until), timeout_s, waits=barrier is not None
            )
        return await self._bounded("EVALSHA", lambda: self._piped(calls, barrier), timeout_s, waits=barrier is not None)

    async def _piped(
        self, calls: Sequence[ScriptCall], barrier: tuple[str | int, ...] | None
    ) -> tuple[list[Any], list[Any]]:
        replies, reached = await self._pipeline([c.evalsha() for c in calls], barrier)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again, reached = await self._pipeline([calls[i].eval() for i in unknown], barrier)
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        return replies, reached

    async def _pipeline(
        self, commands: Sequence[tuple[Any, ...]], barrier: tuple[str | int, ...] | None
    ) -> tuple[list[Any], list[Any]]:
        pipe: Any = self._client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        if barrier is not None:
            pipe.execute_command(*barrier)
        replies = await pipe.execute(raise_on_error=False)
        return list(replies[: len(commands)]), list(replies[len(commands) :])

    def messages(self, channel: str, *, greeting: bool = False) -> AsyncGenerator[bytes, None]:
        """Yields the messages of a channel, on a connection of its own, until StoreUnavailable is raised.

        See `service.store.redis.subscription.messages`.
        """
        count = self._roles.count
        return messages(self._client, channel, greeting=greeting, still_valid=lambda: count == self._roles.count)

    async def follow(self) -> None:
        """Follows fail-overs that Sentinels announce, until cancelled."""
        await self._roles.follow()

    async def _bounded(self, name: str, run: Callable[[], Awaitable[T]], timeout_s: float, *, waits: bool = False) -> T:
        """Waits for `run` for at most `timeout_s`; after that, it goes on in the background."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        turns = (self._wait, self._turn) if waits else (self._turn,)
        await taken(name, turns, deadline, timeout_s)
        task = loop.create_task(self._to_the_end(run))
        self._in_flight.add(task)
        task.add_done_callback(partial(self._finished, turns))
        await in_time(name, task, deadline)
        try:
            return task.result()
        except Exception as error:  # whatever redis-py raises, also a failure inside it
            raise self._failed(name, error) from error

    def _failed(self, name: str, error: BaseException) -> StoreUnavailable:
        """Translates an error."""
        found = _unavailable(name, error)
        self._roles.failed(cast("Cause", found.cause))
        self.refusals += found.cause == "no_permission"
        return found

    def _admit(self, *calls: ScriptCall) -> None:
        """Refuses a script that would fail in the middle, after some of its writes."""
        for call in calls:
            if missing := call.script.commands & self.denied:
                raise StoreUnavailable(f"the user lacks rights: {', '.join(sorted(missing))}", cause="no_permission")

    def _hold(self, *calls: ScriptCall) -> None:
        """Refuses to write to a master that is being replaced."""
        if self._roles.under_way and any(call.script.writes for call in calls):
            raise StoreUnavailable("a fail-over is under way", cause="read_only")

    def _leave_reads(self) -> None:
        if self._lane is not None:
            self._lane.leave()

    async def _to_the_end(self, run: Callable[[], Awaitable[T]]) -> T:
        try:
            return await run()
        except RuntimeError:
            # uvloop says so of a connection that was reset while it was in the pool, which notices an end of file only.
            # Nothing was sent, and the pool reconnects.
            return await run()

    def _finished(self, turns: Sequence[asyncio.Semaphore], task: asyncio.Task[Any]) -> None:
        self._in_flight.discard(task)
        for turn in turns:
            turn.release()
        if not task.cancelled():
            task.exception()  # retrieved, so that a failure nobody waited for is not logged as lost

    async def close(self) -> None:
        """Waits for the commands in flight, at most for their socket time-out, and disconnects."""
        if self._in_flight:
            await asyncio.wait(set(self._in_flight))
        await self._roles.close()
        if self._lane is not None:
            await self._lane.close()
        await self._client.aclose()
        # The client of a Sentinel's master does not own the clients that query the Sentinels.
        pool = getattr(self._client, "connection_pool", None)
        for sentinel in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
            await sentinel.aclose()


def _unavailable(name: str, error: BaseException) -> StoreUnavailable:
    return StoreUnavailable(f"{name}: {type(error).__name__}: {error}", cause=cause_of(error))
