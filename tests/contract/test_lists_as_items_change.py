"""What stable lists, named items and pages make of items that come and go while they are served."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import orjson

from service.engine.engine import Engine
from tests.support.aio import asynchronous, eventually
from tests.support.fakes import FakeEngine
from tests.support.processes import ids
from tests.support.serving import serving
from tests.support.valkey import Valkey

HISTORY = [{"item_id": "i3", "timestamp": 1_700_000_000_000}]
DRAWN: dict[str, Any] = {
    "events": HISTORY, "k": 60, "exclude_seen": False, "seed": 4, "budget_ms": 30_000,
    "decoding": {"strategy": "temperature", "temperature": 2.0},
}  # fmt: skip


@asynchronous
async def test_items_that_come_and_go_leave_all_others_where_they_were(
    shared_valkey: Valkey, random_artifact: Path, tmp_path: Path
) -> None:
    engine = Engine.open(random_artifact, device="cpu", threads=1)
    file = tmp_path / "updates.jsonl"
    file.write_bytes(b"")
    url = shared_valkey.url
    async with serving(cast("FakeEngine", engine), redis_url=url, prefix="come:", catalogue_updates=file) as service:
        drawn = await service.recommend(**DRAWN)
        assert (drawn["source"], drawn["strategy"]) == ("gpt4rec", "temperature")
        before = ids(drawn)
        first = await service.recommend(user_id="u", k=5, page=True, decoding={"strategy": "beam"})
        tail = ids(await service.recommend(cursor=first["cursor"], k=100))
        changes = [{"item_id": tail[1], "in_stock": False}, {"item_id": "fresh", "like": ["i3", "i4"]}]
        file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in changes))

        async def arrived() -> bool:
            return "fresh" in ids(await service.recommend(**DRAWN))

        await eventually(arrived, within_s=20.0)
        after = ids(await service.recommend(**DRAWN))
        left = ids(await service.recommend(cursor=first["cursor"], k=100))
        asked: dict[str, Any] = {"events": HISTORY, "exclude_seen": False, "budget_ms": 30_000}
        whole = await service.recommend(**asked, k=60, decoding={"strategy": "beam"})
        named = [*ids(whole)[::-1], "fresh", tail[1]]
        ranked = await service.recommend(**asked, candidates=named)
        goes = (await service.client.get("/items/fresh/together?k=3")).json()
    assert [item for item in after if item != "fresh"] == [item for item in before if item != tail[1]]
    assert left == [item for item in tail if item != tail[1]], "no gap but what was forbidden, and nothing new"
    assert ids(ranked) == ids(whole) and "fresh" in ids(ranked), "a new item is ranked among the others"
    assert ranked["source"] == "gpt4rec" and any(tail[1] in text for text in ranked["warnings"])
    assert goes["source"] == "item_cf" and goes["items"]
