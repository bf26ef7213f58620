"""What makes Redis unusable is noticed by a probe that writes and runs a script, and told once, with its cause."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.common.errors import SettingsError, StoreUnavailable
from service.metrics.service_metrics import Metrics, value_of
from service.store import lua_scripts, redis_rights
from service.store.health import RedisCheck
from service.store.records import NewEvent, Subject
from service.store.store import Store
from service.store.store_settings import StoreSettings
from tests.support.aio import asynchronous
from tests.support.valkey import say, server

T = 1_700_000_000_000
WRITES = frozenset(("APPEND", "PEXPIRE", "SET", "SETRANGE", "UNLINK", "XADD", "ZADD", "ZREMRANGEBYRANK"))
USER = "ACL SETUSER told reset on >pw ~gpt4rec:* &gpt4rec:* +@all"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with server(tmp_path_factory.mktemp("told") / "server", "--appendonly", "no") as port:
        yield port


def store_at(url: str, **settings: Any) -> Store:
    return Store(StoreSettings(url=url, read_timeout_ms=5000, write_timeout_ms=5000, **settings))


async def judged(url: str, **settings: Any) -> RedisCheck:
    """What two probes found; that it was told once."""
    store, now = store_at(url, **settings), [0.0]
    metrics = Metrics()
    check = RedisCheck(store, metrics, lambda: now[0])
    with capture_logs() as logs:
        for _ in range(2):
            assert await check.answers() == check.usable
            now[0] += 1.5
    await store.close()
    told = [entry for entry in logs if entry["event"] == "redis_unusable"]
    assert [entry["cause"] for entry in told] == ([] if check.usable else [check.cause])
    assert value_of(metrics.redis_state, check.cause or "ok") == 1.0
    return check


@pytest.mark.parametrize(
    ("cause", "make", "undo", "url"),
    [
        (None, "PING", "PING", "redis://127.0.0.1:{port}/1?client_name=me"),
        ("wrong_password", USER, "PING", "redis://told:no@127.0.0.1:{port}"),
        ("no_permission", f"{USER} -xadd", "PING", "redis://told:pw@127.0.0.1:{port}"),
        ("no_permission", f"{USER} -@scripting", "PING", "redis://told:pw@127.0.0.1:{port}"),
        ("no_permission", f"{USER} resetkeys ~other:*", "PING", "redis://told:pw@127.0.0.1:{port}"),
        ("read_only", "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "redis://127.0.0.1:{port}"),
        ("too_few_replicas", "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0",
         "redis://127.0.0.1:{port}"),
        ("out_of_memory", "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "redis://127.0.0.1:{port}"),
        ("bad_database", "PING", "PING", "redis://127.0.0.1:{port}/9999"),
        ("cluster_off", "PING", "PING", "redis+cluster://127.0.0.1:{port}"),
        ("no_master", "PING", "PING", "redis+sentinel://127.0.0.1:{port}/shop"),
        ("refused", "PING", "PING", "redis://127.0.0.1:1"),
        ("unknown_host", "PING", "PING", "redis://nowhere.invalid"),
    ],
)  # fmt: skip
def test_a_redis_that_cannot_be_used_is_told_once_with_its_cause(
    cause: str | None, make: str, undo: str, url: str, port: int
) -> None:
    assert say(port, make)[:1] == "+"
    try:
        check = asyncio.run(judged(url.format(port=port)))
    finally:
        say(port, undo)
    assert check.cause == cause
    assert (check.meaning is None) == (cause is None)
    assert "pw@" not in check.detail


def test_a_server_without_scripts_is_told(tmp_path: Path) -> None:
    with server(tmp_path / "server", "--rename-command", "EVAL", "", "--rename-command", "EVALSHA", "") as port:
        assert asyncio.run(judged(f"redis://127.0.0.1:{port}")).cause == "no_scripts"


def test_a_cluster_with_slots_that_nobody_has_is_told(tmp_path: Path) -> None:
    with server(tmp_path / "node", "--cluster-enabled", "yes") as port:
        say(port, "CLUSTER ADDSLOTSRANGE 0 8000")
        assert asyncio.run(judged(f"redis+cluster://127.0.0.1:{port}")).cause == "slots_uncovered"


@asynchronous
async def test_an_outage_is_two_lines_however_long_it_lasts(port: int) -> None:
    store, now = store_at(f"redis://127.0.0.1:{port}"), [0.0]
    check = RedisCheck(store, Metrics(), lambda: now[0])
    with capture_logs() as logs:
        for full in (False, True, True, True, False, False, True, False):
            say(port, "CONFIG SET maxmemory 1" if full else "CONFIG SET maxmemory 0")
            now[0] += 1.5
            assert await check.answers() is not full
        say(port, "CONFIG SET maxmemory 1")
        for _ in range(3):  # it comes back soon, and stays
            now[0] += 30.0
            assert not await check.answers()
    say(port, "CONFIG SET maxmemory 0")
    await store.close()
    assert [entry["event"] for entry in logs] == ["redis_unusable", "redis_usable_again", "redis_unusable"]


@asynchronous
async def test_a_policy_that_may_evict_histories_is_warned_of(port: int) -> None:
    """At the start and after an outage, once for each policy."""
    store, now = store_at(f"redis://127.0.0.1:{port}"), [0.0]
    check = RedisCheck(store, Metrics(), lambda: now[0])
    with capture_logs() as logs:
        for policy in ("allkeys-lru", "allkeys-lru", "noeviction", "volatile-ttl"):
            say(port, "CONFIG SET maxmemory 1")
            now[0] += 1.5
            assert not await check.answers()
            say(port, f"CONFIG SET maxmemory-policy {policy}", "CONFIG SET maxmemory 0")
            now[0] += 1.5
            assert await check.answers()
    say(port, "CONFIG SET maxmemory-policy noeviction")
    await store.close()
    told = [entry["policy"] for entry in logs if entry["event"] == "redis_may_evict_histories"]
    assert told == ["allkeys-lru", "volatile-ttl"]


@asynchronous
async def test_a_script_that_lacks_a_right_writes_nothing_at_all(port: int) -> None:
    """Without the check, the event would be in the log and the version of the log would not."""
    say(port, f"{USER} -set")
    store, subject = store_at(f"redis://told:pw@127.0.0.1:{port}"), Subject("user", "half")
    with pytest.raises(StoreUnavailable, match=r"\+set"):
        await store.server.write()
    with pytest.raises(StoreUnavailable) as caught:
        await store.append(subject, [NewEvent("a", "click", T)])
    assert caught.value.cause == "no_permission"
    assert not (await store.read(subject, "m")).events
    say(port, USER)
    assert await store.server.write() == frozenset()
    assert (await store.append(subject, [NewEvent("a", "click", T)])).accepted == 1
    await store.close()


@pytest.mark.parametrize("right", sorted(lua_scripts.APPEND.commands & WRITES))
@asynchronous
async def test_an_append_that_ends_in_the_middle_leaves_no_version_that_anybody_knows(right: str, port: int) -> None:
    """The right is withdrawn between two probes. A repetition puts all right, and no copy from before is current."""
    say(port, f"{USER} +@all")
    store, subject = store_at(f"redis://told:pw@127.0.0.1:{port}", history_cap=2, seen_max=2), Subject("user", right)
    await store.append(subject, [NewEvent(str(n), "click", T + n) for n in range(3)])
    known = await store.read(subject, "m")
    more = [NewEvent("a", "click", T + 10), NewEvent(None, "search", T, query="x")]
    say(port, f"{USER} -{right}")
    with contextlib.suppress(StoreUnavailable):
        await store.append(subject, more)
    say(port, USER)
    await store.append(subject, more)
    record = await store.read_if_changed(subject, "m", known)
    assert record is not None and record.version != known.version
    assert [event.item_id for event in record.events][-2:] == ["2", "a"]
    await store.close()


def test_a_probe_leaves_nothing_behind(port: int) -> None:
    before = say(port, "DBSIZE")
    asyncio.run(judged(f"redis://127.0.0.1:{port}"))
    assert say(port, "DBSIZE") == before


@asynchronous
async def test_a_database_that_the_server_lacks_ends_the_start(port: int) -> None:
    with pytest.raises(SettingsError, match="database"):
        await Store.connect(StoreSettings(url=f"redis://127.0.0.1:{port}/9999", write_timeout_ms=5000))


def test_every_trial_of_the_probe_has_the_number_of_arguments_that_the_command_needs(port: int) -> None:
    """A command with too few is refused before its right is looked at."""
    trials = redis_rights.trials()
    for name, arguments in trials.items():
        say(port, "SET probe x")
        assert "number of arguments" not in say(port, f"{name} probe {arguments}")
    say(port, "DEL probe")
