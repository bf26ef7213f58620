"""What the store remembers of events that the log no longer keeps, against a real server."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.history.profile import extended
from service.store.records import NewEvent, Subject, UserRecord
from service.store.seen_items import COUNT_MAX, NOTHING_SEEN, SeenItems, entries_max
from service.store.store import Store
from service.store.store_settings import StoreSettings
from tests.support.aio import asynchronous
from tests.support.valkey import Valkey

Entry = tuple[str, int, int]  # item, second, count

T = 1_700_000_000_000
MODEL = "m1"
USER, SESSION = Subject("user", "u"), Subject("session", "s")


def config(server: Valkey, *, seen_max: int = 4, ttl_s: int = 1000) -> StoreSettings:
    """A log of three events and a memory of four items, under a prefix nobody else has."""
    return StoreSettings(
        url=server.url, prefix=f"t{uuid.uuid4().hex}:", history_cap=3, seen_max=seen_max, ttl_s=ttl_s,
        read_timeout_ms=2000, write_timeout_ms=2000,
    )  # fmt: skip


def view(item: str, second: int) -> NewEvent:
    return NewEvent(item, "view", T + 1000 * second)


def kept(record: UserRecord) -> list[str]:
    return [event.item_id for event in record.events]


class PlainMemory:
    """Every event ever posted; what of it must be remembered, and what may be."""

    def __init__(self) -> None:
        self.posted: set[tuple[str, str, int]] = set()
        self.posts: Counter[str] = Counter()

    def post(self, subject: Subject, events: Sequence[NewEvent]) -> None:
        self.posted |= {(event.identity(subject), event.item_id or "", event.time_ms) for event in events}
        self.posts.update(event.item_id or "" for event in events)

    def check(self, record: UserRecord, limit: int) -> None:
        left = self.posted - {(event.event_id, event.item_id, event.time_ms) for event in record.events}
        oldest = record.events[0].time_ms if record.events else 0
        # Of events in the same millisecond as the log's oldest, each may have been in the log or not.
        may = _last_seconds(event for event in self.posted if event[2] <= oldest)
        for item, second in _last_seconds(left).items():
            if sum(other >= second for other in may.values()) <= limit:
                assert item in record.seen.item_ids()
        assert set(record.seen.item_ids()) <= set(may)
        assert record.seen.count == len(record.seen.item_ids()) <= entries_max(limit)
        self._check_counts(record.seen, Counter(item for _, item, _ in left), nothing_dropped=len(may) <= limit)

    def _check_counts(self, seen: SeenItems, left: Counter[str], *, nothing_dropped: bool) -> None:
        """An event without an id that comes again when it has left the log counts again."""
        counted = dict(zip(seen.by_item().item_ids, seen.by_item().counts.tolist(), strict=True))
        assert all(1 <= count <= self.posts[item] for item, count in counted.items())
        if nothing_dropped:
            assert all(counted[item] >= count for item, count in left.items())


def _last_seconds(events: Iterable[tuple[str, str, int]]) -> dict[str, int]:
    """The time of each item's newest event, in the unit in which it is remembered."""
    last: dict[str, int] = {}
    for _, item, time_ms in events:
        last[item] = max(last.get(item, 0), time_ms // 1000)
    return last


def packed(entries: Iterable[Entry], version: int) -> bytes:
    """A value as a release wrote it: version 1 knew no counts."""
    texts = [f"{t:08x}{item}" + (f"\x1e{n}" if n > 1 else "") + "\x1f" for item, t, n in entries]
    return f"{version}{'f' * 16}{len(texts):06d}{''.join(texts)}".encode()


def by_item_plainly(entries: Iterable[Entry]) -> list[Entry]:
    """Each item once: its newest time, of equal times the later entry's place, and the sum of its counts."""
    newest: dict[str, tuple[int, int]] = {}
    total: Counter[str] = Counter()
    for place, (item, second, count) in enumerate(entries):
        newest[item] = max(newest.get(item, (0, -1)), (second, place))
        total[item] += count
    return [(item, newest[item][0], min(total[item], COUNT_MAX)) for item in sorted(newest, key=newest.__getitem__)]


def listed(seen: SeenItems) -> list[Entry]:
    items, counts, last_ms = seen.by_item()
    return [(item, t // 1000, n) for item, t, n in zip(items, last_ms.tolist(), counts.tolist(), strict=True)]


entry = st.tuples(st.sampled_from("abcdefЖ "), st.integers(0, 5), st.sampled_from([1, 1, 2, 9, COUNT_MAX]))
posted = st.lists(st.builds(view, st.sampled_from("abcdefЖ "), st.integers(0, 30)), max_size=6)


def test_the_newest_items_are_remembered_whatever_the_order_of_events(shared_valkey: Valkey) -> None:
    with asyncio.Runner() as runner:
        store = runner.run(Store.connect(config(shared_valkey)))

        @settings(max_examples=60, deadline=None)
        @given(st.lists(st.tuples(st.booleans(), posted), max_size=8))
        def check(batches: list[tuple[bool, list[NewEvent]]]) -> None:
            name = uuid.uuid4().hex
            user, session = Subject("user", name), Subject("session", name)
            plain, record = PlainMemory(), UserRecord("", ())
            for by_session, batch in batches:
                subject = session if by_session else user
                foreseen = extended(record, batch, user, 3, 4)
                result = runner.run(store.append(subject, batch))
                if by_session:
                    runner.run(store.merge(session, user))
                plain.post(subject, batch)
                record = runner.run(store.read(user, MODEL))
                plain.check(record, limit=4)
                if foreseen is not None and not by_session and foreseen.same_as(result.version, result.seen_stamp):
                    assert foreseen == record
                known = runner.run(store.read_if_changed(user, MODEL, record))
                assert known is None or not record.version

        check()
        runner.run(store.close())


def test_merged_entries_add_up_their_counts_and_keep_their_newest_time(shared_valkey: Valkey) -> None:
    with asyncio.Runner() as runner:
        store = runner.run(Store.connect(config(shared_valkey)))

        @settings(max_examples=60, deadline=None)
        @given(st.lists(entry, max_size=12), st.sampled_from([1, 2]), st.lists(st.sampled_from("abz"), max_size=6))
        def check(stored: list[Entry], version: int, items: list[str]) -> None:
            stored = [(item, second, count if version == 2 else 1) for item, second, count in stored]
            user = Subject("user", uuid.uuid4().hex)
            runner.run(store.append(user, [view(item, n) for n, item in enumerate("abc")]))
            (key,) = store._calls.keys(user, "seen")
            runner.run(store._link.command("SET", key, packed(stored, version), timeout_s=2))
            before = runner.run(store.read(user, MODEL))
            assert listed(before.seen) == by_item_plainly(stored)

            batch = [view(item, 5 + n) for n, item in enumerate(items)]
            foreseen = extended(before, batch, user, 3, 4)
            runner.run(store.append(user, batch))
            after = runner.run(store.read(user, MODEL))
            left = [(item, T // 1000 + n, 1) for n, item in enumerate("abc")][: len(items)]
            left += [(item, T // 1000 + 5 + n, 1) for n, item in enumerate(items[: max(0, len(items) - 3)])]
            expected = by_item_plainly([*stored, *left])
            merged = bool(left) and len(stored) + len(left) > entries_max(4)
            assert listed(after.seen) == (expected[-4:] if merged else expected)
            assert foreseen == (None if merged else after)
            if left:
                assert runner.run(store._link.command("GETRANGE", key, 0, 0, timeout_s=2)) == b"2"

        check()
        runner.run(store.close())


def test_what_was_added_after_an_earlier_reading_is_everything_where_entries_were_merged() -> None:
    earlier = SeenItems.unpack(packed([("a", 1, 1), ("b", 2, 3)], 2))
    later = SeenItems.unpack(packed([("a", 1, 1), ("b", 2, 3), ("c", 3, 1)], 2))
    merged = SeenItems.unpack(packed([("b", 2, 3), ("c", 3, 1)], 2))
    assert (later.since(earlier).item_ids(), later.since(earlier).count) == (["c"], 1)
    assert later.since(NOTHING_SEEN) == later and merged.since(earlier) == merged
    assert (later.since(later).entries, later.since(later).count) == (b"", 0)


def test_a_damaged_entry_is_passed_over() -> None:
    value = (
        b"2"
        + b"f" * 16
        + b"000004"
        + b"00000001a\x1f"
        + b"nonsense\x1f"
        + b"00000002b\x1e\x1f"
        + b"00000003\xff\x1e7\x1f"
    )
    assert listed(SeenItems.unpack(value)) == [("a", 1, 1), ("\ufffd", 3, 7)]


@asynchronous
async def test_a_value_is_bounded_however_many_items_are_seen(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey, seen_max=100))
    foreseen = 0
    record = UserRecord("", ())
    for first in range(0, 2000, 10):
        batch = [view(str(n), n) for n in range(first, first + 10)]
        here = extended(record, batch, USER, 3, 100)
        await store.append(USER, batch)
        record = await store.read(USER, MODEL)
        assert record.seen.count <= 125
        assert here in (None, record)
        foreseen += here is not None
    assert set(record.seen.item_ids()) >= {str(n) for n in range(2000 - 3 - 100, 2000 - 3)}
    assert foreseen > 100, "a full memory is merged now and then, not at every event"
    await store.close()


@asynchronous
async def test_an_event_too_old_for_a_full_log_is_remembered_and_changes_the_stamp_alone(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey))
    await store.append(USER, [view(item, n) for n, item in enumerate("abc")])
    before = await store.read(USER, MODEL)
    result = await store.append(USER, [view("old", -5)])
    after = await store.read_if_changed(USER, MODEL, before)
    assert before.seen == NOTHING_SEEN
    assert after is not None and (after.version, kept(after)) == (before.version, ["a", "b", "c"])
    assert after.seen.item_ids() == ["old"] and after.seen.stamp == result.seen_stamp != ""
    assert await store.read_if_changed(USER, MODEL, after) is None
    await store.close()


@asynchronous
async def test_a_merge_takes_what_the_session_remembers_along(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey, seen_max=10))
    await store.append(USER, [view(item, n) for n, item in enumerate("abcd")])
    await store.append(SESSION, [view(item, 10 + n) for n, item in enumerate("efghi")])
    assert await store.merge(SESSION, USER) == 3
    record = await store.read(USER, MODEL)
    assert kept(record) == ["g", "h", "i"]
    assert set(record.seen.item_ids()) == set("abcdef")
    assert (await store.read(SESSION, MODEL)) == UserRecord("", ())
    await store.close()


@asynchronous
async def test_what_is_remembered_is_erased_and_expires_with_the_log(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey))
    await store.append(USER, [view(item, n) for n, item in enumerate("abcde")])
    (key,) = store._calls.keys(USER, "seen")
    await store._link.command("EXPIRE", key, 10, timeout_s=2)
    await store.append(USER, [view("e", 4)])  # a duplicate, and still a sign of life
    assert await store._link.command("TTL", key, timeout_s=2) > 900
    assert await store.erase(USER) == 3  # log, version, seen items
    assert await store.read(USER, MODEL) == UserRecord("", ())
    await store.close()


@pytest.mark.parametrize("value", ["3" + "0" * 40, "", "1", "1" + "f" * 16 + "abcdef", "nonsense"])
@asynchronous
async def test_a_value_of_another_format_counts_as_empty_and_is_replaced(shared_valkey: Valkey, value: str) -> None:
    store = await Store.connect(config(shared_valkey))
    await store.append(USER, [view(item, n) for n, item in enumerate("abc")])
    await store._link.command("SET", *store._calls.keys(USER, "seen"), value, timeout_s=2)
    record = await store.read(USER, MODEL)
    assert (record.seen.item_ids(), kept(record)) == ([], ["a", "b", "c"])
    await store.append(USER, [view("d", 5)])
    assert (await store.read(USER, MODEL)).seen.item_ids() == ["a"]
    await store.close()


@asynchronous
async def test_nothing_is_remembered_where_the_limit_is_0(shared_valkey: Valkey) -> None:
    store = await Store.connect(config(shared_valkey, seen_max=0))
    await store.append(USER, [view(item, n) for n, item in enumerate("abcde")])
    record = await store.read(USER, MODEL)
    assert (kept(record), record.seen) == (["c", "d", "e"], SeenItems())
    await store.close()
