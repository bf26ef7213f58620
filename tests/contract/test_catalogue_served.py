"""Stock and new items, from the file of updates to the answers of a running service."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from service.common.errors import StartupError
from service.engine.engine import Engine
from tests.support.aio import asynchronous, eventually
from tests.support.fakes import FakeEngine
from tests.support.serving import Service, serving

ALL = {"events": [{"item_id": "i3"}], "k": 60, "exclude_seen": False, "decoding": {"strategy": "beam"}}


def say(path: Path, *rows: dict[str, Any]) -> None:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


async def listed(service: Service, **body: Any) -> list[str]:
    answer = await service.recommend(**{**ALL, **body})
    assert answer["source"] == "gpt4rec"
    return [item["item_id"] for item in answer["items"]]


@asynchronous
async def test_stock_and_new_items_reach_the_lists_without_a_restart(random_artifact: Path, tmp_path: Path) -> None:
    engine = Engine.open(random_artifact, device="cpu", threads=1)
    file = tmp_path / "updates.jsonl"
    say(file, {"item_id": "i7", "in_stock": False})
    async with serving(cast("FakeEngine", engine), catalogue_updates=file) as service:
        before = await listed(service)
        assert "i7" not in before and len(before) == 39
        new = {"item_id": "fresh", "title": "A new one", "like": ["i3", "i4"]}
        say(file, {"item_id": "i8", "in_stock": False}, new)

        async def arrived() -> bool:
            return "fresh" in await listed(service)

        await eventually(arrived, within_s=20.0)
        assert len(service.runtime.space.states.cache) == 0
        after = await listed(service)
        assert "i8" not in after and "i7" in after and len(after) == len(set(after)) == 40
        assert "fresh" not in await listed(service, exclude=["fresh"])
        assert "fresh" not in await listed(service, events=[{"item_id": "fresh"}], exclude_seen=True)
        similar = (await service.client.get("/items/fresh/similar?k=3")).json()
        assert similar["items"][0]["item_id"] in ("i3", "i4")
        answer = await service.recommend(events=[{"item_id": "fresh"}], k=5)
        titles = {item["item_id"]: item["title"] for item in (await service.recommend(**ALL))["items"]}
    assert answer["source"] == "gpt4rec" and len(answer["items"]) == 5
    assert titles["fresh"] == "A new one"


@asynchronous
async def test_item_cf_takes_events_of_new_items_for_those_they_are_like(random_artifact: Path, tmp_path: Path) -> None:
    engine = Engine.open(random_artifact, device="cpu", threads=1)
    file = tmp_path / "updates.jsonl"
    say(file, {"item_id": "fresh", "title": "A new one", "like": ["i3"]})
    async with serving(cast("FakeEngine", engine), catalogue_updates=file, operator=True) as service:
        forced = {"mode": "fallback", "reason": "test"}
        assert (await service.client.put("/ops/fallback", json=forced)).status_code == 200
        new = await service.recommend(events=[{"item_id": "fresh"}], k=5)
        old = await service.recommend(events=[{"item_id": "i3"}], k=5, exclude=["fresh"])
    assert new["source"] == old["source"] == "item_cf"
    assert {item["item_id"] for item in new["items"]} - {"i3"} <= {item["item_id"] for item in old["items"]}


@asynchronous
async def test_a_missing_file_of_updates_is_said_at_the_start(random_artifact: Path, tmp_path: Path) -> None:
    engine = Engine.open(random_artifact, device="cpu", threads=1)
    with pytest.raises(StartupError, match=r"GPT4REC_CATALOGUE_UPDATES: .*an empty file is enough"):
        async with serving(cast("FakeEngine", engine), catalogue_updates=tmp_path / "none"):
            pass
