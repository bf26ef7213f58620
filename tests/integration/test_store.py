"""The store against a real server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.common.errors import SettingsError, StoreUnavailable
from service.store import log_version, lua_scripts
from service.store.left_ids import LEFT_IDS
from service.store.records import NewEvent, Subject, UserRecord, parse_events
from service.store.store import Store
from service.store.store_settings import StoreSettings
from tests.support.aio import asynchronous
from tests.support.valkey import Valkey

T = 1_700_000_000_000
MODEL = "m1"


def config(server: Valkey) -> StoreSettings:
    """Settings with a key prefix nobody else has; a busy test machine gets time for its reads."""
    return StoreSettings(
        url=server.url,
        prefix=f"t{uuid.uuid4().hex}:",
        history_cap=20,
        read_timeout_ms=2000,
        write_timeout_ms=2000,
    )


def user(name: str = "u") -> Subject:
    return Subject("user", name)


def click(item: str, time_ms: int = T, event_id: str | None = None) -> NewEvent:
    return NewEvent(item, "click", time_ms, event_id)


def items(record: UserRecord) -> list[str]:
    return [event.item_id for event in record.events]


async def keys(store: Store) -> list[bytes]:
    """Every key of this store's prefix."""
    found: list[bytes] = []
    cursor = 0
    while True:
        reply = await store._link.command(
            "SCAN", cursor, "MATCH", f"{store.settings.prefix}*", "COUNT", 1000, timeout_s=2
        )
        cursor, page = int(reply[0]), reply[1]
        found += page
        if cursor == 0:
            return found


class PlainLog:
    """What a log should do, written the obvious way."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.version = ""
        self.scores: dict[bytes, float] = {}
        self.left: set[bytes] = set()

    def append(self, subject: Subject, events: Sequence[NewEvent]) -> tuple[int, int]:
        accepted = duplicates = 0
        with_ids = any(event.event_id for event in events)
        known = {member.partition(b"\x1f")[0] for member in self.scores} | (self.left if with_ids else set())
        for event in sorted(events, key=lambda e: e.time_ms):
            member = event.member(subject).encode()
            if event.identity(subject).encode() in known:
                duplicates += 1
                continue
            known.add(event.identity(subject).encode())
            accepted += 1
            ties = [s for s in self.scores.values() if int(s) == event.time_ms]
            score = min(max(ties) + 1 / 1024, event.time_ms + 1023 / 1024) if ties else float(event.time_ms)
            if len(self.scores) >= self.cap and score < min(self.scores.values()):
                self.left |= {event.identity(subject).encode()} if with_ids else set()
                continue
            self.scores[member] = score
            self.version = log_version.link(self.version, parse_events([member, repr(score).encode()])[0])
            if len(self.scores) > self.cap:
                oldest = self.members()[0]
                self.left |= {oldest.partition(b"\x1f")[0]} if with_ids else set()
                del self.scores[oldest]
        return accepted, duplicates

    def members(self) -> list[bytes]:
        return sorted(self.scores, key=lambda m: (self.scores[m], m))


events_given = st.lists(
    st.builds(
        NewEvent,
        item_id=st.sampled_from(["1", "2", "Ж", "{x}", "a b"]),
        type=st.sampled_from(["view", "click", "purchase"]),
        # Few distinct times, so that ties and late events are common; and the ends of the allowed range.
        time_ms=st.one_of(st.integers(T, T + 3), st.sampled_from([0, 1, 999, 2**43 - 1])),
        event_id=st.one_of(st.none(), st.sampled_from(["e1", "e2", "e3"])),
    ),
    max_size=8,
)


@asynchronous
async def test_an_event_that_a_full_log_does_not_keep_is_counted_once(shared_valkey: Valkey) -> None:
    store = await Store.connect(replace(config(shared_valkey), history_cap=2))
    subject = user(uuid.uuid4().hex)
    await store.append(subject, [NewEvent(item_id=str(n), type="view", time_ms=T + n) for n in range(2)])
    old = NewEvent(item_id="old", type="view", time_ms=1)
    result = await store.append(subject, [old, old, old])
    assert (result.accepted, result.duplicates) == (1, 2)
    await store.close()


@asynchronous
async def test_an_event_that_a_call_pushes_out_of_the_log_is_a_duplicate_when_the_call_repeats_it(
    shared_valkey: Valkey,
) -> None:
    store = await Store.connect(replace(config(shared_valkey), history_cap=2))
    subject = user(uuid.uuid4().hex)
    first, second, third = (NewEvent(item_id=str(n), type="view", time_ms=T) for n in range(3))
    await store.append(subject, [first, second])
    result = await store.append(subject, [third, first])
    assert (result.accepted, result.duplicates) == (1, 1)
    await store.close()


def test_the_log_and_its_chain_equal_a_plain_log_in_python(shared_valkey: Valkey) -> None:
    with asyncio.Runner() as runner:
        store = runner.run(Store.connect(replace(config(shared_valkey), history_cap=6)))

        @settings(max_examples=150, deadline=None)
        @given(st.lists(events_given, max_size=5))
        def check(batches: list[list[NewEvent]]) -> None:
            subject, plain = user(uuid.uuid4().hex), PlainLog(6)
            for batch in batches:
                result = runner.run(store.append(subject, batch))
                assert (result.accepted, result.duplicates) == plain.append(subject, batch)
                assert result.version == plain.version
            record = runner.run(store.read(subject, MODEL))
            assert record.version == plain.version
            flat = [part for m in plain.members() for part in (m, repr(plain.scores[m]).encode())]
            assert record.events == parse_events(flat)

        check()
        runner.run(store.close())


@asynchronous
async def test_events_of_one_millisecond_keep_their_arrival_order(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey))
    for item in "zyxab":
        await store.append(user(), [click(item)])
    await store.append(user(), [click("q"), click("p")])
    record = await store.read(user(), MODEL)
    assert items(record) == list("zyxabqp")
    assert [e.score - T for e in record.events] == [i / 1024 for i in range(7)]
    assert {e.time_ms for e in record.events} == {T}
    await store.close()


@asynchronous
async def test_a_late_event_finds_its_place(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey))
    await store.append(user(), [click("a", T), click("c", T + 20)])
    before = await store.read(user(), MODEL)
    await store.append(user(), [click("b", T + 10)])
    after = await store.read(user(), MODEL)
    assert items(after) == ["a", "b", "c"]
    assert log_version.tail(after, before.version, before.events[-1].score) is None
    await store.close()


@asynchronous
async def test_a_repeated_batch_changes_nothing(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey))
    batch = [click("a", T, "e1"), click("b", T + 1), NewEvent(None, "search", T, query="shoes")]
    first = await store.append(user(), batch)
    again = await store.append(user(), batch)
    assert (first.accepted, first.duplicates) == (3, 0)
    assert (again.accepted, again.duplicates, again.version) == (0, 3, first.version)
    await store.close()


@asynchronous
async def test_an_event_id_is_one_event_whatever_else_is_said_of_it(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey))
    first = await store.append(user(), [click("a", T, "e1")])
    later = await store.append(user(), [click("a", T + 500, "e1")])
    assert (later.accepted, later.duplicates, later.version, later.reused) == (0, 1, first.version, ())
    for other in (click("b", T + 500, "e1"), NewEvent("a", "view", T, "e1"), NewEvent("b", "purchase", T - 9, "e1")):
        again = await store.append(user(), [other])
        assert (again.accepted, again.duplicates, again.version, again.reused) == (0, 1, first.version, ("e1",))
    within = await store.append(user(), [click("c", T + 1, "e2"), click("c", T + 2, "e2"), click("d", T + 3, "e3")])
    assert (within.accepted, within.duplicates) == (2, 1)
    assert (await store.append(user("other"), [click("a", T, "e1")])).accepted == 1
    assert items(await store.read(user(), MODEL)) == ["a", "c", "d"]
    await store.close()


@asynchronous
async def test_an_event_id_is_known_after_its_event_has_left_the_log(shared_valkey: Valkey) -> None:
    store = await Store.connect(replace(config(shared_valkey), history_cap=5))
    sent = [click(str(n), T + n, f"e{n}") for n in range(300)]
    await store.append(user(), sent)
    again = await store.append(user(), [replace(event, time_ms=event.time_ms + 86_400_000) for event in sent])
    assert (again.accepted, again.duplicates) == (0, 300)
    assert items(await store.read(user(), MODEL)) == [str(n) for n in range(295, 300)]
    await store.append(user(), [click("early", T - 9, "early")])
    assert (await store.append(user(), [click("early", T + 999, "early")])).duplicates == 1
    await store.append(user("plain"), [click(str(n), T + n) for n in range(20)])
    assert [key for key in await keys(store) if key.endswith(b"}:ids")] == [
        store._calls.keys(user(), "ids")[0].encode()
    ]
    await store.erase(user())
    assert (await store.append(user(), sent[:1])).accepted == 1
    await store.close()


@asynchronous
async def test_the_ids_that_are_remembered_are_bounded_and_the_newest(shared_valkey: Valkey) -> None:
    store = await Store.connect(replace(config(shared_valkey), history_cap=2))
    total = 3 * LEFT_IDS
    for first in range(0, total, 500):
        await store.append(user(), [click("a", T + n, f"e{n}") for n in range(first, min(first + 500, total))])
        length = await store._link.command("STRLEN", *store._calls.keys(user(), "ids"), timeout_s=2)
        assert length <= 1 + 15 * LEFT_IDS
    newest = [click("b", T + n, f"e{n}") for n in range(total - LEFT_IDS, total)]
    assert (await store.append(user(), newest)).duplicates == LEFT_IDS
    assert (await store.append(user(), [click("b", T + total, "e0")])).accepted == 1
    await store.close()


@asynchronous
async def test_ids_of_a_foreign_format_count_as_none(shared_valkey: Valkey) -> None:
    store = await Store.connect(replace(config(shared_valkey), history_cap=1))
    (key,) = store._calls.keys(user(), "ids")
    await store._link.command("SET", key, b"9" + b"f" * 40, timeout_s=2)
    await store.append(user(), [click("a", T, "e1"), click("b", T + 1, "e2")])
    assert (await store.append(user(), [click("a", T + 2, "e1")])).duplicates == 1
    assert await store._link.command("GETRANGE", key, 0, 0, timeout_s=2) == b"1"
    await store.close()


@asynchronous
async def test_of_copies_sent_at_once_with_other_times_one_is_stored(shared_valkey: Valkey) -> None:
    settings = config(shared_valkey)
    stores = [await Store.connect(settings) for _ in range(3)]
    results = await asyncio.gather(*(stores[n % 3].append(user(), [click("a", T + n, "e1")]) for n in range(60)))
    assert (sum(r.accepted for r in results), sum(r.duplicates for r in results)) == (1, 59)
    assert len((await stores[0].read(user(), MODEL)).events) == 1
    for store in stores:
        await store.close()


@asynchronous
async def test_a_merge_keeps_the_events_of_two_sessions_that_count_from_one(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey))
    await store.append(user(), [click("a", T, "1")])
    session = Subject("session", "s")
    await store.append(session, [click("b", T + 1, "1"), click("c", T + 2, "2")])
    assert await store.merge(session, user()) == 2
    assert items(await store.read(user(), MODEL)) == ["a", "b", "c"]
    await store.close()


@asynchronous
async def test_a_full_log_keeps_the_newest_events(shared_valkey: Valkey) -> None:
    store = await Store.connect(replace(config(shared_valkey), history_cap=5))
    await store.append(user(), [click(str(i), T + i) for i in range(12)])
    record = await store.read(user(), MODEL)
    assert items(record) == ["7", "8", "9", "10", "11"]
    await store.close()


@asynchronous
async def test_an_event_older_than_a_full_log_is_acknowledged_and_leaves_states_valid(
    shared_valkey: Valkey,
) -> None:
    store = await Store.connect(replace(config(shared_valkey), history_cap=3))
    before = await store.append(user(), [click(str(i), T + i) for i in range(3)])
    after = await store.append(user(), [click("old", T - 1)])
    assert (after.accepted, after.duplicates, after.version) == (1, 0, before.version)
    assert items(await store.read(user(), MODEL)) == ["0", "1", "2"]
    await store.close()


@asynchronous
async def test_a_lowered_cap_trims_at_the_next_event(shared_valkey: Valkey) -> None:
    wide = await Store.connect(config(shared_valkey))
    await wide.append(user(), [click(str(i), T + i) for i in range(10)])
    narrow = await Store.connect(replace(wide.settings, history_cap=4))
    await narrow.append(user(), [click("new", T + 99)])
    assert items(await narrow.read(user(), MODEL)) == ["7", "8", "9", "new"]
    await wide.close()
    await narrow.close()


@asynchronous
async def test_every_key_expires_and_every_append_puts_that_off(shared_valkey: Valkey) -> None:
    store = await Store.connect(replace(config(shared_valkey), ttl_s=1000, state_ttl_s=500, signals_ttl_s=300))
    version = (await store.append(user(), [click("a"), NewEvent("a", "impression", T)])).version
    await store.write_state(user(), MODEL, version, b"blob")

    async def ttl(name: str) -> int:
        key = store._calls.keys(user(), name)[0]
        return int(await store._link.command("TTL", key, timeout_s=2))

    for name, seconds in {"events": 1000, "version": 1000, "signals": 300, f"state:{MODEL}": 500}.items():
        assert seconds - 5 <= await ttl(name) <= seconds, name
    await store._link.command("EXPIRE", store._calls.keys(user(), "events")[0], 10, timeout_s=2)
    await store._link.command("EXPIRE", store._calls.keys(user(), "version")[0], 10, timeout_s=2)
    await store.append(user(), [click("a")])  # a duplicate, and still a sign of life
    assert await ttl("events") > 900 and await ttl("version") > 900
    await store.close()


@asynchronous
async def test_signals_are_logged_but_are_no_history(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey))
    result = await store.append(
        user(),
        [NewEvent("a", "impression", T), NewEvent(None, "search", T, query="x"), NewEvent("b", "search", T)],
    )
    assert result.accepted == 3
    assert items(await store.read(user(), MODEL)) == ["b"]
    assert await store._link.command("XLEN", store._calls.keys(user(), "signals")[0], timeout_s=2) == 2
    await store.close()


@asynchronous
async def test_signals_are_capped(shared_valkey: Valkey) -> None:
    store = await Store.connect(replace(config(shared_valkey), signals_cap=100))
    for start in range(0, 600, 200):
        await store.append(user(), [NewEvent(str(i), "impression", T + i) for i in range(start, start + 200)])
    assert await store._link.command("XLEN", store._calls.keys(user(), "signals")[0], timeout_s=2) <= 200
    await store.close()


@asynchronous
async def test_a_new_user_has_an_empty_record(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey))
    assert await store.read(user("nobody"), MODEL) == UserRecord("", (), None)
    assert not await store.write_state(user("nobody"), MODEL, "", b"blob")
    assert await keys(store) == []
    await store.close()


@asynchronous
async def test_many_users_are_written_in_one_call(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey))
    results = await store.append_many([(user(f"u{i}"), [click("a", T + i)] * (i % 3)) for i in range(30)])
    assert [r.accepted + r.duplicates for r in results] == [i % 3 for i in range(30)]
    assert await store.append_many([]) == []
    await store.close()


@asynchronous
async def test_a_batch_of_more_users_than_one_round_trip_takes_is_answered_in_its_order(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey))
    batch = [(user(f"u{i}"), [click(f"item-{i}", T + i)]) for i in range(200)]
    results = await store.append_many(batch)
    assert [result.accepted for result in results] == [1] * 200
    for i in (0, 63, 64, 127, 128, 199):
        record = await store.read(user(f"u{i}"), MODEL)
        assert (record.version, items(record)) == (results[i].version, [f"item-{i}"])
    await store.close()


@asynchronous
async def test_a_state_is_written_only_at_the_version_it_was_made_at(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey))
    old = (await store.append(user(), [click("a", T)])).version
    new = (await store.append(user(), [click("b", T + 1)])).version
    assert not await store.write_state(user(), MODEL, old, b"old")
    assert await store.write_state(user(), MODEL, new, b"new")
    assert (await store.read(user(), MODEL)).blob == b"new"
    assert (await store.read(user(), "another")).blob is None
    await store.close()


@asynchronous
async def test_of_two_racing_writers_none_overwrites_a_newer_log(shared_valkey: Valkey) -> None:
    one = await Store.connect(config(shared_valkey))
    other = await Store.connect(one.settings)
    for round_ in range(30):
        version = (await one.append(user(), [click(f"i{round_}", T + round_)])).version
        moved, _, wrote = await asyncio.gather(
            other.append(user(), [click(f"j{round_}", T + round_)]),
            asyncio.sleep(0),
            one.write_state(user(), MODEL, version, version.encode()),
        )
        record = await other.read(user(), MODEL)
        assert record.version == moved.version
        if not wrote:
            assert record.blob != version.encode()
        assert not await one.write_state(user(), MODEL, version, b"late")
    await one.close()
    await other.close()


@asynchronous
async def test_two_replicas_see_each_others_events(shared_valkey: Valkey) -> None:
    one = await Store.connect(config(shared_valkey))
    other = await Store.connect(one.settings)
    for i in range(10):
        writer, reader = (one, other) if i % 2 else (other, one)
        version = (await writer.append(user(), [click(str(i), T + i)])).version
        record = await reader.read(user(), MODEL)
        assert record.version == version and items(record)[-1] == str(i)
    await one.close()
    await other.close()


@asynchronous
async def test_flushed_scripts_are_sent_again(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey))
    for _ in range(2):
        await store._link.command("SCRIPT", "FLUSH", timeout_s=2)
        await store.append(user(), [click("a")])
        await store._link.command("SCRIPT", "FLUSH", timeout_s=2)
        results = await store.append_many([(user("x"), [click("a")]), (user("y"), [click("b")])])
        assert len(results) == 2
        await store._link.command("SCRIPT", "FLUSH", timeout_s=2)
        assert items(await store.read(user(), MODEL)) == ["a"]
        await store._link.command("SCRIPT", "FLUSH", timeout_s=2)
        assert await store.erase(user()) == 2
    await store.close()


def test_script_names_are_what_the_server_computes(shared_valkey: Valkey) -> None:
    async def check() -> None:
        store = await Store.connect(config(shared_valkey))
        for script in lua_scripts.ALL:
            reply = await store._link.command("SCRIPT", "LOAD", script.source, timeout_s=2)
            assert reply in (script.sha, script.sha.encode())
        await store.close()

    asyncio.run(check())


@asynchronous
async def test_merging_moves_a_session_in_order_of_time(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey))
    session = Subject("session", "s")
    await store.append(user(), [click("a", T), click("d", T + 30)])
    await store.append(session, [click("b", T + 10), click("c", T + 20), NewEvent(None, "search", T, query="q")])
    assert await store.merge(session, user()) == 3
    assert items(await store.read(user(), MODEL)) == ["a", "b", "c", "d"]
    assert not any(b"{s:s}" in key for key in await keys(store))
    assert await store.merge(session, user()) == 0
    await store.close()


@asynchronous
async def test_a_merge_that_crashed_half_way_is_finished_by_the_next(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey))
    session = Subject("session", "s")
    await store.append(session, [click("a", T), click("b", T + 1), NewEvent("x", "impression", T)])
    copies = [NewEvent(e.item_id, e.type, e.time_ms, e.event_id) for e in (await store.read(session, MODEL)).events]
    await store.append(user(), copies)  # copied, and then nothing more happened
    assert await store.merge(session, user()) == 1  # the impression
    assert items(await store.read(user(), MODEL)) == ["a", "b"]
    assert (await store.read(session, MODEL)).events == ()
    await store.close()


@asynchronous
async def test_an_event_that_arrives_during_a_merge_is_not_lost(shared_valkey: Valkey) -> None:
    store = await Store.connect(replace(config(shared_valkey), history_cap=200))
    session = Subject("session", "s")
    await store.append(session, [click("first", T)])

    async def add() -> None:
        for i in range(60):
            await store.append(session, [click(str(i), T + 1 + i)])

    async def move() -> None:
        for _ in range(20):
            await store.merge(session, user())

    await asyncio.gather(add(), move())
    await store.merge(session, user())
    assert items(await store.read(user(), MODEL)) == ["first", *map(str, range(60))]
    await store.close()


@asynchronous
async def test_erasing_leaves_no_key_and_counts_them(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey))
    version = (await store.append(user(), [click("a"), NewEvent(None, "search", T, query="q")])).version
    for model in ("m1", "m2", "m3"):
        assert await store.write_state(user(), model, version, b"blob")
    await store.append(user("neighbour"), [click("a")])
    everything = await keys(store)
    assert await store.erase(user()) == 7
    left = await keys(store)
    assert len(everything) - len(left) == 7 and all(b"neighbour" in key for key in left)
    assert not await store.write_state(user(), "m1", version, b"too late")
    assert await store.erase(user()) == 0
    await store.close()


@asynchronous
async def test_ids_with_any_characters_have_keys_of_their_own(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey))
    ids = ["a", "a}", "{a", "a b", "ä", "a:events", "%61", "𝕦"]
    for i, name in enumerate(ids):
        await store.append(user(name), [click(str(i))])
    for i, name in enumerate(ids):
        assert items(await store.read(user(name), MODEL)) == [str(i)]
    await store.close()


@pytest.mark.parametrize("time_ms", [-1, 2**43])
def test_a_time_the_log_cannot_order_is_refused(time_ms: int) -> None:
    with pytest.raises(ValueError, match="time_ms"):
        click("a", time_ms)


@asynchronous
async def test_durability_aof_waits_for_the_disk(shared_valkey: Valkey) -> None:
    store = await Store.connect(replace(config(shared_valkey), durability="aof"))
    assert (await store.append(user(), [click("a")])).accepted == 1
    assert (await store.append(user(), [click("a")])).duplicates == 1
    await store.close()


@asynchronous
async def test_too_few_replicas_are_not_acknowledged(shared_valkey: Valkey) -> None:
    settings_ = replace(config(shared_valkey), durability="replica", durability_timeout_ms=50)
    store = await Store.connect(settings_)
    with pytest.raises(StoreUnavailable, match="0 of 1"):
        await store.append(user(), [click("a")])
    with pytest.raises(StoreUnavailable, match="0 of 1"):
        await store.erase(user())  # what comes back with a replica that had not heard of it is not erased
    await store.close()


@pytest.mark.parametrize("url", ["http://x", "", "localhost:6379", "redis+sentinel://host:1", "redis://h:port/0"])
def test_a_url_that_cannot_be_used_is_a_settings_error(url: str) -> None:
    with pytest.raises(SettingsError, match="Redis URL"):
        Store(StoreSettings(url=url))


def test_a_settings_error_shows_no_password() -> None:
    with pytest.raises(SettingsError) as caught:
        Store(StoreSettings(url="redis://user:hunter2@host:port/0"))
    assert "hunter2" not in str(caught.value)
