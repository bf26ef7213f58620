"""Something deprecated works as before: its answers say until when, and a metric says who still uses it."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from importlib import metadata
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.access.keys import entry
from service.app import create_app
from service.schemas.deprecations import DEPRECATIONS, AnswerField, BodyField, Deprecated, Deprecations, Operation
from service.schemas.list_answers import SimilarAnswer
from service.schemas.recommend_request import RecommendRequest
from service.schemas.user_requests import Event
from service.settings.service_settings import Settings
from tests.support.aio import asynchronous
from tests.support.fakes import FakeEngine, away_store
from tests.support.openapi import document

SCENE = Deprecated(
    name="recommend.scene",
    what=BodyField(RecommendRequest, "scene"),
    since=date(2027, 1, 1),
    sunset=date(2027, 7, 1),
    declared_in="1.4.0",
    removed_in="1.6.0",
    instead="Use `context`.",
)
VALUE = replace(
    SCENE, name="event.value", what=BodyField(Event, "value"), since=date(2027, 2, 1), sunset=date(2027, 6, 1)
)
SIMILAR = replace(
    SCENE, name="similar", what=Operation("GET", "/items/{item_id}/similar"), page="https://shop.example/api"
)
K = replace(SCENE, name="similar.k", what=Operation("GET", "/items/{item_id}/similar", query="k"))
UNVERSIONED = replace(SCENE, name="unversioned.version", what=Operation("GET", "/version", version=""))
SOURCE = replace(
    SIMILAR, name="similar.source", what=AnswerField(SimilarAnswer, "source", "GET", "/items/{item_id}/similar")
)
BODY = {"events": [{"item_id": "3"}], "k": 3}
EVENT = {"user_id": "u", "item_id": "3", "type": "view", "timestamp": 1_700_000_000}


class Asked:
    """A service with entries in its registry, and what was asked of it."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient) -> None:
        self.app, self.client = app, client

    async def counts(self) -> dict[tuple[str, str], float]:
        """Uses by what and by caller."""
        text = (await self.client.get("/metrics")).text
        found = re.findall(r'gpt4rec_deprecated_uses_total\{caller="(.*?)",what="(.*?)"\} (.*)', text)
        return {(what, caller): float(count) for caller, what, count in found}


def application(*entries: Deprecated, **settings: Any) -> FastAPI:
    patient = {"deadline_ms": 2000.0, "deadline_max_ms": 60_000.0, "fallback_reserve_ms": 100.0, "exposures": False}
    given = Settings.model_validate({**patient, **settings})
    return create_app(given, engine=FakeEngine(), store=away_store(), deprecations=Deprecations(entries))


@asynchronous
async def test_a_request_that_uses_a_deprecated_member_is_told_and_counted() -> None:
    keys = ",".join(entry(name, f"{name}-secret") for name in ("shop", "app"))
    app = application(SCENE, api_keys=keys, ops_tokens=entry("alice", "alice-secret"), root_path="/rec")
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        for secret, body in (
            ("shop", {"scene": "home"}),
            ("shop", {"scene": None}),
            ("app", {}),
            ("alice", {"scene": "x"}),
        ):
            headers = {"X-API-Key": f"{secret}-secret"}
            answer = await client.post("/v1/recommend", json={**BODY, **body}, headers=headers)
            assert answer.status_code == 200
            assert len(answer.json()["items"]) == 3
            if body:
                assert answer.headers["deprecation"] == "@1798761600"
                assert answer.headers["sunset"] == "Thu, 01 Jul 2027 00:00:00 GMT"
                assert answer.headers["link"] == '</rec/v1/docs>; rel="deprecation"; type="text/html"'
            else:
                assert not {"deprecation", "sunset", "link"} & set(answer.headers)
        refused = await client.post("/v1/recommend", json={**BODY, "scene": "home"})
        assert (refused.status_code, "deprecation" in refused.headers) == (401, False), "its body was not read"
        assert await Asked(app, client).counts() == {("recommend.scene", "shop"): 2, ("recommend.scene", "alice"): 1}


@asynchronous
async def test_operations_parameters_and_nested_members_are_told_too_and_the_earliest_dates() -> None:
    app = application(SCENE, VALUE, SIMILAR, SOURCE, K, UNVERSIONED)
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        plain, with_k = [await client.get(f"/items/3/similar{query}") for query in ("", "?k=3")]
        assert plain.headers.get_list("link") == ['<https://shop.example/api>; rel="deprecation"; type="text/html"']
        assert with_k.headers.get_list("link") == [
            *plain.headers.get_list("link"),
            '</docs>; rel="deprecation"; type="text/html"',
        ]
        head = await client.head("/items/3/similar")
        assert head.headers["deprecation"] == plain.headers["deprecation"]
        old, new = [await client.get(path) for path in ("/version", "/v1/version")]
        assert ("deprecation" in old.headers, "deprecation" in new.headers) == (True, False)
        # Redis is away, and a batch that is not stored still says what it used.
        batch = await client.post("/events", json={"events": [EVENT, {**EVENT, "value": 1.0}]})
        assert (batch.status_code, batch.headers["sunset"]) == (503, "Tue, 01 Jun 2027 00:00:00 GMT")
        counts = await Asked(app, client).counts()
    once = {("similar.k", ""): 1, ("unversioned.version", ""): 1, ("event.value", ""): 1}
    assert counts == {("similar", ""): 3, ("similar.source", ""): 3, **once}


@asynchronous
async def test_nothing_is_told_or_counted_where_nothing_is_deprecated() -> None:
    app = application()
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        answer = await client.post("/recommend", json={**BODY, "scene": "home"})
        assert answer.status_code == 200 and "deprecation" not in answer.headers
        assert await Asked(app, client).counts() == {}


def test_the_document_marks_what_is_deprecated() -> None:
    found = document(Deprecations([SCENE, SIMILAR, SOURCE, K, UNVERSIONED]))
    schemas = found["components"]["schemas"]
    for kind in ("UserId", "SessionId", "Events"):
        scene = schemas[f"RecommendRequestWith{kind}"]["properties"]["scene"]
        assert scene["deprecated"] is True
        assert scene["description"].endswith(
            "Deprecated since 1.4.0; works until 2027-07-01 and is removed in 1.6.0. Use `context`."
        )
    similar = found["paths"]["/items/{item_id}/similar"]["get"]
    assert similar["deprecated"] is True
    assert [one["name"] for one in similar["parameters"] if one.get("deprecated")] == ["k"]
    assert schemas["SimilarAnswer"]["properties"]["source"]["deprecated"] is True
    assert "deprecated" not in found["paths"]["/version"]["get"], "only its path without a version is"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"removed_in": "1.5.0"}, "too soon after 1.4.0; it has to work for 2 releases"),
        ({"removed_in": "0.9.0"}, "too soon"),
        ({"removed_in": "soon"}, "'soon' is not a release"),
        ({"sunset": date(2027, 1, 1)}, "set a later `sunset`"),
        ({"name": ""}, "1 to 64 characters"),
    ],
)
def test_an_entry_that_would_surprise_callers_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(SCENE, **changed)
    assert replace(SCENE, removed_in="2.0.0").removed_in == "2.0.0"


def test_an_entry_of_something_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="RecommendRequest has no member colour"):
        Deprecations([replace(SCENE, what=BodyField(RecommendRequest, "colour"))])
    with pytest.raises(ValueError, match="two entries of the registry of deprecations have one name"):
        Deprecations([SCENE, SCENE])
    with pytest.raises(ValueError, match="gone is deprecated, but not in the OpenAPI document"):
        document(Deprecations([replace(SCENE, name="gone", what=Operation("GET", "/gone"))]))


def test_nothing_is_kept_longer_than_its_entry_says() -> None:
    now = tuple(int(part) for part in metadata.version("gpt4rec").split(".")[:2])
    for one in DEPRECATIONS.entries:
        assert now < tuple(int(part) for part in one.removed_in.split(".")[:2]), f"remove {one.name}, and its entry"
