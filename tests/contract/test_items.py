"""Items over HTTP: what is stored, shown, found, refused and told, and how it reaches lists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import orjson
import pytest

from service.access import keys
from service.catalogue import item_views
from service.engine.engine import Engine
from service.schemas import item_answers as out
from tests.support.aio import asynchronous, eventually
from tests.support.fakes import FakeEngine
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

ALL = {"events": [{"item_id": "i3"}], "k": 60, "exclude_seen": False, "decoding": {"strategy": "beam"}}
NEW = {"title": "A new one", "category": ["Fashion > Women > Shoes"], "price": 19.9, "currency": "EUR", "stock": 3,
       "image": "/i.png", "url": "https://shop/x", "attributes": ["local"], "like": ["i3", "i4"]}  # fmt: skip


@asynccontextmanager
async def shop(valkey: Valkey, prefix: str, artifact: Path | None = None, **settings: Any) -> AsyncIterator[Service]:
    engine = None if artifact is None else cast("FakeEngine", Engine.open(artifact, device="cpu", threads=1))
    async with serving(engine, redis_url=valkey.url, prefix=prefix, operator=True, **settings) as service:
        yield service


async def put(service: Service, item_id: str, **fields: Any) -> dict[str, Any]:
    answer = await service.client.put(f"/items/{item_id}", json=fields)
    assert answer.status_code == 200, answer.text
    out.ItemChanged.model_validate(answer.json())
    return cast("dict[str, Any]", answer.json())


async def get(service: Service, item_id: str) -> dict[str, Any]:
    answer = await service.client.get(f"/items/{item_id}")
    assert answer.status_code == 200, answer.text
    out.ItemAnswer.model_validate(answer.json())
    return cast("dict[str, Any]", answer.json())


async def listed(service: Service) -> list[str]:
    answer = await service.recommend(**ALL)
    assert answer["source"] == "gpt4rec"
    return [item["item_id"] for item in answer["items"]]


async def until(service: Service, item_id: str, *, there: bool) -> None:
    async def settled() -> bool:
        return (item_id in await listed(service)) == there

    await eventually(settled, within_s=20.0)


@asynchronous
async def test_an_item_is_stored_changed_disabled_and_deleted(valkey: Valkey) -> None:
    async with shop(valkey, "items-one:") as service:
        made = await put(service, "n1", **NEW)
        assert made["outcome"] == "created" and not made["disabled"]
        assert (await put(service, "n1", **NEW))["outcome"] == "unchanged"
        shown = await get(service, "n1")
        assert shown["stored"].items() >= NEW.items() and shown["version"] == made["version"]
        assert shown["item"]["price"] == 19.9 and shown["placed_by"] is None and not shown["listed"]
        patched = await service.client.patch("/items/n1", json={"price": 9.5, "stock": None, "brand": "Acme"})
        assert patched.json()["outcome"] == "updated" and patched.json()["version"] > made["version"]
        stored = (await get(service, "n1"))["stored"]
        assert stored["price"] == 9.5 and stored["brand"] == "Acme" and "stock" not in stored and stored["title"]
        disabled = (await service.client.post("/items/n1/disable")).json()
        assert disabled["disabled"]
        assert (await put(service, "n1", **NEW))["disabled"], "a new description does not enable an item"
        assert not (await service.client.post("/items/n1/enable")).json()["disabled"]
        assert (await service.client.delete("/items/n1")).json()["outcome"] == "deleted"
        assert (await service.client.get("/items/n1")).status_code == 404
        assert (await service.client.delete("/items/n1")).status_code == 404
        log = (await service.client.get("/ops/items/changes?item_id=n1")).json()
        out.ItemLogAnswer.model_validate(log)
        assert [(e["action"], e["outcome"]) for e in log["entries"]] == [
            ("delete", "deleted"), ("enable", "updated"), ("put", "updated"), ("disable", "updated"),
            ("put", "updated"), ("put", "created"),
        ]  # fmt: skip
        assert {e["actor"] for e in log["entries"]} == {"tester"} and log["entries"][-1]["fields"] == sorted(NEW)


@asynchronous
async def test_a_change_may_ask_for_a_version(valkey: Valkey) -> None:
    async with shop(valkey, "items-version:") as service:
        assert (await service.client.put("/items/a?if_version=0", json={"title": "A"})).status_code == 200
        again = await service.client.put("/items/a?if_version=0", json={"title": "B"})
        version = (await get(service, "a"))["version"]
        assert again.status_code == 409 and str(version) in again.json()["detail"]
        assert (await service.client.patch(f"/items/a?if_version={version}", json={"price": 1})).status_code == 200
        late = await service.client.patch(f"/items/a?if_version={version}", json={"price": 2})
        assert late.status_code == 409
        answers = await asyncio.gather(
            *(service.client.patch("/items/a", json={"attributes": [str(n)]}) for n in range(8))
        )
        assert {answer.status_code for answer in answers} <= {200, 409}
        assert (await get(service, "a"))["stored"]["title"] == "A"


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"price": -1}, "price"),
        ({"currency": "eur"}, "currency"),
        ({"stock": 1.5}, "stock"),
        ({"image": "javascript:alert(1)"}, "image"),
        ({"colour": "red"}, "colour"),
        ({"vector": []}, "vector"),
        ({"valid_from": "2026-01-02T00:00:00Z", "valid_until": "2026-01-01T00:00:00Z"}, "valid_until"),
        ({"category": [[]]}, "category"),
        ({"attributes": ["x" * 4096] * 9}, "larger than"),
    ],
)
@asynchronous
async def test_what_is_not_valid_is_refused_by_name(shared_valkey: Valkey, fields: dict[str, Any], where: str) -> None:
    async with shop(shared_valkey, "items-invalid:") as service:
        answer = await service.client.put("/items/a", json=fields)
        assert answer.status_code == 422 and where in answer.text


@asynchronous
async def test_a_patch_that_does_not_fit_what_is_stored_is_refused_and_changes_nothing(valkey: Valkey) -> None:
    async with shop(valkey, "items-patches:") as service:
        await put(service, "5", valid_until="2020-01-01T00:00:00Z", title="Over")
        before = await get(service, "5")
        answer = await service.client.patch("/items/5", json={"valid_from": "2030-01-01T00:00:00Z"})
        assert answer.status_code == 422 and "valid_until must be later than valid_from" in answer.text
        line = {"item_id": "5", "op": "patch", "valid_from": "2030-01-01T00:00:00Z"}
        report = (await service.client.post("/items", content=orjson.dumps(line))).json()
        assert report["counts"] == {"refused": 1} and "valid_until" in report["lines"][0]["error"]
        assert (await get(service, "5"))["stored"] == before["stored"]


@asynchronous
async def test_ids_that_hold_slashes_and_words_of_routes_are_told_apart(valkey: Valkey) -> None:
    async with shop(valkey, "items-slashes:") as service:
        client = service.client

        async def asked(method: str, path: str, **more: Any) -> httpx.Response:
            return await client.request(method, httpx.URL("http://test").copy_with(raw_path=path.encode()), **more)

        for item_id in ("a/b", "a/similar", "similar", "disable", "import", "changes", "a/disable", "%2F", "ä b"):
            quoted = "".join(f"%{byte:02X}" for byte in item_id.encode())
            path = f"/items/{quoted}"
            assert (await asked("PUT", path, json={"title": item_id})).status_code == 200, item_id
            shown = await asked("GET", path)
            assert shown.status_code == 200 and shown.json()["item_id"] == item_id
            assert (await asked("POST", f"{path}/disable")).json()["item_id"] == item_id
            assert (await asked("POST", f"{path}/enable")).json()["item_id"] == item_id
        for item_id in ("similar", "disable"):  # as clients write them: their letters need no quotes
            assert (await asked("GET", f"/items/{item_id}")).json()["item_id"] == item_id
            assert (await asked("PATCH", f"/v1/items/{item_id}", json={"price": 2.0})).status_code == 200
            assert (await asked("POST", f"/items/{item_id}/disable")).json()["item_id"] == item_id
        # A plain word behind an id names something of the item.
        assert (await asked("GET", "/items/1/similar")).json()["items"]
        assert (await asked("GET", "/items/a%2Fsimilar/similar")).status_code == 404  # not in the catalogue
        assert (await asked("PUT", "/items/1/similar", json={})).status_code == 405
        assert (await asked("GET", "/items/1/disable")).status_code == 405
        # A plain slash elsewhere is one of the id, as it is in `/items/{item_id}/similar`.
        assert (await asked("GET", "/items/a/b")).json()["item_id"] == "a/b"
        ids = [item["item_id"] for item in (await client.get("/items?limit=200")).json()["items"]]
        assert {"a/b", "a/similar", "similar", "1"} <= set(ids)


@asynchronous
async def test_an_import_reports_on_each_line(valkey: Valkey) -> None:
    lines = [
        b'{"item_id": "a", "title": "A"}',
        b"",
        b'{"item_id": "b", "price": -1}',
        b"{",
        b'{"item_id": "a", "op": "patch", "price": 5}',
        b'{"item_id": "a", "op": "patch", "title": null, "if_version": 7}',
        b'{"item_id": "c", "op": "delete"}',
        b'{"item_id": "a", "op": "disable"}',
        b'{"item_id": "a", "op": "enable", "title": "x"}',
        b'{"title": "no id"}',
    ]
    async with shop(valkey, "items-import:") as service:
        answer = await service.client.post("/items", content=b"\n".join(lines))
        assert answer.status_code == 200, answer.text
        out.ImportAnswer.model_validate(answer.json())
        told = [(line["line"], line["item_id"], line["outcome"]) for line in answer.json()["lines"]]
        assert told == [
            (1, "a", "created"), (3, None, "refused"), (4, None, "refused"), (5, "a", "updated"),
            (6, "a", "conflict"), (7, "c", "missing"), (8, "a", "updated"), (9, None, "refused"), (10, None, "refused"),
        ]  # fmt: skip
        assert answer.json()["counts"] == {"created": 1, "refused": 4, "updated": 2, "conflict": 1, "missing": 1}
        stored = await get(service, "a")
        assert stored["stored"]["title"] == "A" and stored["stored"]["price"] == 5 and stored["disabled"]
        many = b"\n".join(orjson.dumps({"item_id": f"m{n}", "title": f"Lamp {n}"}) for n in range(700))
        answer = await service.client.post("/items", content=many)
        assert answer.json()["counts"] == {"created": 700}
        assert (await service.client.post("/items", content=b"{}\n" * 10_001)).status_code == 422


@asynchronous
async def test_pages_show_every_item_once_and_search_finds_by_typos(valkey: Valkey) -> None:
    async with shop(valkey, "items-pages:") as service:
        lines = b"\n".join(orjson.dumps({"item_id": f"lamp{n:02}", "title": f"Lamp {n}"}) for n in range(12))
        assert (await service.client.post("/items", content=lines)).status_code == 200

        async def copied() -> bool:
            return len(service.runtime.space.items.live.records) == 12

        await eventually(copied, within_s=10.0)
        seen: list[str] = []
        cursor: str | None = None
        while cursor is not None or not seen:
            more = "" if cursor is None else f"&cursor={cursor}"
            page = (await service.client.get(f"/items?limit=7{more}")).json()
            out.ItemsAnswer.model_validate(page)
            seen += [item["item_id"] for item in page["items"]]
            cursor = page["cursor"]
        assert seen[:12] == [f"lamp{n:02}" for n in range(12)] and len(seen) == len(set(seen)) == 12 + 40
        for cursor in ("x", "e30", page["cursor"] or "WzEsbnVsbCwwLCJvdGhlciJd"):
            assert (await service.client.get("/items", params={"cursor": cursor})).status_code == 422
        found = (await service.client.get("/items", params={"q": "lmap 7"})).json()["items"]
        assert [item["item_id"] for item in found] == ["lamp07"]
        exported = (await service.client.get("/items", params={"q": "titel 39", "listed": True})).json()["items"]
        assert exported[0]["item_id"] == "39" and exported[0]["listed"]


@asynchronous
async def test_a_page_looks_at_so_many_items_and_the_next_goes_on(
    shared_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_views, "_LOOKED_AT_MAX", 5)
    async with shop(shared_valkey, "items-unlisted:") as service:
        lines = b"\n".join(orjson.dumps({"item_id": f"{n}", "op": "disable"}) for n in range(12))
        assert (await service.client.post("/items", content=lines)).status_code == 200

        async def copied() -> bool:
            return len(service.runtime.space.items.live.records) == 12

        await eventually(copied, within_s=10.0)
        pages, cursor = list[list[str]](), cast("str | None", "")
        while cursor is not None:
            asked = {"listed": "true", **({"cursor": cursor} if cursor else {})}
            page = (await service.client.get("/items", params=asked)).json()
            pages.append([item["item_id"] for item in page["items"]])
            cursor = page["cursor"]
        assert all(len(page) <= 5 for page in pages)
        assert [item for page in pages for item in page] == [str(n) for n in range(12, 40)]


@asynchronous
async def test_who_may_change_items(shared_valkey: Valkey) -> None:
    entries = f"{keys.entry('shop', 's1')},{keys.entry('feed', 's2', items=True)},both:s3:users:items"
    async with serving(
        redis_url=shared_valkey.url, prefix="items-rights:", api_keys=entries, ops_tokens="alice:token"
    ) as service:
        for secret, status in (("s1", 403), ("s2", 200), ("s3", 200), ("token", 200), ("none", 401)):
            headers = {"Authorization": f"Bearer {secret}"}
            assert (await service.client.put("/items/a", json={"title": secret}, headers=headers)).status_code == status
        reads = await service.client.get("/items/a", headers={"X-API-Key": "s1"})
        assert reads.status_code == 200
        log = await service.client.get("/ops/items/changes", headers={"Authorization": "Bearer token"})
        assert [entry["actor"] for entry in log.json()["entries"]] == ["alice", "both", "feed"]
    async with serving(redis_url=shared_valkey.url, prefix="items-open:") as service:
        assert (await service.client.put("/items/a", json={})).status_code == 403
        assert (await service.client.get("/items/1")).status_code == 200


@asynchronous
async def test_without_redis_nothing_is_changed_and_reads_say_what_they_know() -> None:
    async with serving(operator=True) as service:
        answer = await service.client.put("/items/a", json={"title": "A"})
        assert answer.status_code == 503 and answer.headers["retry-after"]
        assert (await service.client.post("/items", content=b'{"item_id": "a"}')).status_code == 503
        shown = await get(service, "1")
        assert shown["item"]["title"] == "Title 1" and "Redis cannot be used" in shown["warnings"][0]
        assert len((await service.client.get("/items?q=title")).json()["items"]) == 40
        changes = (await service.client.get("/ops/items/changes")).json()
        assert changes["entries"] == [] and "Redis cannot be used" in changes["fault"]


@asynchronous
async def test_no_more_items_are_stored_than_the_setting_allows(valkey: Valkey) -> None:
    async with shop(valkey, "items-full:", items_max=2) as service:
        await put(service, "a", title="A")
        await put(service, "b", title="B")
        answer = await service.client.put("/items/c", json={"title": "C"})
        assert answer.status_code == 409 and "GPT4REC_ITEMS_MAX" in answer.json()["detail"]
        await put(service, "a", title="A2")
        assert (await service.client.delete("/items/a")).status_code == 200
        await put(service, "c", title="C")


@asynchronous
async def test_stored_items_reach_the_lists_of_every_replica(valkey: Valkey, random_artifact: Path) -> None:
    async with (
        shop(valkey, "items-lists:", random_artifact) as one,
        shop(valkey, "items-lists:", random_artifact) as other,
    ):
        await put(one, "i7", title="Renamed", category=["Fashion > Women > Shoes"])
        await put(one, "fresh", **NEW)
        for service in (one, other):
            await until(service, "fresh", there=True)
            shown = await get(service, "fresh")
            assert shown["listed"] and shown["placed_by"] == "like"
            answer = await service.recommend(**ALL)
            titles = {item["item_id"]: item["title"] for item in answer["items"]}
            assert titles["fresh"] == "A new one" and titles["i7"] == "Renamed"
        shoes = await one.recommend(**ALL, filter={"category": ["Shoes"]})
        assert {item["item_id"] for item in shoes["items"]} == {"fresh", "i7"}
        for item_id in ("fresh", "i8"):
            assert (await other.client.post(f"/items/{item_id}/disable")).status_code == 200
            for service in (one, other):
                await until(service, item_id, there=False)
        assert (await one.client.post("/items/i8/enable")).status_code == 200
        assert (await one.client.delete("/items/i7")).status_code == 200
        await until(other, "i8", there=True)
        async with shop(valkey, "items-lists:", random_artifact) as restarted:
            names = await listed(restarted)
            assert "fresh" not in names and "i8" in names
            shown = await get(restarted, "fresh")
            assert shown["disabled"] and not shown["listed"]
        # Without its record an exported item is as it was exported.
        assert (await get(one, "i7"))["item"].get("title") != "Renamed"
        assert (await other.client.delete("/items/fresh")).status_code == 200
        for service in (one, other):

            async def away(service: Service = service) -> bool:
                return (await service.client.get("/items/fresh")).status_code == 404

            await eventually(away, within_s=10.0)
            assert not (await service.client.get("/items?q=A new one")).json()["items"]
            assert "fresh" not in str((await service.client.get("/items?limit=200")).json())


@asynchronous
async def test_a_vector_is_no_place_unless_an_exported_item_has_one_like_it(
    valkey: Valkey, random_artifact: Path
) -> None:
    async with shop(valkey, "items-vector:", random_artifact) as service:
        told = "nothing known places this item"
        assert told in (await put(service, "n1", vector=[1.0, 0.0]))["warnings"][0]
        await put(service, "i3", vector=[0.5, 0.5])

        async def known() -> bool:
            return "i3" in service.runtime.space.items.live.records

        await eventually(known, within_s=20.0)
        assert (await put(service, "n2", vector=[1.0, 0.0]))["warnings"] == []
        for strange in ([1.0, 0.0, 0.0], [-1.0, 0.0], [0.0, 0.0]):
            assert told in (await put(service, "n3", vector=strange))["warnings"][0]
