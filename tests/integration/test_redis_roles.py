"""Another server becomes the one to write to: by its address, or by a Sentinel. Nobody closes the connections."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loadtests.harness.sentinel import SentinelGroup
from loadtests.harness.tcp_proxy import proxy
from service.common.errors import StoreUnavailable
from service.store.records import NewEvent, Subject
from service.store.store import Store
from service.store.store_settings import StoreSettings
from tests.support.aio import asynchronous, eventually
from tests.support.valkey import Valkey, say, server

USER = Subject("user", "u")
T = 1_700_000_000_000


def settings(url: str) -> StoreSettings:
    return StoreSettings(url=url, read_timeout_ms=5000, write_timeout_ms=5000, history_cap=100_000)


@contextlib.asynccontextmanager
async def followed(url: str) -> AsyncIterator[Store]:
    """A store that follows fail-overs, as in a service."""
    store = await Store.connect(settings(url))
    follow = asyncio.create_task(store.follow())
    try:
        yield store
    finally:
        follow.cancel()
        await asyncio.wait((follow,))
        await store.close()


class Writer:
    """Appends events; knows which were acknowledged."""

    def __init__(self, store: Store) -> None:
        self._store, self._numbers = store, itertools.count()
        self.acknowledged: set[str] = set()
        self.causes: set[str] = set()

    async def once(self) -> bool:
        """Whether one more event was acknowledged."""
        name = str(next(self._numbers))
        try:
            await self._store.append(USER, [NewEvent("i", "click", T + int(name), event_id=name)])
        except StoreUnavailable as error:
            self.causes.add(error.cause)
            return False
        self.acknowledged.add(name)
        return True

    async def often(self) -> bool:
        """Whether many in a row were acknowledged."""
        return all([await self.once() for _ in range(20)])

    async def lost(self) -> set[str]:
        """The acknowledged events that are not there."""
        record = await self._store.read(USER, "m")
        return self.acknowledged - {event.event_id for event in record.events}


@asynchronous
async def test_after_a_change_of_roles_the_address_is_looked_up_again(tmp_path: Path) -> None:
    """Writes, reads and subscriptions go to the new master, although every connection to the old one is still open."""
    at_once = ("--repl-diskless-sync-delay", "0")
    with (
        server(tmp_path / "a", *at_once) as old,
        server(tmp_path / "b", *at_once) as new,
        proxy(old) as between,
    ):
        async with followed(f"redis://127.0.0.1:{between.port}") as store:
            writer = Writer(store)
            assert all([await writer.once() for _ in range(20)])
            await asyncio.gather(*(store.ping() for _ in range(8)))  # more connections, which lie idle
            changes = store.shared_changes()
            heard = asyncio.create_task(anext(changes))
            say(new, f"REPLICAOF 127.0.0.1 {old}")
            (log,) = store._calls.keys(USER, "events")

            async def copied() -> bool:
                return say(new, f"ZCARD {log}") == ":20"

            await eventually(copied, within_s=20.0)
            say(new, "REPLICAOF NO ONE")
            say(old, f"REPLICAOF 127.0.0.1 {new}")
            between.lead_to(new)
            await eventually(writer.once, within_s=20.0)
            assert "read_only" in writer.causes
            await eventually(writer.often, within_s=20.0)
            assert not await writer.lost()
            with pytest.raises(StoreUnavailable, match="another server"):  # to be subscribed to again
                await asyncio.wait_for(heard, 20.0)
            await changes.aclose()


@asynchronous
async def test_a_planned_fail_over_loses_no_acknowledged_event(tmp_path: Path) -> None:
    """Writes wait for the new master, which is found while the old one still takes itself for the master."""
    group = SentinelGroup(tmp_path)
    with contextlib.ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, group)
        async with followed(group.url) as store:
            writer, old = Writer(store), group.servers[0]
            assert all([await writer.once() for _ in range(20)])
            followed_to, (log,) = store._link._roles, store._calls.keys(USER, "events")

            async def copied() -> bool:
                return group.servers[1].say(f"ZCARD {log}") == b":20"

            await eventually(copied, within_s=20.0)
            await asyncio.to_thread(group.fail_over)

            async def replaced() -> bool:
                # Not earlier, because a replica that is slow may lack what was written a moment before.
                if followed_to.under_way:
                    await writer.once()
                return followed_to.count > 0

            await eventually(replaced, within_s=30.0)
            assert old.say("ROLE") == b"*3"
            assert old.say("SET still x") == b"+OK"  # it takes writes, and they would be lost
            await eventually(writer.often, within_s=20.0)
            assert "read_only" in writer.causes
            assert not await writer.lost()


@asynchronous
async def test_writes_that_wait_for_copies_leave_room_for_everything_else(shared_valkey: Valkey) -> None:
    """There is no replica, so each waits to the end."""
    store = Store(
        StoreSettings(
            url=shared_valkey.url,
            prefix="room:",
            write_timeout_ms=3000,
            durability="replica",
            durability_timeout_ms=500,
        )
    )
    try:
        event = NewEvent("i", "click", T)
        writes = [asyncio.create_task(store.append(Subject("user", str(n)), [event])) for n in range(40)]
        await asyncio.sleep(0)
        await store.ping()
        assert not any(one.done() for one in writes)
    finally:
        await asyncio.wait(writes)
        await store.close()
    assert all(isinstance(one.exception(), StoreUnavailable) for one in writes)
