"""What a change of policies would do, tried on the requests that were answered last."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import uuid4

from tests.support.aio import asynchronous
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

T = 1_700_000_000_000
BEAM = {"strategy": "beam", "beam_width": 5}


def policies(**segment: Any) -> dict[str, Any]:
    return {"segments": [{"name": "all", "decoding": BEAM, **segment}], "default": "all"}


def opened(valkey: Valkey) -> AbstractAsyncContextManager[Service]:
    return serving(redis_url=valkey.url, prefix=f"{uuid4().hex}:", operator=True, deadline_ms=30_000.0)


async def asked(service: Service, *users: str) -> None:
    for user in users:
        body = {"user_id": user, "events": [{"item_id": "1", "timestamp": T}], "k": 3}
        assert (await service.client.post("/recommend", json=body)).json()["rung"] == "full"


async def preview(service: Service, new: dict[str, Any]) -> dict[str, Any]:
    answer = await service.client.put("/ops/policies?dry_run=true", json=new)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@asynchronous
async def test_a_preview_says_which_recent_lists_would_change_and_changes_nothing(shared_valkey: Valkey) -> None:
    async with serving(
        redis_url=shared_valkey.url, prefix=f"{uuid4().hex}:", operator=True, deadline_ms=30_000.0
    ) as service:
        before = (await service.client.get("/ops/policies")).json()
        assert (await preview(service, policies()))["would"] == ["no recent request of this replica to try it on"]
        await service.client.put("/ops/policies", json=policies())
        await asked(service, "u1", "u2")
        same = await preview(service, policies())
        assert (same["tried"], same["changed"], same["examples"]) == (2, 0, [])
        first = (await service.client.post("/recommend", json={"user_id": "u1", "k": 3})).json()["items"][0]["item_id"]
        pinned = {"name": "sale", "kind": "pin", "item": "5", "position": 1}
        moved = await preview(service, {**policies(rules=[pinned]), "reason": "a sale"})
        assert moved["tried"] == 3
        assert moved["changed"] == moved["first_changed"] == 3
        model = service.runtime.space.model
        assert first != "5"
        title = model.catalogue.title(model.vocabulary.item_index["5"])
        assert [one["first"][1] for one in moved["examples"]] == [[title]] * 3
        assert moved["segments"] == [{"before": "all", "after": "all", "lists": 3}]
        assert (await service.client.get("/ops/policies")).json()["segments"] != before["segments"]


@asynchronous
async def test_the_requests_of_an_erased_user_are_not_tried_any_more(shared_valkey: Valkey) -> None:
    async with serving(
        redis_url=shared_valkey.url, prefix=f"{uuid4().hex}:", operator=True, deadline_ms=30_000.0
    ) as service:
        await asked(service, "u1", "u1", "u2")
        assert (await preview(service, policies()))["tried"] == 3
        await service.client.delete("/users/u1")
        assert (await preview(service, policies()))["tried"] == 1


@asynchronous
async def test_policies_that_are_not_valid_are_refused_by_a_preview_too() -> None:
    async with serving(operator=True) as service:
        answer = await service.client.put("/ops/policies?dry_run=true", json={"segments": [], "default": "x"})
        assert answer.status_code == 422
