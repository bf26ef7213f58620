"""What is in one basket with an item, and what goes with a basket: with a table and without, for a user and nobody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from service.artifact.artifact import Artifact
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.engine.engine import Engine
from service.schemas.list_answers import BasketAnswer, TogetherAnswer
from tests.support.aio import asynchronous
from tests.support.artifacts import random_parts, write_artifact
from tests.support.fakes import N_ITEMS, FakeEngine
from tests.support.processes import ids
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey


def table() -> NeighbourTable:
    """Item i is in baskets with items i + 10, i + 20 and i + 5; items from 30 on are in none."""
    i = np.arange(N_ITEMS)
    neighbour = np.stack([(i + step) % N_ITEMS for step in (10, 20, 5)], axis=1).astype(np.int32)
    similarity = np.tile(np.array([0.5, 0.25, 0.125], np.float32), (N_ITEMS, 1))
    similarity[30:] = 0
    return NeighbourTable(neighbour, similarity, 1.0, 100)


def engine(out_of_stock: frozenset[int] = frozenset()) -> FakeEngine:
    found = FakeEngine(out_of_stock)
    found.artifact = replace(found.artifact, together=table())
    return found


async def basket(service: Service, *items: str, **more: Any) -> dict[str, Any]:
    answer = await service.client.post("/baskets/recommend", json={"items": list(items), **more})
    assert answer.status_code == 200, answer.text
    BasketAnswer.model_validate(answer.json())
    found: dict[str, Any] = answer.json()
    return found


@asynchronous
async def test_items_bought_together_come_from_baskets_or_say_why_not() -> None:
    async with serving(engine(frozenset({20}))) as service:
        found = (await service.client.get("/items/0/together?k=5")).json()
        alone = (await service.client.get("/items/35/together")).json()
        unknown = await service.client.get("/items/nope/together")
    TogetherAnswer.model_validate(found)
    assert (ids(found), found["source"], found["warnings"]) == (["10", "5"], "baskets", [])
    assert [item["score"] for item in found["items"]] == [0.5, 0.125]
    assert (ids(alone), alone["source"]) == (["36", "37"], "item_cf")
    assert "no basket of the data" in alone["warnings"][0]
    assert unknown.status_code == 404
    async with serving() as service:
        before = (await service.client.get("/items/0/together")).json()
        similar = (await service.client.get("/items/0/similar")).json()
    assert (before["items"], before["source"]) == (similar["items"], "item_cf")
    assert "exported before" in before["warnings"][0]


@asynchronous
async def test_what_goes_with_a_basket_is_ranked_by_the_model_with_and_without_a_user(shared_valkey: Valkey) -> None:
    async with serving(engine(), redis_url=shared_valkey.url, prefix="baskets:", operator=True) as service:
        await service.post_events("u", "20", "3")
        alone = await basket(service, "0", "1", k=4)
        mine = await basket(service, "0", "1", k=6, user_id="u")
        new = await basket(service, "0", "1", k=6, user_id="u", exclude_seen=True)
        history = service.engine.jobs[-1].h
        shown = (await service.client.get("/users/u")).json()["history"]
    # The fake model ranks by index, of what is in baskets with items 0 and 1: 5, 6, 10, 11, 20 and 21.
    assert (ids(alone), alone["found_by"], alone["rung"], alone["user_id"]) == (
        ["21", "20", "11", "10"],
        "baskets",
        "full",
        None,
    )
    assert ids(mine) == ["21", "20", "11", "10", "6", "5"]
    assert ids(new) == ["21", "11", "10", "6", "5"]
    assert float(history[0]) == 4, "the basket is part of the history, for this answer"
    assert [event["item_id"] for event in shown] == ["20", "3"], "nothing of it is stored"


@asynchronous
async def test_a_list_for_a_basket_is_filled_up_and_keeps_filter_and_exclusions() -> None:
    async with serving(engine()) as service:
        few = await basket(service, "0", k=8, filter={"category": ["Sci-Fi"]}, exclude=["2"])
        none = await basket(service, "35", k=3)
        strange = await basket(service, "nope", k=3)
        nothing = await basket(service, "0", filter={"category": ["nothing"]})
        explained = await basket(service, "0", k=2, explain=True)
    assert len(few["items"]) == 8 and few["found_by"] == "baskets"
    assert all(int(item) % 4 == 2 and item != "2" for item in ids(few))
    assert (len(none["items"]), none["found_by"]) == (3, "item_cf") and "35" not in ids(none)
    assert (len(strange["items"]), strange["found_by"]) == (3, "popular")
    assert "the catalogue does not have these items of the basket: nope" in strange["warnings"]
    assert (nothing["items"], nothing["reason"]) == ([], "not_enough_items")
    assert all("because" in item for item in explained["items"])


@asynchronous
async def test_without_redis_and_without_the_model_baskets_are_answered() -> None:
    broken = engine()
    broken.fail_jobs = True
    async with serving(broken) as service:
        answer = await basket(service, "0", "1", k=3, user_id="u")
    assert (len(answer["items"]), answer["found_by"]) == (3, "baskets")
    assert answer["rung"] in ("item_cf", "popular")


@pytest.mark.parametrize(
    "body",
    [
        {}, {"items": []}, {"items": ["x"] * 101}, {"items": ["0"], "k": 0}, {"items": [""]}, {"items": ["0"], "x": 1},
        {"items": ["0"], "filter": {"shape": ["round"]}},
    ],
)  # fmt: skip
@asynchronous
async def test_a_basket_that_is_none_is_refused(body: Any) -> None:
    async with serving(engine()) as service:
        answer = await service.client.post("/baskets/recommend", json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


@asynchronous
async def test_an_artefact_keeps_what_is_together(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path, replace(random_parts(), together=table()))
    opened = Engine(Artifact.open(folder), device="cpu")
    try:
        async with serving(cast("Any", opened)) as service:
            found = (await service.client.get("/items/i0/together")).json()
            answer = await basket(service, "i0", "i1", k=3)
    finally:
        opened.close()
    assert (ids(found), found["source"]) == (["i10", "i20", "i5"], "baskets")
    assert (answer["source"], answer["found_by"], answer["strategy"]) == ("gpt4rec", "baskets", "greedy")
    assert set(ids(answer)) <= {"i10", "i20", "i5", "i11", "i21", "i6"}
