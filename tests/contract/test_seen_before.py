"""Items seen in events that the history no longer keeps stay out of every list, on every rung and replica."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.schemas.user_answers import UserAnswer
from tests.support.aio import asynchronous, eventually
from tests.support.fakes import N_ITEMS, FakeEngine
from tests.support.processes import ids
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

# The history keeps 12 events. Item 39 is the model's favourite, item 0 the most popular one.
SESSION = [{"item_id": "39"}, {"item_id": "38"}]
SEEN = [str(item) for item in (*range(15), *range(30, N_ITEMS))]


async def see(service: Service, user: str = "heavy") -> None:
    """The same items in three batches, so that items leave the history of a cached profile too."""
    for n, part in enumerate((SEEN[:9], SEEN[9:18], SEEN[18:])):
        await service.post_events(user, *part, start_ms=1_700_000_000_000 + 1_000_000 * n)
        await service.recommend(user_id=user)


@pytest.mark.parametrize("rung", ["full", "narrow", "item_cf", "popular"])
@asynchronous
async def test_no_rung_lists_an_item_seen_before_the_history_begins(shared_valkey: Valkey, rung: str) -> None:
    async with serving(redis_url=shared_valkey.url, prefix=f"rung-{rung}:") as service:
        await see(service)
        service.engine.fail_full_width = rung == "narrow"
        service.engine.fail_jobs = rung == "item_cf"
        if rung == "popular":
            # No item has neighbours, so that item-CF has nothing to say.
            cf = service.runtime.space.model.fallback.item_cf
            service.engine.fail_jobs = True
            cf.neighbour[:] = -1
        answer = await service.recommend(user_id="heavy", k=N_ITEMS)
        again = await service.recommend(user_id="heavy", k=5, events=[{"item_id": "20"}], exclude=["21"])
        everything = await service.recommend(user_id="heavy", k=N_ITEMS, exclude_seen=False)
    assert answer["rung"] == rung
    assert sorted(ids(answer), key=int) == [str(item) for item in range(15, 30)]
    assert not {*SEEN, "20", "21"} & set(ids(again)) and len(ids(again)) == 5
    assert len(ids(everything)) == N_ITEMS


@asynchronous
async def test_every_replica_knows_what_another_has_stored_and_erased(shared_valkey: Valkey) -> None:
    url, prefix = shared_valkey.url, "replicas-seen:"
    async with (
        serving(redis_url=url, prefix=prefix, operator=True) as one,
        serving(redis_url=url, prefix=prefix, operator=True) as two,
    ):
        await see(one)
        assert not set(SEEN) & set(ids(await two.recommend(user_id="heavy", k=10)))
        # Older than the whole history: the log stays as it is, and the other replica has it in memory.
        await one.post_events("heavy", "25", start_ms=1_600_000_000_000)
        for service in (one, two):
            assert "25" not in ids(await service.recommend(user_id="heavy", k=N_ITEMS))
        shown = await two.client.get("/users/heavy")
        await two.client.delete("/users/heavy")

        async def forgotten() -> bool:
            return "39" in ids(await one.recommend(user_id="heavy"))

        await eventually(forgotten, within_s=10.0)
    UserAnswer.model_validate(shown.json())
    assert len(shown.json()["history"]) == 12
    assert set(shown.json()["seen_before"]) == {*SEEN, "25"} - {event["item_id"] for event in shown.json()["history"]}


@asynchronous
async def test_where_people_buy_again_lists_hold_the_history_unless_the_request_says_otherwise() -> None:
    engine = FakeEngine()
    engine.artifact = replace(engine.artifact, repeats=True)
    async with serving(engine) as service:
        lists = {
            asked: ids(
                await service.recommend(events=SESSION, k=3, **({} if asked == "left out" else {"exclude_seen": asked}))
            )
            for asked in ("left out", None, False, True)
        }
    assert lists["left out"] == lists[None] == lists[False] == ["39", "38", "37"]
    assert lists[True] == ["37", "36", "35"]


@asynchronous
async def test_elsewhere_a_request_that_does_not_say_leaves_the_history_out() -> None:
    async with serving() as service:
        assert ids(await service.recommend(events=SESSION, k=3)) == ["37", "36", "35"]
        assert ids(await service.recommend(events=SESSION, k=3, exclude_seen=None)) == ["37", "36", "35"]
        assert ids(await service.recommend(events=SESSION, k=3, exclude_seen=False)) == ["39", "38", "37"]
