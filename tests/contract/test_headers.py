"""What browsers are told: safe headers on every answer, other origins, and the pages of the API."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest

from service.common.errors import ServiceError
from service.history.ingest import Ingest
from tests.support.aio import asynchronous
from tests.support.serving import serving

ORIGIN = "https://shop.example"
BODY = {"events": [{"item_id": "1"}]}


@asynchronous
async def test_every_answer_carries_the_safe_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(operator=True, playground=True) as service:

        async def broken(*_: object) -> None:
            raise RuntimeError("a fault")

        monkeypatch.setattr(Ingest, "merge", broken)
        answers = [
            await service.client.post("/recommend", json=BODY),
            await service.client.post("/recommend", content=b"{"),
            await service.client.post("/sessions/merge", json={"session_id": "s", "user_id": "u"}),
            await service.client.get("/users/u1"),
            *[await service.client.get(path) for path in ("/healthz", "/metrics", "/docs", "/openapi.json", "/nope",
                                                          "/ops/fallback", "/playground", "/assets/base.css")],
            await service.client.delete("/recommend"),
        ]  # fmt: skip
    assert {answer.status_code for answer in answers} >= {200, 400, 404, 405, 500, 503}
    for answer in answers:
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"], answer.request.url
        assert answer.headers["referrer-policy"] == "no-referrer"
        if answer.request.method != "POST":
            assert len(answer.headers.get_list("content-security-policy")) == 1
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert len(answer.headers.get_list("cache-control")) == 1
    user = next(answer for answer in answers if "/users/" in str(answer.request.url))
    assert user.headers["cache-control"] == "no-store"


@asynchronous
async def test_no_other_origin_may_call_unless_it_is_named() -> None:
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    async with serving() as service:
        closed = await service.client.options("/recommend", headers=headers)
        plain = await service.client.post("/recommend", json=BODY, headers={"Origin": ORIGIN})
    for answer in (closed, plain):
        assert not [name for name in answer.headers if name.startswith("access-control")]


@asynchronous
async def test_a_named_origin_may_call_the_api_and_read_its_errors_but_not_ops() -> None:
    async with serving(cors_origins=f"{ORIGIN}, https://m.shop.example:8443", operator=True) as service:
        client = service.client
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key,content-type"}
        preflight = await client.options("/recommend", headers={"Origin": ORIGIN, **asked})
        good = await client.post("/recommend", json=BODY, headers={"Origin": ORIGIN})
        bad = await client.post("/recommend", content=b"{", headers={"Origin": ORIGIN})
        foreign = await client.post("/recommend", json=BODY, headers={"Origin": "https://evil.example"})
        own = [
            await client.get(path, headers={"Origin": ORIGIN}) for path in ("/ops/fallback", "/users/u1", "/metrics")
        ]
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    for answer, status in ((good, 200), (bad, 400)):
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-credentials" not in answer.headers
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"Deprecation", "Sunset", "Link"} <= set(exposed), "what a deprecated use is told, a page can read"
    for answer in (preflight, good, bad):
        assert "x-request-id" in answer.headers
    for answer in (foreign, *own):
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origins", ["shop.example", "https://shop.example/", "https://a.example,*", "null"])
def test_what_is_no_origin_stops_the_start(origins: str) -> None:
    from service.app import create_app
    from service.settings.service_settings import Settings

    with pytest.raises(ServiceError, match="GPT4REC_CORS_ORIGINS"):
        create_app(Settings(cors_origins=origins))


class _Loaded(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.inline += [name for name, _ in attrs if name == "style" or name.startswith("on")]
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


@asynchronous
async def test_the_page_of_the_api_loads_nothing_from_elsewhere_and_says_all() -> None:
    async with serving() as service:
        page = await service.client.get("/docs")
        document = (await service.client.get("/openapi.json")).json()
        found = _Loaded()
        found.feed(page.text)
        for link in found.links:
            where = urljoin("http://test/docs", link)
            assert where.startswith("http://test/")
            assert (await service.client.get(where)).status_code == 200
    assert not found.tags & {"script", "style", "iframe", "form", "object"}
    assert not found.inline
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}" in page.text
            assert operation["description"].split(".")[0].split("'")[0][:40] in page.text


@asynchronous
async def test_the_pages_of_the_api_can_be_switched_off() -> None:
    async with serving(openapi_pages=False) as service:
        for path in ("/docs", "/redoc", "/openapi.json"):
            assert (await service.client.get(path)).status_code == 404
        assert (await service.client.post("/recommend", json=BODY)).status_code == 200
