"""States that remember more than the log keeps: never rebuilt from less, whatever is late, repeated or trimmed."""

from __future__ import annotations

import bisect
import dataclasses
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from service.artifact.features import EventArrays, Vocabulary
from service.artifact.session_marks import mark_number, mark_of
from service.engine.encoder_state import EncoderState
from service.engine.jobs import EncodeJob
from service.history import state_blob
from service.history.state_blob import VersionedState
from service.metrics.service_metrics import value_of
from service.store.history_calls import CHECKPOINT
from service.store.records import Subject
from tests.support.aio import asynchronous
from tests.support.fakes import LAYOUT, FakeArtifact, FakeEngine
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

T = 1_700_000_000_000
CAP = 12
SESSIONS = 97
USER = Subject("user", "u1")
REMEMBERS = dataclasses.replace(LAYOUT, remembers_trimmed=True)


class ReadingSessions(FakeArtifact):
    """The fake artefact of a network that reads sessions."""

    @property
    def vocabulary(self) -> Vocabulary:
        return dataclasses.replace(super().vocabulary, reads_sessions=True)


class Remembering(FakeEngine):
    """The fake engine, whose states have all events in them, as the layout of one that remembers says.

    One that reads sessions counts an event as another item in another session.
    """

    def __init__(self, *, sessions: bool = False) -> None:
        super().__init__()
        self.state_layout = REMEMBERS
        if sessions:
            self.artifact = ReadingSessions(self.artifact.catalogue)

    def encode(self, jobs: Sequence[EncodeJob]) -> list[EncoderState | Exception]:
        return super().encode([dataclasses.replace(job, events=in_sessions(job.events)) for job in jobs])


def in_sessions(events: EventArrays) -> EventArrays:
    if events.session is None:
        return events
    return dataclasses.replace(events, item=events.item + events.session % SESSIONS, session=None)


def session_at(time_ms: int) -> str:
    return f"s{time_ms // 5000}"


class Everything:
    """The slow reference: all events that a state should have, in their order."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int]] = []  # time, item: no two have the same time here

    def add(self, time_ms: int, item: int) -> None:
        bisect.insort(self.events, (time_ms, item))

    @property
    def h(self) -> list[float]:
        order = 0
        for _, item in self.events:
            order = (7 * order + item + 1) % 8191
        return [len(self.events), sum(item for _, item in self.events), order, 1.0]


class Log:
    """One user's events, sent to a service and noted in the reference."""

    def __init__(self, service: Service, rng: np.random.Generator) -> None:
        self.service, self.rng, self.truth = service, rng, Everything()
        self.store = service.runtime.space.store
        self.named = isinstance(service.engine.artifact, ReadingSessions)
        self.now, self.late = T, 0.0
        self.sent: dict[int, tuple[int, int]] = {}

    def add(self, time_ms: int, item: int) -> None:
        more = mark_number(mark_of(session_at(time_ms))) % SESSIONS if self.named else 0
        self.truth.add(time_ms, item + more)

    async def post(self, *events: tuple[int, int]) -> None:
        body = [
            {"user_id": USER.id, "item_id": str(item), "type": "view", "timestamp": t, "session_id": session_at(t)}
            for t, item in events
        ]
        answer = await self.service.client.post("/events", json={"events": body})
        assert answer.status_code == 200, answer.text

    async def new(self, n: int) -> None:
        """Events that are newer than all before."""
        times = self.now + 1000 * np.arange(1, n + 1)
        self.now = int(times[-1])
        events = [(int(t), int(item)) for t, item in zip(times, self.rng.integers(0, 40, n), strict=True)]
        for event in events:
            self.add(*event)
            self.sent[event[0]] = event
        await self.post(*(events[i] for i in self.rng.permutation(n)))

    async def searches(self, n: int) -> None:
        """Searches without an item, newer than all before: they take places of the log, and no state reads them."""
        times = self.now + 1000 * np.arange(1, n + 1)
        self.now = int(times[-1])
        body = [{"user_id": USER.id, "type": "search", "timestamp": int(t), "query": f"tea {t}"} for t in times]
        assert (await self.service.client.post("/events", json={"events": body})).status_code == 200

    async def one_late(self, age: int) -> None:
        """An event between others: it is in every state from now on, or it is refused and counted."""
        newest = [t for t, _ in self.truth.events][-age:]
        event = (int(newest[0]) + int(self.rng.integers(1, 900)), int(self.rng.integers(0, 40)))
        if event in self.truth.events or any(event[0] == t for t, _ in self.truth.events):
            return
        before, kept, floor = counted(self.service, "before_checkpoint"), await self.kept(), await self.floor()
        await self.post(event)
        refused = counted(self.service, "before_checkpoint") - before
        self.late += refused
        assert refused == (event[0] <= floor), "refused without a name, or by a wrong one"
        if not refused:
            assert len(kept) < CAP or event[0] > kept[0]
            self.add(*event)
            self.sent[event[0]] = event

    async def repeated(self) -> None:
        """Events that the log has, sent again."""
        kept = set(await self.kept())
        again = [self.sent[t] for t, _ in self.truth.events if t in kept][:3]
        if again:
            await self.post(*again)

    async def kept(self) -> list[int]:
        record = await self.store.read(USER, "fake-1")
        return [event.time_ms for event in record.events]

    async def floor(self) -> float:
        return floor_of(await self.stored())

    async def stored(self) -> VersionedState | None:
        blob = await self.store.read_checkpoint(USER, "fake-1")
        return state_blob.unpack(blob, REMEMBERS)

    async def check(self) -> None:
        """A list sees all events, and so does what is stored, once all is quiet."""
        await self.service.recommend(user_id=USER.id)
        assert self.service.engine.jobs[-1].h.tolist() == self.truth.h
        await self.service.settled()
        record = await self.store.read(USER, "fake-1")
        base = state_blob.unpack(record.blob, REMEMBERS)
        assert base is not None and (base.version, base.h.tolist()) == (record.version, self.truth.h)
        checkpoint = await self.stored()
        assert floor_of(checkpoint) == max(base.since, -1.0)
        if checkpoint is not None:
            assert checkpoint.h[0] == sum(t <= checkpoint.last_score for t, _ in self.truth.events)
            assert len(record.events) < CAP or record.events[0].score <= checkpoint.last_score, "there is a gap"


def floor_of(checkpoint: VersionedState | None) -> float:
    return -1.0 if checkpoint is None else checkpoint.last_score


def counted(service: Service, outcome: str) -> float:
    return value_of(service.runtime.metrics.events.labels(outcome))


def uses(service: Service, outcome: str) -> float:
    return value_of(service.runtime.metrics.state_cache.labels("state", outcome))


@pytest.mark.parametrize("more", [False, True], ids=["events", "searches and sessions"])
@asynchronous
async def test_a_state_that_remembers_has_every_event_whatever_is_late_repeated_or_trimmed(
    shared_valkey: Valkey, more: bool
) -> None:
    resumed = late = 0.0
    for seed in range(1 if more else 3):
        rng, prefix = np.random.default_rng(seed), f"trim:{uuid.uuid4().hex}:"
        where: dict[str, Any] = {"redis_url": shared_valkey.url, "prefix": prefix}
        where |= {"history_searches": more, "history_sessions": more}
        async with serving(Remembering(sessions=more), **where) as service:
            log = Log(service, rng)
            await log.new(1)
            for _ in range(14):
                if more:
                    await log.searches(int(rng.integers(1, CAP)))
                    await log.check()
                match rng.integers(6):
                    case 0 | 1:
                        await log.new(int(rng.integers(1, 4)))
                    case 2:
                        await log.new(int(rng.integers(4, CAP)))  # more than the checkpoint leaves room for
                    case 3:
                        await log.one_late(int(rng.integers(2, 2 * CAP)))
                    case 4:
                        await log.repeated()
                    case _:  # another replica, or a restart: nothing in memory, sometimes no state either
                        service.runtime.space.states.cache.clear()
                        if rng.integers(2):
                            await drop(log, "state:fake-1")
                await log.check()
            assert uses(service, "gap") == 0
            resumed, late = resumed + uses(service, "resumed"), late + log.late
    assert resumed > (0 if more else 2) and (more or late > 1), "the seeds try too little"


async def drop(log: Log, name: str) -> None:
    settings = log.store.settings
    await log.store._link.command("DEL", f"{settings.prefix}{USER.tag}:{name}", timeout_s=2.0)


@asynchronous
async def test_events_of_a_request_count_on_top_of_what_a_state_remembers(shared_valkey: Valkey) -> None:
    async with serving(Remembering(), redis_url=shared_valkey.url, prefix="trim-inline:") as service:
        log = Log(service, np.random.default_rng(0))
        for _ in range(8):
            await log.new(3)
            await log.check()
        kept = await log.kept()
        between = [{"item_id": "5", "type": "view", "timestamp": kept[-2] + 1}]
        await service.recommend(user_id=USER.id, events=between)
        log.truth.add(kept[-2] + 1, 5)
        assert service.engine.jobs[-1].h.tolist() == log.truth.h
        assert counted(service, "inline_before_checkpoint") == 0
        too_old = [{"item_id": item, "type": "view", "timestamp": kept[0] + 1} for item in ("6", "7")]
        log.truth.events.remove((kept[-2] + 1, 5))
        await service.recommend(user_id=USER.id, events=too_old)
        assert service.engine.jobs[-1].h.tolist() == log.truth.h
        assert counted(service, "inline_before_checkpoint") == 2, "left out, and by name"
        assert counted(service, "before_checkpoint") == 0, "the log was not told of them"


@asynchronous
async def test_a_new_model_begins_with_the_log_and_keeps_what_comes_after(shared_valkey: Valkey) -> None:
    prefix = "trim-new:"
    async with serving(FakeEngine(), redis_url=shared_valkey.url, prefix=prefix) as before:
        for n in range(5):
            await before.post_events("u1", *(str(5 * n + i) for i in range(5)), start_ms=T + 5000 * n)
        await before.settled()
    async with serving(Remembering(), redis_url=shared_valkey.url, prefix=prefix) as service:
        log = Log(service, np.random.default_rng(0))
        await service.recommend(user_id="u1")
        h = service.engine.jobs[-1].h.tolist()
        assert (h[0], h[3]) == (CAP, 0.0), "the log, without a start"
        await service.settled()
        log.now = T + 100_000
        for _ in range(6):
            await log.new(3)
            await service.settled()
        service.runtime.space.states.cache.clear()
        await drop(log, "state:fake-1")
        await service.recommend(user_id="u1")
        assert service.engine.jobs[-1].h[0] == CAP + 18
        assert uses(service, "resumed") == 1 and uses(service, "gap") == 0


@asynchronous
async def test_more_events_at_once_than_a_log_keeps_leave_a_gap_that_is_counted(shared_valkey: Valkey) -> None:
    async with serving(Remembering(), redis_url=shared_valkey.url, prefix="trim-gap:") as service:
        log = Log(service, np.random.default_rng(0))
        for _ in range(6):
            await log.new(3)
            await log.check()
        checkpoint = await log.stored()
        assert checkpoint is not None
        await log.new(3 * CAP)
        await service.recommend(user_id="u1")
        assert service.engine.jobs[-1].h[0] == checkpoint.h[0] + CAP, "what it remembers, and what the log has"
        await service.settled()
        assert uses(service, "gap") == uses(service, "resumed") == 1
        after = await log.stored()
        assert after is not None and after.h[0] == checkpoint.h[0] + CAP


@asynchronous
async def test_an_erasure_deletes_the_checkpoint_and_its_floor(shared_valkey: Valkey) -> None:
    async with serving(Remembering(), redis_url=shared_valkey.url, prefix="trim-erase:") as service:
        log = Log(service, np.random.default_rng(0))
        for _ in range(5):
            await log.new(4)
            await log.check()
        pattern = f"trim-erase:{USER.tag}:*".replace("{", "\\{").replace("}", "\\}")
        link = log.store._link
        names = {key.decode().rpartition("}:")[2] for key in await link.command("KEYS", pattern, timeout_s=2.0)}
        assert {"floor", "state:fake-1", f"state:fake-1{CHECKPOINT}"} <= names
        ttl = {
            name: await link.command("PTTL", f"trim-erase:{USER.tag}:{name}", timeout_s=2.0)
            for name in ("events", "floor", f"state:fake-1{CHECKPOINT}", "states")
        }
        assert min(ttl.values()) > 0.99 * ttl["events"], "a checkpoint lives as long as the log"
        await drop(log, "states")  # the list of what there is to delete may be lost
        await log.store.erase(USER)
        assert await link.command("KEYS", pattern, timeout_s=2.0) == []
        log.truth.events.clear()
        await log.new(2)
        await log.check()


@pytest.mark.parametrize("remembers", [True, False])
@asynchronous
async def test_only_states_that_remember_have_checkpoints(shared_valkey: Valkey, remembers: bool) -> None:
    engine = Remembering() if remembers else FakeEngine()
    prefix = f"trim-{remembers}:"
    async with serving(engine, redis_url=shared_valkey.url, prefix=prefix) as service:
        for n in range(4):
            await service.post_events("u1", *(str(n + i) for i in range(5)), start_ms=T + 5000 * n)
            await service.settled()
        store = service.runtime.space.store
        assert (await store.read_checkpoint(USER, "fake-1") is not None) == remembers
        floor = await store._link.command("EXISTS", f"{prefix}{USER.tag}:floor", timeout_s=2.0)
        assert floor == int(remembers)


@asynchronous
async def test_where_h_alone_is_stored_every_event_is_encoded_from_the_checkpoint(shared_valkey: Valkey) -> None:
    async with serving(Remembering(), redis_url=shared_valkey.url, prefix="trim-h:", state="h_only") as service:
        log = Log(service, np.random.default_rng(0))
        for _ in range(8):
            await log.new(3)
            await log.check()
        assert uses(service, "resumed") > 4 and uses(service, "gap") == 0


@asynchronous
async def test_the_session_of_an_event_stays_with_it_through_a_merge_and_is_read_only_where_it_is_kept(
    shared_valkey: Valkey,
) -> None:
    for kept in (True, False):
        prefix = f"marks:{uuid.uuid4().hex}:"
        where: dict[str, Any] = {"redis_url": shared_valkey.url, "prefix": prefix, "history_sessions": kept}
        async with serving(Remembering(sessions=True), **where) as service:
            body = [
                {"item_id": str(n), "type": "view", "timestamp": T + n, **ids}
                for n, ids in enumerate(({"session_id": "a"}, {"session_id": "a"}))
            ] + [
                {"user_id": "u1", "item_id": str(n), "type": "view", "timestamp": T + n, **more}
                for n, more in ((2, {"session_id": "b"}), (3, {}))
            ]
            assert (await service.client.post("/events", json={"events": body})).status_code == 200
            assert (await service.client.post("/events", json={"events": body})).json()["duplicates"] == 4
            merged = await service.client.post("/sessions/merge", json={"session_id": "a", "user_id": "u1"})
            assert merged.json()["merged"] == 2
            events = (await service.runtime.space.store.read(USER, "fake-1")).events
            marks = [mark_of("a"), mark_of("a"), mark_of("b"), ""] if kept else [""] * 4
            assert [(event.item_id, event.session) for event in events] == list(zip("0123", marks, strict=True))
            await service.recommend(user_id="u1")
            wanted = Everything()
            for n, mark in enumerate(marks):
                wanted.add(n, n + mark_number(mark) % SESSIONS)
            assert service.engine.jobs[-1].h.tolist() == wanted.h
