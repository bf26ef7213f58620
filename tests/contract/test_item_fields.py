"""The fields of items in filters and answers, and the windows outside which items are not listed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from service.engine.engine import Engine
from service.schemas.list_answers import RecommendAnswer, SimilarAnswer
from tests.support.aio import asynchronous, eventually
from tests.support.fakes import FakeEngine
from tests.support.processes import ids
from tests.support.serving import Service, serving

ALL = {"events": [{"item_id": "i3"}], "k": 60, "exclude_seen": False, "decoding": {"strategy": "beam"}}
ROWS: list[dict[str, Any]] = [
    {
        "item_id": "i1", "category": ["Fashion > Women > Shoes"], "brand": "acme", "price": 49.9, "currency": "EUR",
        "stock": 3, "image": "https://cdn/i1.jpg", "url": "/p/i1", "attributes": ["red", "wide"],
    },
    {"item_id": "i2", "category": [["Sports", "Running", "Shoes"]], "brand": "acme", "price": 120},
    {"item_id": "i3", "category": ["Fashion > Women", "Sale > Shoes"], "brand": "other", "price": 10},
    {"item_id": "i4", "price": 5, "stock": 0},
    {"item_id": "i5", "price": 5, "valid_until": "2020-01-01T00:00:00Z"},
    {"item_id": "n1", "title": "New", "category": ["Fashion > Women > Shoes"], "price": 60, "like": ["i1"]},
]  # fmt: skip


def say(path: Path, *rows: dict[str, Any]) -> None:
    path.with_suffix(".new").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    path.with_suffix(".new").rename(path)


@asynccontextmanager
async def shop(artifact: Path, file: Path, *more: dict[str, Any]) -> AsyncIterator[Service]:
    say(file, *ROWS, *more)
    engine = Engine.open(artifact, device="cpu", threads=1)
    async with serving(cast("FakeEngine", engine), catalogue_updates=file) as service:
        yield service


@asynchronous
async def test_filters_speak_paths_ranges_sets_and_negation(random_artifact: Path, tmp_path: Path) -> None:
    wanted: list[tuple[dict[str, Any], set[str]]] = [
        ({"category": ["Fashion > Women > Shoes"]}, {"i1", "n1"}),
        ({"category": [["Fashion", "Women"]]}, {"i1", "i3", "n1"}),
        ({"category": ["Shoes"]}, {"i1", "i2", "i3", "n1"}),
        ({"category": {"any": ["Shoes"], "none": ["Sports > Running"]}}, {"i1", "i3", "n1"}),
        ({"category": {"all": ["Fashion > Women", "Shoes"]}, "brand": ["acme", "other"]}, {"i1", "i3"}),
        ({"price": {"gte": 10, "lt": 60}}, {"i1", "i3"}),
        ({"price": {"gt": 10}, "brand": {"none": ["acme"]}}, {"n1"}),
        ({"stock": {"gte": 1}}, {"i1"}),
        ({"currency": ["EUR"], "attribute": {"all": ["red", "wide"]}}, {"i1"}),
        ({"price": {"lte": 5}}, set()),
    ]
    async with shop(random_artifact, tmp_path / "updates.jsonl") as service:
        for condition, expected in wanted:
            answer = await service.recommend(**ALL, filter=condition)
            assert answer["source"] == "gpt4rec" and answer["warnings"] == []
            assert set(ids(answer)) == expected, condition
        everything = await service.recommend(**ALL)
        unknown = await service.recommend(
            **ALL, filter={"category": {"none": ["Shoes > Fashion", "Shoes"]}, "price": {"gte": 1000}}
        )
    assert len(ids(everything)) == 39, "one has no stock and the time of one is over"
    assert {"i4", "i5"}.isdisjoint(ids(everything))
    assert ids(unknown) == [] and unknown["warnings"] == [
        "no item of the catalogue has these values of the filter: category=Shoes > Fashion, price gte 1000"
    ]


@asynchronous
async def test_answers_show_the_fields_that_were_asked_for(random_artifact: Path, tmp_path: Path) -> None:
    every = [
        "title", "category", "paths", "brand", "attributes", "price", "currency", "stock", "image", "url", "valid_from",
        "valid_until",
    ]  # fmt: skip
    window = {"item_id": "i6", "valid_from": 1_600_000_000, "valid_until": "2100-01-01T01:00:00+01:00"}
    async with shop(random_artifact, tmp_path / "updates.jsonl", window) as service:
        narrow = {**ALL, "filter": {"category": ["Fashion > Women > Shoes"]}}
        plain = await service.recommend(**narrow)
        some = await service.recommend(**narrow, fields=["price", "image"])
        none = await service.recommend(**narrow, fields=[])
        full = await service.recommend(**{**ALL, "explain": True}, fields=every)
        similar = await service.client.get("/items/i1/similar", params={"k": 39, "fields": "price,title,url"})
        together = await service.client.get("/items/i1/together", params={"k": 3, "fields": "price"})
        basket = await service.client.post(
            "/baskets/recommend",
            json={"items": ["i3"], "k": 2, "filter": {"category": [["Fashion", "Women"]]}, "fields": ["price"]},
        )
        default = await service.client.get("/items/i1/similar", params={"k": 1})
        bad = await service.client.get("/items/i1/similar", params={"fields": "title,colour"})
    assert [set(item) for item in plain["items"]] == [{"item_id", "rank", "score", "title"}] * 2
    assert {item["item_id"]: (item["price"], item["image"]) for item in some["items"]} == {
        "i1": (49.9, "https://cdn/i1.jpg"), "n1": (60.0, None),
    }  # fmt: skip
    assert (
        "title" not in some["items"][0] and [set(item) for item in none["items"]] == [{"item_id", "rank", "score"}] * 2
    )
    RecommendAnswer.model_validate(full)
    shown = {item.pop("item_id"): item for item in full["items"]}
    assert {name: shown["i1"][name] for name in every} == {
        "title": "Item 1", "category": ["Fashion", "Women", "Shoes"], "paths": ["Fashion > Women > Shoes"],
        "brand": "acme", "attributes": ["red", "wide"], "price": 49.9, "currency": "EUR", "stock": 3,
        "image": "https://cdn/i1.jpg", "url": "/p/i1", "valid_from": None, "valid_until": None,
    }  # fmt: skip
    assert shown["i6"]["valid_from"] == "2020-09-13T12:26:40.000Z"
    assert shown["i6"]["valid_until"] == "2100-01-01T00:00:00.000Z"
    assert shown["n1"]["title"] == "New" and shown["n1"]["because"] is not None
    SimilarAnswer.model_validate(similar.json())
    assert set(similar.json()["items"][0]) == {"item_id", "rank", "score", "title", "price", "url"}
    assert set(default.json()["items"][0]) == {"item_id", "rank", "score", "title"}
    assert bad.status_code == 422
    short = frozenset({"item_id", "rank", "score", "price"})
    assert {frozenset(item) for item in together.json()["items"]} == {short}
    assert {frozenset(item) for item in basket.json()["items"]} == {short}
    assert {item["item_id"] for item in basket.json()["items"]} <= {"i1", "n1"}


@asynchronous
async def test_a_window_opens_and_closes_while_the_service_runs(random_artifact: Path, tmp_path: Path) -> None:
    soon = time.time() + 0.5
    opens, closes = {"item_id": "i7", "valid_from": soon}, {"item_id": "i8", "valid_until": soon}
    async with shop(random_artifact, tmp_path / "updates.jsonl", opens, closes) as service:

        async def turned() -> bool:
            listed = set(ids(await service.recommend(**ALL)))
            return "i7" in listed and "i8" not in listed

        await eventually(turned, within_s=20.0)


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"filter": {"colour": ["red"]}}, ["filter"]),
        ({"filter": {"price": ["10"]}}, ["filter"]),
        ({"filter": {"brand": {"gte": 1}}}, ["filter"]),
        ({"filter": {"brand": {"any": ["a"], "gte": 1}}}, ["filter", "brand"]),
        ({"filter": {"brand": {}}}, ["filter", "brand"]),
        ({"filter": {"brand": "acme"}}, ["filter", "brand"]),
        ({"filter": {"brand": [3]}}, ["filter", "brand", 0]),
        ({"filter": {"category": [["a", ""]]}}, ["filter", "category", 0, 1]),
        ({"filter": {"price": {"gte": "10"}}}, ["filter", "price", "gte"]),
        ({"filter": {"attribute": {"all": ["a"] * 17}}}, ["filter", "attribute", "all"]),
        ({"fields": ["titel"]}, ["fields", 0]),
    ],
)
@asynchronous
async def test_what_cannot_be_meant_is_refused_in_its_place(body: dict[str, Any], loc: list[str | int]) -> None:
    async with serving() as service:
        answer = await service.client.post("/recommend", json={"user_id": "u", **body})
    assert answer.status_code == 422
    assert [fault["loc"] for fault in answer.json()["errors"]] == [loc]
