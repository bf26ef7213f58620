"""The shared mode: two replicas, one server, and its absences."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from service.errors import StoreUnavailable
from service.guard import ModeName
from service.mode import Mode, ModeKeeper
from service.store import Store, StoreSettings
from tests.aio import asynchronous, eventually
from tests.clock import FakeClock
from tests.valkey import Valkey


@contextlib.asynccontextmanager
async def replica(
    server: Valkey, *, poll_s: float = 0.5, clock: Callable[[], float] | None = None, copy: Path | None = None
) -> AsyncGenerator[ModeKeeper, None]:
    """A replica's keeper, following the shared mode."""
    store = await Store.connect(StoreSettings(url=server.url, write_timeout_ms=1000))
    keeper = ModeKeeper(store, poll_s=poll_s, copy=copy, **({} if clock is None else {"wall_clock": clock}))
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await store.close()


def holds(keeper: ModeKeeper, mode: str) -> Callable[[], asyncio.Future[bool]]:
    async def check() -> bool:
        return keeper.current() == mode

    return lambda: asyncio.ensure_future(check())


async def synced(keeper: ModeKeeper, expected: bool = True) -> None:
    async def check() -> bool:
        return keeper.in_sync is expected

    await eventually(check, 5)


@asynchronous
async def test_toggle_reaches_every_replica_within_a_second(valkey: Valkey) -> None:
    modes: tuple[ModeName, ...] = ("fallback", "auto", "model", "fallback")
    async with replica(valkey) as one, replica(valkey) as other:
        await synced(other)
        for mode in modes:
            await one.set(mode, reason="drill", actor="ops")
            assert one.current() == mode
            assert await eventually(holds(other, mode), 5) < 1.0
        assert other.mode.actor == "ops" and other.mode.reason == "drill" and other.mode.version == 4


@asynchronous
async def test_the_poll_finds_what_the_subscription_missed(valkey: Valkey) -> None:
    async with replica(valkey) as other:
        await synced(other)
        store = await Store.connect(StoreSettings(url=valkey.url))
        body = Mode("fallback", None, "ops").body()
        await store._link.command(
            "HSET", store._mode_key, "version", 9, "changed_at", 1, "body", body, timeout_s=1
        )  # written without a message
        assert await eventually(holds(other, "fallback"), 5) < 1.0
        await store.close()


@asynchronous
async def test_a_published_change_does_not_wait_for_the_poll(valkey: Valkey) -> None:
    async with replica(valkey, poll_s=30) as one, replica(valkey, poll_s=30) as other:
        await synced(one)
        await synced(other)
        store = await Store.connect(StoreSettings(url=valkey.url))

        async def subscribed() -> bool:
            reply = await store._link.command("PUBSUB", "NUMSUB", store._channel, timeout_s=1)
            return int((reply[0] if isinstance(reply[0], tuple) else reply)[1]) == 2

        await eventually(subscribed, 5)
        await one.set("fallback", reason=None, actor="ops")
        assert await eventually(holds(other, "fallback"), 5) < 1.0
        await store.close()


@asynchronous
async def test_a_mode_outlives_a_restart_of_the_service_and_of_the_server(valkey: Valkey) -> None:
    async with replica(valkey) as one:
        await one.set("fallback", reason="drill", actor="ops")
    valkey.restart()
    async with replica(valkey) as again:
        await eventually(holds(again, "fallback"), 5)
        assert again.mode.reason == "drill"


@asynchronous
async def test_a_change_made_while_redis_is_away_holds_and_is_shared_later(valkey: Valkey) -> None:
    async with replica(valkey, poll_s=0.05) as one, replica(valkey, poll_s=0.05) as other:
        await one.set("model", reason="before", actor="ops")
        await eventually(holds(other, "model"), 5)
        valkey.stop()
        await synced(one, False)
        await one.set("fallback", reason="outage", actor="ops")
        assert one.current() == "fallback" and other.current() == "model"
        assert [e["reason"] for e in await one.audit()] == ["outage"]
        valkey.start()
        await eventually(holds(other, "fallback"), 5)
        await synced(one)
        assert one.current() == "fallback"
        assert [e["reason"] for e in await other.audit()] == ["outage", "before"]


@asynchronous
async def test_of_two_changes_made_apart_the_newest_wins_everywhere(valkey: Valkey) -> None:
    early, late = FakeClock(1000), FakeClock(2000)
    async with (
        replica(valkey, poll_s=0.05, clock=early) as one,
        replica(valkey, poll_s=0.05, clock=late) as other,
    ):
        await synced(one)
        await synced(other)
        valkey.stop()
        await synced(one, False)
        await synced(other, False)
        await other.set("model", reason=None, actor="b")
        await one.set("fallback", reason=None, actor="a")
        valkey.start()
        await eventually(holds(one, "model"), 5)
        await synced(other)
        assert other.current() == "model"


@asynchronous
async def test_an_emptied_server_learns_the_mode_from_its_replicas(valkey: Valkey) -> None:
    async with replica(valkey, poll_s=0.05) as one:
        await one.set("fallback", reason=None, actor="ops")
        store = await Store.connect(StoreSettings(url=valkey.url))
        await store._link.command("FLUSHALL", timeout_s=1)

        async def stored() -> bool:
            return await store.read_mode() is not None

        await eventually(stored, 5)
        assert one.current() == "fallback"
        await store.close()


@asynchronous
async def test_a_mode_expires_on_every_replica_at_its_time(valkey: Valkey) -> None:
    clock = FakeClock()
    async with replica(valkey, clock=clock) as one, replica(valkey, clock=clock) as other:
        await one.set("fallback", reason="drill", actor="ops", expires_in_s=600)
        await eventually(holds(other, "fallback"), 5)
        clock.advance(599)
        assert one.current() == other.current() == "fallback"
        clock.advance(1)
        assert one.current() == other.current() == "auto"
        assert one.mode.reason is None and one.mode.version == 1


@asynchronous
async def test_a_forced_mode_outlives_a_restart_without_redis(valkey: Valkey, tmp_path: Path) -> None:
    copy = tmp_path / "mode" / "mode.json"
    async with replica(valkey, copy=copy) as one:
        await one.set("fallback", reason="drill", actor="ops")
    valkey.stop()
    async with replica(valkey, copy=copy) as again:
        assert again.current() == "fallback" and again.mode.actor == "ops"
    copy.write_text("{")
    async with replica(valkey, copy=copy) as fresh:
        assert fresh.current() == "auto"


@asynchronous
async def test_every_change_is_audited_with_who_when_and_why(valkey: Valkey) -> None:
    async with replica(valkey) as one:
        await one.set("fallback", reason="p99", actor="alice", expires_in_s=60)
        await one.record("bob", "policies", {"sha256": "abc"})
        entries = await one.audit()
        assert [(e["actor"], e["action"]) for e in entries] == [("bob", "policies"), ("alice", "fallback")]
        assert entries[1]["mode"] == "fallback" and entries[1]["reason"] == "p99" and entries[1]["expires_at"]
        assert entries[1]["at"].endswith("+00:00")
        assert await one.audit(limit=1) == entries[:1]


@asynchronous
async def test_a_damaged_stored_mode_is_ignored_and_can_be_replaced(valkey: Valkey) -> None:
    store = await Store.connect(StoreSettings(url=valkey.url))
    keeper = ModeKeeper(store)
    await store.write_mode(5, 1, b'{"mode": "sideways"}', force=True)
    await keeper.refresh()
    assert keeper.current() == "auto"
    assert (await keeper.set("fallback", reason=None, actor="ops")).version == 6
    await store.close()


@asynchronous
async def test_a_refresh_without_redis_says_so(valkey: Valkey) -> None:
    store = await Store.connect(StoreSettings(url=valkey.url))
    keeper = ModeKeeper(store)
    await keeper.refresh()
    assert keeper.in_sync
    valkey.stop()
    with pytest.raises(StoreUnavailable):
        await keeper.refresh()
    assert not keeper.in_sync
    await store.close()
