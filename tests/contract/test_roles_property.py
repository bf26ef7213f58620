"""Whatever becomes of the entries of the stream, each log is encoded as it is.

Events come late and twice, entries are repeated, given to somebody who dies, taken over after newer ones, and users are
erased meanwhile. When the stream is empty, the stored state of each log is the one that a full encode of it gives.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from service.history import state_blob
from service.history.profile import Profile, pending_encoding
from service.history.profile_cache import ProfileCache
from service.history.state_keeper import StateKeeper
from service.history.state_writer import StateWriter
from service.history.stream_encoder import StreamEncoder
from service.history.write_queue import WriteQueue
from service.metrics.encode_metrics import EncodeMetrics
from service.metrics.service_metrics import Metrics
from service.store.records import Subject
from service.store.streams.encode_stream import Handed
from tests.support.fakes import LAYOUT, add
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

CAP, SHARDS, T = 12, 2, 1_700_000_000_000
PATIENCE_S = 0.001

user = st.integers(0, 2)
Step = tuple[Any, ...]
steps = st.lists(
    st.one_of(
        # Events with times of their own: late ones, ones of the same time, and the same ones again.
        st.tuples(st.just("events"), user, st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1)),
        st.tuples(st.just("again"), user),  # an entry that was there before
        st.tuples(st.just("turn"), st.integers(0, 1)),
        st.tuples(st.just("die"), st.integers(0, 1)),  # with what it was given
        st.tuples(st.just("take over"), st.integers(0, 1)),
        st.tuples(st.just("erase"), user),
    ),
    min_size=4,
    max_size=20,
)
names = (f"example{n}" for n in itertools.count())


def encoder(service: Service, number: int) -> StreamEncoder:
    space, metrics, queue = service.runtime.space, Metrics(), WriteQueue(64)
    keeper = StateKeeper(space.store, metrics, ProfileCache(1 << 20), queue, history_cap=CAP, catch_up_s=10.0)
    return StreamEncoder(
        space.store.encoding,
        keeper,
        StateWriter(keeper, space.store, metrics),
        queue,
        lambda _: space.model,
        EncodeMetrics(CollectorRegistry()),
        consumer=f"encoder-{number}",
        shards=SHARDS,
        batch_max=64,
        poll_s=0.001,
        patience_s=PATIENCE_S,
    )


async def run(service: Service, taken_steps: Sequence[Step]) -> None:
    space, example = service.runtime.space, next(names)
    stream, encoders = space.store.encoding, [encoder(service, n) for n in range(2)]
    subjects = [Subject("user", f"{example}-{n}") for n in range(3)]
    for what, which, *more in taken_steps:
        match what:
            case "events":
                events = [
                    {
                        "user_id": subjects[which].id,
                        "item_id": str(item),
                        "type": "view",
                        "timestamp": T + 1000 * time,
                        "event_id": f"{item}-{time}",
                    }
                    for item, time in more[0]
                ]
                assert (await service.client.post("/events", json={"events": events})).status_code == 200
                await service.settled()
            case "again":
                await stream.hand_over([Handed(subjects[which], "0" * 16)], shards=SHARDS, cap=1000)
            case "turn":
                await encoders[which].turn(await stream.read(range(SHARDS), f"encoder-{which}", 3))
            case "die":
                await stream.read(range(SHARDS), f"encoder-{which}", 3)
                encoders[which] = encoder(service, which)
            case "take over":
                found, _ = await stream.take_over(range(SHARDS), f"encoder-{which}", 3, PATIENCE_S)
                await encoders[which].turn(found)
            case "erase":
                assert (await service.client.delete(f"/users/{subjects[which].id}")).status_code == 200
    while (await stream.backlog(range(SHARDS))).entries:
        found, _ = await stream.take_over(range(SHARDS), "encoder-0", 10, PATIENCE_S)
        await encoders[0].turn(found or await stream.read(range(SHARDS), "encoder-0", 10))
    for subject in subjects:
        await holds_the_state_of_its_log(service, subject)


async def holds_the_state_of_its_log(service: Service, subject: Subject) -> None:
    space = service.runtime.space
    record = await space.store.read(subject, space.model.encoder_version.name, 5.0)
    if not record.events:
        assert record.blob is None
        assert not record.version
        return
    state = state_blob.unpack(record.blob, LAYOUT)
    assert state is not None
    assert state.version == record.version
    profile = Profile.of(subject, space.model, record)
    whole = pending_encoding(profile, profile.history, history_cap=CAP, from_state=False)
    assert whole is not None
    if len(record.events) < CAP:  # of a log that was trimmed, this engine's states count more than the log keeps
        np.testing.assert_array_equal(state.h, add(None, whole.events, from_start=whole.from_start).h)


def test_the_stored_state_is_that_of_the_log_whatever_becomes_of_the_entries(shared_valkey: Valkey) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        service = runner.run(
            stack.enter_async_context(
                serving(
                    redis_url=shared_valkey.url, prefix="roles-p:", role="answer", encode_shards=SHARDS, operator=True
                )
            )
        )

        @settings(max_examples=10)
        @given(steps)
        @example([("events", 0, [(1, 1)]), ("turn", 0), ("events", 0, [(2, 2), (3, 0)])])
        @example([("events", 0, [(1, 5)]), ("die", 0), ("events", 0, [(2, 1)]), ("turn", 1), ("take over", 0)])
        @example([("events", 1, [(1, 5)]), ("die", 0), ("erase", 1), ("events", 1, [(1, 5)]), ("again", 1)])
        def holds(taken_steps: Sequence[Step]) -> None:
            runner.run(run(service, taken_steps))

        try:
            holds()
        finally:
            runner.run(stack.aclose())
