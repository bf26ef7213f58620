"""The shared mode: two replicas, one server, and its absences."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

from loadtests.harness.tcp_proxy import proxy
from service.common.errors import StoreUnavailable
from service.coordination.audit import Audit
from service.coordination.clock import SharedClock
from service.coordination.exchange import Exchange
from service.coordination.forced_mode import ForcedMode, Mode
from service.guard.guard import ModeName
from service.store.store import Store
from service.store.store_settings import Durability, StoreSettings
from tests.support.aio import asynchronous, eventually
from tests.support.clock import FakeClock
from tests.support.valkey import TcpValkey, Valkey


class ModeKeeper(ForcedMode):
    """A replica's mode with its audit and its exchanges, wired as in the service."""

    def __init__(
        self,
        store: Store,
        *,
        poll_s: float = 0.5,
        copy: Path | None = None,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        clock = SharedClock(wall_clock, monotonic)
        self.entries = Audit(store, clock)
        super().__init__(store, clock, self.entries, copy=copy)
        self.exchange = Exchange(store, [self], self.entries, poll_s=poll_s)

    async def audit(self, limit: int = 100) -> list[dict[str, Any]]:
        return await self.entries.read(limit)


@contextlib.asynccontextmanager
async def replica(
    server: Valkey | str,
    *,
    poll_s: float = 0.5,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    copy: Path | None = None,
    write_timeout_ms: float = 1000,
    durability: Durability = "memory",
) -> AsyncGenerator[ModeKeeper, None]:
    """A replica's keeper, following the shared mode."""
    url = server if isinstance(server, str) else server.url
    store = await Store.connect(StoreSettings(url=url, write_timeout_ms=write_timeout_ms, durability=durability))
    keeper = ModeKeeper(store, poll_s=poll_s, copy=copy, wall_clock=clock, monotonic=monotonic)
    task = asyncio.create_task(keeper.exchange.run())
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


def shared(*keepers: ModeKeeper) -> Callable[[], asyncio.Future[bool]]:
    async def check() -> bool:
        return all(keeper.shared for keeper in keepers)

    return lambda: asyncio.ensure_future(check())


def audited(keeper: ModeKeeper, *reasons: str) -> Callable[[], asyncio.Future[bool]]:
    """Entries that waited for Redis are written last, after the replicas agree."""

    async def check() -> bool:
        return [entry["reason"] for entry in await keeper.audit()] == list(reasons)

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
            "HSET", store._ops_key("mode"), "version", 9, "changed_at", 1, "body", body, timeout_s=1
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
        await eventually(audited(other, "outage", "before"), 5)


@asynchronous
async def test_of_two_changes_made_apart_the_newest_wins_everywhere_and_both_are_audited(valkey: Valkey) -> None:
    """Whatever the clocks of the replicas say."""
    hours, behind, ahead = FakeClock(), FakeClock(1000), FakeClock(2_000_000_000)
    async with (
        replica(valkey, poll_s=0.05, clock=behind, monotonic=hours) as one,
        replica(valkey, poll_s=0.05, clock=ahead, monotonic=hours) as other,
    ):
        await synced(one)
        await synced(other)
        valkey.stop()
        await synced(one, False)
        await synced(other, False)
        await other.set("model", reason=None, actor="b")
        hours.advance(10)
        await one.set("fallback", reason=None, actor="a")
        assert not one.shared and not other.shared
        valkey.start()
        await eventually(holds(other, "fallback"), 5)
        await eventually(shared(one, other), 5)
        assert one.mode == other.mode
        assert [entry["actor"] for entry in await one.audit()] == ["a", "b"]


@asynchronous
async def test_two_changes_of_one_moment_do_not_divide_the_replicas(valkey: Valkey) -> None:
    async with replica(valkey, poll_s=0.05) as one, replica(valkey, poll_s=0.05) as other:
        await synced(one)
        await synced(other)
        one._adopt(Mode("fallback", None, "ops", None, 7, 1_000))
        other._adopt(Mode("model", None, "ops", None, 7, 1_000))
        await eventually(shared(one, other), 5)

        async def agree() -> bool:
            return one.mode == other.mode

        await eventually(agree, 5)
        assert one.mode.version == 7


@asynchronous
async def test_changes_at_once_all_count_and_the_last_one_holds(valkey: Valkey) -> None:
    async with replica(valkey, poll_s=0.05) as one, replica(valkey, poll_s=0.05) as other:
        await synced(one)
        await synced(other)
        modes: tuple[ModeName, ...] = ("fallback", "model", "auto")
        changes = [
            keeper.set(mode, reason=None, actor=f"{name} {mode}")
            for name, keeper in (("one", one), ("other", other))
            for mode in modes
        ]
        await asyncio.gather(*changes)
        entries = await one.audit()
        assert sorted(entry["version"] for entry in entries) == [1, 2, 3, 4, 5, 6]
        assert len({entry["actor"] for entry in entries}) == 6

        async def agree() -> bool:
            last = max(entries, key=lambda entry: int(entry["version"]))
            return one.mode == other.mode and one.mode.actor == last["actor"]

        await eventually(agree, 5)


@asynchronous
async def test_an_emptied_server_learns_the_mode_from_its_replicas(valkey: Valkey) -> None:
    async with replica(valkey, poll_s=0.05) as one:
        await one.set("fallback", reason=None, actor="ops")
        store = await Store.connect(StoreSettings(url=valkey.url))
        await store._link.command("FLUSHALL", timeout_s=1)

        async def stored() -> bool:
            return (await store.read_shared("mode"))[1] is not None

        await eventually(stored, 5)
        assert one.current() == "fallback"
        await store.close()


@asynchronous
async def test_a_mode_expires_on_every_replica_at_its_time_whatever_their_clocks_say(valkey: Valkey) -> None:
    hours = FakeClock()
    behind, ahead = FakeClock(1000), FakeClock(2_000_000_000)
    async with (
        replica(valkey, poll_s=60, clock=behind, monotonic=hours) as one,
        replica(valkey, poll_s=60, clock=ahead, monotonic=hours) as other,
    ):
        await synced(one)
        await synced(other)
        await one.set("fallback", reason="drill", actor="ops", expires_in_s=600)
        await eventually(holds(other, "fallback"), 5)
        behind.advance(1e6)
        ahead.advance(-1e6)
        hours.advance(598)
        assert one.current() == other.current() == "fallback"
        hours.advance(4)
        assert one.current() == other.current() == "auto"
        assert one.mode.reason is None and one.mode.version == 1


@asynchronous
async def test_a_mode_that_expires_while_redis_is_away_ends_then_and_stays_ended(valkey: Valkey) -> None:
    hours = FakeClock()
    async with (
        replica(valkey, poll_s=0.05, monotonic=hours) as one,
        replica(valkey, poll_s=0.05, monotonic=hours) as other,
    ):
        await other.set("model", reason="before", actor="ops")
        await eventually(holds(one, "model"), 5)
        valkey.stop()
        await synced(one, False)
        await synced(other, False)
        await one.set("fallback", reason="outage", actor="ops", expires_in_s=60)
        assert one.current() == "fallback"
        hours.advance(61)
        assert one.current() == "auto"
        valkey.start()
        # Redis's clock has not moved by the minute that the replicas believe in: what expired does so again.
        await eventually(shared(one, other), 5)
        assert one.mode.version == other.mode.version == 2
        hours.advance(61)
        assert one.current() == other.current() == "auto"
        await eventually(audited(other, "outage", "before"), 5)


@asynchronous
async def test_an_expiry_given_before_redis_was_ever_heard_is_put_by_its_clock(valkey: Valkey) -> None:
    valkey.stop()
    hours, ahead = FakeClock(), FakeClock(2_000_000_000)
    async with replica(valkey, poll_s=0.05, clock=ahead, monotonic=hours) as one:
        await one.set("fallback", reason="outage", actor="ops", expires_in_s=600)
        assert one.current() == "fallback" and not one.shared
        valkey.start()
        await eventually(shared(one), 5)
        async with replica(valkey, monotonic=hours) as other:
            await eventually(holds(other, "fallback"), 5)
            assert one.mode == other.mode
            hours.advance(602)
            assert one.current() == other.current() == "auto"


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
        await one.entries.record("bob", "policies", {"sha256": "abc"})
        entries = await one.audit()
        assert [(e["actor"], e["action"]) for e in entries] == [("bob", "policies"), ("alice", "fallback")]
        assert entries[1]["mode"] == "fallback" and entries[1]["reason"] == "p99" and entries[1]["expires_at"]
        assert entries[1]["at"].endswith("+00:00")
        assert await one.audit(limit=1) == entries[:1]


@asynchronous
async def test_a_damaged_stored_mode_is_ignored_and_can_be_replaced(valkey: Valkey) -> None:
    store = await Store.connect(StoreSettings(url=valkey.url))
    keeper = ModeKeeper(store)
    await store.write_shared("mode", 5, 1, b'{"mode": "sideways"}')
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


@asynchronous
async def test_a_frozen_redis_holds_a_change_no_longer_than_a_write_and_overrides_nothing_later(valkey: Valkey) -> None:
    async with replica(valkey, write_timeout_ms=250) as one, replica(valkey, write_timeout_ms=250) as other:
        await one.set("model", reason="before", actor="ops")
        await eventually(holds(other, "model"), 5)
        valkey.sigstop()
        try:
            loop = asyncio.get_running_loop()
            modes: tuple[ModeName, ...] = ("fallback", "model", "fallback")
            for mode in modes:
                began = loop.time()
                await one.set(mode, reason="frozen", actor="ops")
                assert loop.time() - began < 0.75  # the write time-out, and a busy test machine
                assert one.current() == mode and not one.shared
        finally:
            valkey.sigcont()
        await eventually(holds(other, "fallback"), 5)
        await eventually(shared(one, other), 5)
        assert one.mode == other.mode and one.mode.version == 4
        await eventually(audited(other, "frozen", "frozen", "frozen", "before"), 5)


@pytest.mark.parametrize("durability", ["memory", "aof"])
@asynchronous
async def test_connections_that_fall_silent_hide_no_change_for_more_than_a_second(
    durability: Durability, tmp_path: Path
) -> None:
    """No message comes, and no error: neither for the subscription nor for the poll behind it."""
    with TcpValkey(tmp_path / "valkey") as server, proxy(server.port) as between:
        beyond = server.url.replace(str(server.port), str(between.port))
        async with replica(server.url) as one, replica(beyond, write_timeout_ms=250, durability=durability) as other:
            await synced(one)
            await synced(other)
            between.abandon()
            await one.set("fallback", reason=None, actor="ops")
            assert await eventually(holds(other, "fallback"), 5) < 1.5  # a second, and a busy test machine


@asynchronous
async def test_a_subscription_that_fell_silent_is_made_anew(tmp_path: Path) -> None:
    with TcpValkey(tmp_path / "valkey") as server, proxy(server.port) as between:
        store = await Store.connect(StoreSettings(url=server.url.replace(str(server.port), str(between.port))))
        changes = store.shared_changes()
        task = asyncio.ensure_future(anext(changes))
        await store.ping()
        between.silent = True
        with pytest.raises(StoreUnavailable, match="sign of life"):
            await asyncio.wait_for(task, 10)
        await changes.aclose()
        between.silent = False
        await store.close()


@asynchronous
async def test_workers_that_share_a_copy_agree_while_redis_is_away(valkey: Valkey, tmp_path: Path) -> None:
    copy = tmp_path / "mode.json"
    async with (
        replica(valkey, poll_s=0.05, copy=copy) as one,
        replica(valkey, poll_s=0.05, copy=copy) as other,
    ):
        await synced(one)
        await synced(other)
        valkey.stop()
        await one.set("fallback", reason="outage", actor="ops")
        await eventually(holds(other, "fallback"), 5)
        assert not other.shared


@asynchronous
async def test_an_audit_entry_that_redis_did_not_get_outlives_a_restart(valkey: Valkey, tmp_path: Path) -> None:
    copy = tmp_path / "mode.json"
    valkey.stop()
    async with replica(valkey, copy=copy) as one:
        await one.set("fallback", reason="outage", actor="ops")
    valkey.start()
    async with replica(valkey, copy=copy) as again:
        await eventually(shared(again), 5)
        assert [entry["reason"] for entry in await again.audit()] == ["outage"]
    async with replica(valkey) as other:
        await synced(other)
        await eventually(audited(other, "outage"), 5)
