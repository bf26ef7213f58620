"""Shared values: one protocol for the mode, the model and the policies; their copies on disk."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import orjson
import pytest

from service.common.errors import StoreUnavailable
from service.coordination.audit import Audit
from service.coordination.clock import SharedClock
from service.coordination.exchange import Exchange
from service.coordination.forced_mode import ForcedMode
from service.coordination.shared_choice import SharedChoice
from service.coordination.shared_value import Stored
from tests.support.aio import asynchronous
from tests.support.clock import FakeClock

NOW_S = 1_000.0


class Redis:
    """Compare-and-set on the version, as the script in Redis does; `away` makes every call fail."""

    def __init__(self) -> None:
        self.values: dict[str, Stored] = {}
        self.audit: list[bytes] = []
        self.away = False
        self.full = False
        self.refused: set[str] = set()

    async def read_shared(self, name: str) -> tuple[float, Stored | None]:
        self._check()
        if name in self.refused:
            raise StoreUnavailable("WRONGTYPE")
        return NOW_S, self.values.get(name)

    async def write_shared(
        self, name: str, version: int, changed_at_ms: int, body: bytes, *, audit: bytes = b""
    ) -> tuple[float, Stored]:
        self._check()
        before = self.values.get(name, (-1, -1, b""))
        newer = version > before[0] if audit else (version, changed_at_ms) > before[:2]
        if newer:
            self.values[name] = (version, changed_at_ms, body)
            self.audit += [audit] if audit else []
        return NOW_S, self.values[name]

    async def append_audit(self, entry: bytes) -> None:
        self._check()
        if self.full:
            raise StoreUnavailable("OOM")
        self.audit.append(entry)

    async def read_audit(self, limit: int) -> list[bytes]:
        self._check()
        return self.audit[::-1][:limit]

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("away")


def known_to_this_release(fields: dict[str, Any]) -> bool:
    return "unknown" not in fields


def chosen(redis: Redis, copy: Path | None = None) -> SharedChoice:
    clock = SharedClock(FakeClock(NOW_S), FakeClock(0.0))
    return SharedChoice(redis, "model", clock, Audit(redis, clock), usable=known_to_this_release, copy=copy)


def forced(redis: Redis, copy: Path | None = None) -> ForcedMode:
    clock = SharedClock(FakeClock(NOW_S), FakeClock(0.0))
    return ForcedMode(redis, clock, Audit(redis, clock), copy=copy)


@asynchronous
async def test_a_choice_that_this_release_cannot_use_is_not_adopted_and_can_be_replaced() -> None:
    redis = Redis()
    ours = chosen(redis)
    await ours.set({"version": "a"}, actor="ops", reason=None, details={})
    redis.values["model"] = (7, 1, b'{"fields": {"unknown": 1}, "actor": null, "reason": null}')
    await ours.refresh()
    assert ours.choice.fields == {"version": "a"} and not ours.shared
    await ours.set({"version": "b"}, actor="ops", reason=None, details={})
    assert ours.choice.version == 8 and ours.shared


@asynchronous
async def test_everyone_who_subscribed_hears_of_a_change_wherever_it_was_made() -> None:
    redis = Redis()
    one, other = chosen(redis), chosen(redis)
    heard: list[str] = []
    other.subscribe(lambda: heard.append("first"))
    other.subscribe(lambda: heard.append("second"))
    await one.set({"version": "a"}, actor="ops", reason=None, details={})
    await other.refresh()
    await other.refresh()
    assert heard == ["first", "second"]
    await other.set({"version": "b"}, actor="ops", reason=None, details={})
    assert heard == ["first", "second"] * 2


@asynchronous
async def test_the_audit_entry_of_a_repeated_write_keeps_its_id() -> None:
    redis = Redis()
    one, other = chosen(redis), chosen(redis)
    await one.refresh()
    await other.set({"version": "a"}, actor="other", reason=None, details={})
    await one.set({"version": "b"}, actor="one", reason="why", details={"model": "b"})
    entry = orjson.loads(redis.audit[-1])
    assert (entry["actor"], entry["action"], entry["model"], entry["version"]) == ("one", "model", "b", 2)
    assert one.choice.fields == {"version": "b"} and one.shared


@asynchronous
async def test_a_change_before_redis_was_heard_is_moved_to_its_clock_by_whichever_value_hears_it_first() -> None:
    redis = Redis()
    redis.away = True
    clock = SharedClock(FakeClock(5_000.0), FakeClock(0.0))
    audit = Audit(redis, clock)
    mode = ForcedMode(redis, clock, audit)
    model = SharedChoice(redis, "model", clock, audit, usable=known_to_this_release, copy=None)
    await mode.set("fallback", reason=None, actor="ops", expires_in_s=60)
    assert mode.mode.expires_at == pytest.approx(5_060.0)
    redis.away = False
    await model.refresh()
    assert mode.mode.expires_at == pytest.approx(NOW_S + 60)
    await mode.refresh()
    assert mode.shared and mode.mode.changed_at_ms == pytest.approx(NOW_S * 1000, abs=1)


@asynchronous
async def test_the_copy_of_a_mode_has_the_audit_entries_that_wait(tmp_path: Path) -> None:
    redis, copy = Redis(), tmp_path / "data" / "mode.json"
    redis.away = True
    mode = forced(redis, copy)
    await mode.set("fallback", reason="outage", actor="ops")
    version, changed_at_ms, body, pending = orjson.loads(copy.read_bytes())
    assert (version, changed_at_ms) == (1, int(NOW_S * 1000))
    assert body == '{"mode":"fallback","reason":"outage","actor":"ops","expires_at":null}'
    assert [orjson.loads(entry)["reason"] for entry in pending] == ["outage"]
    clock = SharedClock()
    audit = Audit(redis, clock)
    assert ForcedMode(redis, clock, audit, copy=copy).current() == "fallback"
    assert [entry.decode() for entry in audit.pending] == pending


@asynchronous
async def test_the_copy_of_a_choice_has_three_fields(tmp_path: Path) -> None:
    redis, copy = Redis(), tmp_path / "model.json"
    await chosen(redis, copy).set({"version": "a"}, actor="ops", reason=None, details={})
    assert orjson.loads(copy.read_bytes()) == [
        1, int(NOW_S * 1000), '{"fields":{"version":"a"},"actor":"ops","reason":null}'
    ]  # fmt: skip
    assert chosen(redis, copy).choice.fields == {"version": "a"}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"null", b"[1, 2]", b"[1, 2, 3]", b'["x", 1, "{}"]', b'[1, 2, "{}"]', b'[1, 2, "{", []]'],
)
def test_a_damaged_copy_is_ignored(content: bytes, tmp_path: Path) -> None:
    copy = tmp_path / "copy.json"
    copy.write_bytes(content)
    assert chosen(Redis(), copy).choice.version == 0
    assert forced(Redis(), copy).current() == "auto"


class Changes:
    """A subscription that never hears anything."""

    async def shared_changes(self) -> AsyncGenerator[bytes, None]:
        return
        yield b""


@asynchronous
async def test_a_full_redis_still_says_what_other_replicas_changed() -> None:
    redis = Redis()
    redis.away = True
    clock = SharedClock(FakeClock(NOW_S), FakeClock(0.0))
    audit = Audit(redis, clock)
    ours, theirs = ForcedMode(redis, clock, audit), forced(redis)
    await audit.record("ops", "drill", {})
    redis.away = False
    await theirs.set("fallback", reason=None, actor="other")
    redis.full = True
    exchange = Exchange(Changes(), [ours], audit)
    with pytest.raises(StoreUnavailable):
        await exchange.once()
    assert ours.current() == "fallback" and ours.shared and len(audit.pending) == 1
    redis.full = False
    await exchange.once()
    assert not audit.pending


@asynchronous
async def test_a_value_that_cannot_be_read_leaves_those_before_it_in_sync() -> None:
    redis = Redis()
    clock = SharedClock(FakeClock(NOW_S), FakeClock(0.0))
    audit = Audit(redis, clock)
    mode = ForcedMode(redis, clock, audit)
    model = SharedChoice(redis, "model", clock, audit, usable=known_to_this_release, copy=None)
    redis.refused.add("model")
    with pytest.raises(StoreUnavailable):
        await Exchange(Changes(), [mode, model], audit).once()
    assert mode.in_sync and not model.in_sync


@asynchronous
async def test_a_change_without_redis_follows_the_one_of_another_worker_with_the_same_copy(tmp_path: Path) -> None:
    redis, copy = Redis(), tmp_path / "mode.json"
    redis.away = True
    one, other = forced(redis, copy), forced(redis, copy)
    await one.set("fallback", reason=None, actor="one")
    await other.set("model", reason=None, actor="other")
    assert (one.mode.version, other.mode.version) == (1, 2)
