"""What is shown and done over HTTP is watched."""

from __future__ import annotations

import uuid

from service.metrics.service_metrics import value_of
from tests.support.aio import asynchronous
from tests.support.serving import serving
from tests.support.valkey import Valkey


@asynchronous
async def test_lists_and_events_of_the_service_are_in_its_figures(shared_valkey: Valkey) -> None:
    prefix = f"{uuid.uuid4().hex}:"
    async with serving(redis_url=shared_valkey.url, prefix=prefix) as service:
        await service.recommend(user_id="new", k=4)
        await service.post_events("u", "39", "38", "gone")
        answer = await service.recommend(user_id="u", k=4, exclude_seen=False)
        followed = {"user_id": "u", "item_id": answer["items"][0]["item_id"], "type": "click"}
        body = {"events": [{**followed, "timestamp": 1_700_000_100_000, "list_id": answer["list_id"]}]}
        assert (await service.client.post("/events", json=body)).status_code == 200
        watch = service.runtime.space.watch
        watch.note()
        found = watch.summary()
        assert (found["lists"], found["events"], found["baseline"]) == (2, 4, "missing")
        # The fake model lists from the highest index down: 39, 38, 37, 36, of which the user had seen two.
        assert found["figures"]["coverage"] == 4 / 40
        assert found["figures"]["repeats"] == 2 / 8
        assert found["figures"]["new_users"] == 0.5
        assert found["figures"]["unknown_items"] == 0.25
        assert service.runtime.console.figures()["watch"] == found
        segment = answer["segment"]
        assert value_of(service.runtime.metrics.watch.shown_items, segment, "tail") >= 4


@asynchronous
async def test_the_watch_can_be_switched_off(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix=f"{uuid.uuid4().hex}:", watch=False) as service:
        await service.recommend(user_id="u", k=4)
        assert service.runtime.space.watch.summary() == {}
