"""The loop marks nothing before it is stored, whatever fails, and stays within one batch while it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from service.common.errors import StoreUnavailable
from service.intake.intake import Intake
from service.intake.intake_metrics import IntakeMetrics
from service.intake.records import DeliveryFailed, Outgoing, Record
from service.schemas.parsing import parse
from service.schemas.user_requests import MAX_EVENTS, Event, EventsRequest
from tests.support.aio import asynchronous

BAD = b"bad"


class World:
    """Topic, store and dead-letter topic as one fake; `fails` is how the next calls end, `leaves` what is revoked."""

    def __init__(self, values: Sequence[bytes], *, batch: int = 4, fails: Sequence[bool] = ()) -> None:
        self.log = [Record("t", n % 2, n // 2, None, value, None, claim=0) for n, value in enumerate(values)]
        self.batch, self.fails = batch, list(fails)
        self.claims = {0: 0, 1: 0}
        self.leaves: dict[int, int] = {}
        self.too_large = False
        self.stop = asyncio.Event()
        self.at = self.holds = 0
        self.happened: list[tuple[str, Any]] = []

    def intake(self, patience_s: float = 0.0, **more: Any) -> Intake:
        return Intake(
            self, self, self, IntakeMetrics(CollectorRegistry()), dead_letter_topic="dead",
            latest_ms=lambda: 2 * 10**12, bytes_max=10**6, stop_patience_s=patience_s, **more,
        )  # fmt: skip

    def of(self, kind: str) -> list[Any]:
        return [what for one, what in self.happened if one == kind]

    # Source
    async def take(self) -> list[Record]:
        taken = self.log[self.at : self.at + self.batch]
        self.at += len(taken)
        if not taken:
            self.stop.set()
        return taken

    async def hold(self, seconds: float) -> None:
        assert 0 < seconds <= 2.0
        self.holds += 1
        if (partition := self.leaves.pop(self.holds, None)) is not None:
            self.claims[partition] += 1
        await asyncio.sleep(0)

    async def go_on(self) -> None:
        self.happened.append(("go_on", None))

    def owned(self, records: Sequence[Record]) -> list[Record]:
        return [record for record in records if self.claims[record.partition] == record.claim]

    def stored(self, records: Sequence[Record]) -> None:
        self.happened += [("marked", record) for record in records]

    # Ingest
    def parse(self, raw: bytes, latest_ms: int) -> EventsRequest:
        return parse(EventsRequest, raw, latest_ms=latest_ms)

    def parse_event(self, raw: bytes, latest_ms: int) -> Event:
        return parse(Event, raw, latest_ms=latest_ms)

    async def append(self, request: EventsRequest) -> dict[str, Any]:
        assert len(request.events) <= MAX_EVENTS
        if self.fails and self.fails.pop(0):
            raise StoreUnavailable("away")
        self.happened += [("stored", event.item_id) for event in request.events]
        return {"accepted": len(request.events), "duplicates": 0}

    # Sender
    async def send(self, messages: Sequence[Outgoing]) -> None:
        if self.fails and self.fails.pop(0):
            raise DeliveryFailed("away")
        if self.too_large and any(message.value for message in messages):
            raise DeliveryFailed("too large", too_large=True)
        self.happened += [("buried", message) for message in messages]


def event(name: str) -> bytes:
    return orjson.dumps({"user_id": "u", "item_id": name, "type": "view", "timestamp": 10**12})


@given(
    kinds=st.lists(st.booleans(), max_size=20),
    batch=st.integers(1, 7),
    fails=st.lists(st.booleans(), max_size=12),
)
def test_whatever_fails_everything_is_done_in_order_and_marked_only_then(
    kinds: list[bool], batch: int, fails: list[bool]
) -> None:
    world = World([event(str(n)) if good else BAD for n, good in enumerate(kinds)], batch=batch, fails=fails)
    asyncio.run(world.intake().run(world.stop))
    good = [str(n) for n, kind in enumerate(kinds) if kind]
    assert list(dict.fromkeys(world.of("stored"))) == good
    assert len({dict(one.headers)["gpt4rec-offset"] + dict(one.headers)["gpt4rec-partition"]
                for one in world.of("buried")}) == kinds.count(False)  # fmt: skip
    assert world.of("marked") == world.log
    for record in world.log:
        marked = world.happened.index(("marked", record))
        if record.value != BAD:
            name = orjson.loads(record.value or b"")["item_id"]
            assert ("stored", name) in world.happened[:marked]


@asynchronous
async def test_nothing_is_read_on_while_the_store_is_away_and_reading_goes_on_afterwards() -> None:
    world = World([event(str(n)) for n in range(8)], batch=4, fails=[True, True, True])
    intake = world.intake()
    await intake.run(world.stop)
    assert world.holds == 3
    assert [kind for kind, _ in world.happened[:9]] == ["stored"] * 4 + ["go_on"] + ["marked"] * 4
    assert intake.holding_since is None


@asynchronous
async def test_messages_whose_partition_has_left_are_neither_stored_nor_marked() -> None:
    world = World([event(str(n)) for n in range(4)], fails=[True])
    world.leaves[1] = 1  # messages 1 and 3
    await world.intake().run(world.stop)
    assert world.of("stored") == ["0", "2"]
    assert [record.partition for record in world.of("marked")] == [0, 0]


@asynchronous
async def test_a_partition_that_left_and_came_back_is_read_again_not_marked() -> None:
    world = World([event(str(n)) for n in range(2)], fails=[True])
    world.leaves[1] = 0
    await world.intake().run(world.stop)
    assert [record.offset for record in world.of("marked")] == [0]  # of partition 1: the claim of 0 is a newer one
    assert world.of("marked")[0].partition == 1


@asynchronous
async def test_a_stop_leaves_the_batch_unmarked_when_the_store_stays_away() -> None:
    world = World([event("0")], fails=[True] * 1000)
    world.stop.set()
    intake = world.intake()
    await intake._work(world.log, world.stop)
    assert world.happened == []


@asynchronous
async def test_a_dead_letter_that_is_too_large_for_its_topic_goes_without_its_value() -> None:
    world = World([BAD, event("1")])
    world.too_large = True
    await world.intake().run(world.stop)
    [letter] = world.of("buried")
    assert letter.value == b""
    assert b"left out" in dict(letter.headers)["gpt4rec-value"]
    assert len(world.of("marked")) == 2


@asynchronous
async def test_a_full_message_is_appended_in_parts_as_large_as_a_body_may_be() -> None:
    body = {"events": [orjson.loads(event(str(n))) for n in range(MAX_EVENTS)]}
    world = World([orjson.dumps(body), event("last")])
    await world.intake().run(world.stop)
    assert world.of("stored") == [*(str(n) for n in range(MAX_EVENTS)), "last"]


@asynchronous
async def test_events_wait_until_those_before_them_are_recorded_so_that_none_is_dropped() -> None:
    world = World([event(str(n)) for n in range(9)], batch=9)
    looks = 0

    def recording() -> int:
        nonlocal looks
        looks += 1
        stored = len(world.of("stored"))
        assert stored in (0, 4, 8, 9)
        return 0 if stored == 0 or looks % 3 == 0 else 3

    await world.intake(recording=recording, recording_max=4).run(world.stop)
    assert world.of("stored") == [str(n) for n in range(9)]
    assert looks > 3
