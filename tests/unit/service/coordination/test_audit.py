"""The audit: its order, and what happens to entries while Redis is away."""

from __future__ import annotations

import orjson

from service.common.errors import StoreUnavailable
from service.coordination.audit import Audit
from service.coordination.clock import SharedClock
from tests.support.aio import asynchronous
from tests.support.clock import FakeClock


class Log:
    """The list in Redis, newest first; `away` makes every call fail."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.away = False

    async def append_audit(self, entry: bytes) -> None:
        self._check()
        self.entries.insert(0, entry)

    async def read_audit(self, limit: int) -> list[bytes]:
        self._check()
        return self.entries[:limit]

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("away")


@asynchronous
async def test_quick_changes_keep_their_order_when_the_clock_is_corrected_between_them() -> None:
    log, clock = Log(), SharedClock(FakeClock(1_000.0), FakeClock(0.0))
    audit = Audit(log, clock)
    clock.heard(1_000.0, clock.stamp())
    await audit.record("alice", "fallback", {})
    clock.heard(999.99, clock.stamp())
    await audit.record("bob", "policies", {})
    assert [entry["actor"] for entry in await audit.read()] == ["bob", "alice"]


@asynchronous
async def test_an_entry_that_waited_for_redis_stands_where_it_happened() -> None:
    log, hours = Log(), FakeClock(0.0)
    waiting, other = (Audit(log, SharedClock(FakeClock(1_000.0), hours)) for _ in range(2))
    log.away = True
    await waiting.record("first", "fallback", {})
    log.away = False
    hours.advance(5.0)
    await other.record("second", "fallback", {})
    await waiting.write_pending()
    assert [orjson.loads(text)["actor"] for text in log.entries] == ["first", "second"]
    assert [entry["actor"] for entry in await other.read()] == ["second", "first"]


@asynchronous
async def test_pending_entries_are_read_while_redis_is_away_and_only_the_latest_are_kept() -> None:
    log = Log()
    audit = Audit(log, SharedClock())
    saved: list[int] = []
    audit.subscribe(lambda: saved.append(len(audit.pending)))
    log.away = True
    for number in range(101):
        await audit.record(str(number), "policies", {})
    actors = {entry["actor"] for entry in await audit.read()}
    assert actors == {str(number) for number in range(1, 101)}
    log.away = False
    await audit.write_pending()
    assert saved == [*range(1, 101), 100, 0]
    assert len(log.entries) == 100


@asynchronous
async def test_entries_that_are_there_twice_or_malformed_are_read_once_or_not_at_all() -> None:
    log = Log()
    audit = Audit(log, SharedClock())
    entry = audit.entry("alice", "fallback", {}, "same")
    log.entries = [b"{", b"[]", b"3", b'{"id": "no time"}', entry, entry]
    assert [read["id"] for read in await audit.read()] == ["same"]
