"""What a service adds to the scores of items for a user: from the log and what was seen before it, alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from service.signals.item_values import ItemValues
from service.signals.ranker import Ranker
from service.signals.user_history import UserHistory
from tests.support.aio import asynchronous
from tests.support.fakes import FakeEngine
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

START_MS = 1_700_000_000_000
# Thirty events a second apart, some items more than once; "900" is no item of the catalogue. The log keeps twelve.
_PLACES = (3, 7, 3, 9, 900, 12, 7, 30, 31, 3, 14, 15, 9, 2, 6, 5, 3, 8, 7, 25, 24, 9, 1, 900, 4, 0, 7, 39, 11, 3)
ITEMS = [str(item) for item in _PLACES]


def engine() -> FakeEngine:
    weighted = FakeEngine()
    weighted.artifact = replace(weighted.artifact, weights={"item_cf": 2.0, "repeat": 1.0})
    return weighted


def expected() -> ItemValues:
    """What evaluation makes of the same log."""
    artifact = engine().artifact
    items = np.array([min(40, int(item)) for item in ITEMS], np.int64)
    times = START_MS + 1000 * np.arange(len(items), dtype=np.int64)
    ranker = Ranker.of(artifact.signals, artifact.ranker)
    return ranker.user(UserHistory.of(items, times, kept=12))


async def send(service: Service, *places: int) -> None:
    events = [
        {"user_id": "u", "item_id": ITEMS[place], "type": "view", "timestamp": START_MS + 1000 * place}
        for place in places
    ]
    assert (await service.client.post("/events", json={"events": events})).status_code == 200


async def signals(service: Service, **body: Any) -> tuple[bytes, bytes]:
    await service.recommend(user_id="u", **body)
    found = service.engine.jobs[-1].request.signals.unpacked()
    return found.items.tobytes(), found.values.tobytes()


@asynchronous
async def test_late_events_erasures_and_new_replicas_give_the_signals_of_a_fresh_start(shared_valkey: Valkey) -> None:
    wanted = expected().items.tobytes(), expected().values.tobytes()
    url, prefix = shared_valkey.url, "user-signals:"
    async with serving(engine(), redis_url=url, prefix=prefix, operator=True) as service:
        for places in (range(4), range(8, 20), range(22, 30)):
            await send(service, *places)
            await service.recommend(user_id="u")
        await send(service, 5, 21, 4, 20, 7)  # late: some within the log, some older than all that it keeps
        await send(service, 6)
        assert await signals(service) == wanted
        assert await signals(service) == wanted
        async with serving(engine(), redis_url=url, prefix=prefix) as other:
            assert await signals(other) == wanted
        await service.client.delete("/users/u")
        assert (await signals(service))[0] == b""
        await send(service, *range(30))
        assert await signals(service) == wanted


@asynchronous
async def test_events_of_a_request_count_for_its_signals_alone(shared_valkey: Valkey) -> None:
    async with serving(engine(), redis_url=shared_valkey.url, prefix="inline-signals:") as service:
        await send(service, *range(29))
        last = {"item_id": ITEMS[29], "type": "view", "timestamp": START_MS + 29_000}
        before = await signals(service)
        await service.recommend(user_id="u", events=[last])
        inline = service.engine.jobs[-1].request.signals.unpacked()
        assert (inline.items.tobytes(), inline.values.tobytes()) == (
            expected().items.tobytes(),
            expected().values.tobytes(),
        )
        assert await signals(service) == before


@asynchronous
async def test_a_value_is_the_same_whatever_the_list_may_hold(shared_valkey: Valkey) -> None:
    async with serving(engine(), redis_url=shared_valkey.url, prefix="filtered-signals:") as service:
        await send(service, *range(30))
        every = await signals(service)
        assert await signals(service, filter={"category": ["War"]}) == every
        assert await signals(service, exclude=["4", "5"], exclude_seen=False) == every
        cache = service.runtime.space.states.cache
        assert cache.nbytes == cache.profiles()[0].nbytes, "what a profile has computed counts as its memory"


@asynchronous
async def test_nothing_is_computed_where_no_signal_has_a_weight(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="no-signals:") as service:
        await send(service, *range(29))
        assert await signals(service) == (b"", b"")
        request = service.engine.jobs[-1].request
        assert (request.weights, request.group) == (None, 0)
        profile = service.runtime.space.states.cache.profiles()[0]
        assert "_seen_before" not in profile.__dict__
