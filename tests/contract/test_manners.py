"""What an HTTP client may expect of any service: HEAD, encodings, slashes, what is at `/`, path prefixes."""

from __future__ import annotations

import gzip
import re
import time
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from starlette.routing import Route

from service.api import static_pages
from service.api.answer_body import COMPRESSED_FROM
from service.common.errors import ServiceError
from service.schemas.answer import Problem
from service.schemas.service_answers import IndexAnswer
from tests.support.aio import asynchronous
from tests.support.serving import Service, serving

BODY = {"events": [{"item_id": "3"}]}
ORIGIN = "https://shop.example"
GZIP = {"Accept-Encoding": "gzip"}
PLAIN = {"Accept-Encoding": "identity"}


def routes(service: Service, method: str) -> list[Route]:
    """Every route that takes a method."""
    found = [route for route in service.app.router.routes if isinstance(route, Route)]
    return [route for route in found if method in (route.methods or ())]


def paths(service: Service, method: str) -> list[str]:
    """Every path that takes a method, with ids that exist."""
    filled = {"user_id": "u1", "session_id": "s1", "item_id": "3", "name": "base.css", "version": "fake-1"}
    return [re.sub(r"\{(\w+)(:path)?\}", lambda m: filled[m[1]], route.path) for route in routes(service, method)]


def peer(service: Service, host: str) -> httpx.AsyncClient:
    """A client of another address."""
    transport = httpx.ASGITransport(app=service.app, client=(host, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers=service.client.headers)


# -- HEAD


@pytest.mark.parametrize("accepted", [GZIP, PLAIN])
@asynchronous
async def test_head_answers_on_every_get_route_as_get_does_without_a_body(accepted: dict[str, str]) -> None:
    async with serving(operator=True, playground=True) as service:
        gets = routes(service, "GET")
        # The path of a POST may be that of a GET by another route: an experiment may be named as one of them is.
        posts = {path: any(route.path_regex.match(path) for route in gets) for path in paths(service, "POST")}
        found = [*paths(service, "GET"), *(path for path, also_get in posts.items() if also_get)]
        assert len(found) > 20
        for path in found:
            head = await service.client.head(path, headers=accepted)
            assert head.content == b"", path
            if path == "/ops/stream":  # a GET would not end
                assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
                continue
            get = await service.client.get(path, headers=accepted)
            assert head.status_code == get.status_code, path
            assert {**head.headers, **VARYING} == {**get.headers, **VARYING}, path
        for path in posts.keys() - found:
            assert (await service.client.head(path)).status_code == 405, path
        assert service.runtime.console.streams == 0, "the stream of a HEAD is still held"


VARYING = {"content-length": "", "x-request-id": ""}


# -- bodies


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP", "x" * 5000, "identity, gzip"])
@asynchronous
async def test_an_encoded_body_is_refused_by_name_on_every_route(encoding: str) -> None:
    packed = gzip.compress(b'{"user_id":"u","k":1}')
    async with serving(operator=True, playground=True) as service:
        routes = [("POST", path) for path in paths(service, "POST")] + [("PUT", path) for path in paths(service, "PUT")]
        for method, path in routes:
            headers = {"Content-Encoding": encoding}
            answer = await service.client.request(method, path, content=packed, headers=headers)
            problem = Problem.model_validate(answer.json())
            assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity"), path
            assert problem.type == "urn:gpt4rec:problem:unsupported_content_encoding"
            assert encoding[:40] in problem.detail and len(problem.detail) < 200
        plain = await service.client.post("/recommend", json=BODY, headers={"Content-Encoding": "identity"})
    assert plain.status_code == 200


# -- paths


@asynchronous
async def test_a_slash_too_many_is_a_problem_document_and_no_redirect() -> None:
    async with serving(operator=True, playground=True) as service:
        for path in [*paths(service, "GET"), *paths(service, "POST")]:
            for other in (f"{path}/", f"/{path}"):
                # As it stands: a client would take `//playground` for a host.
                raw = httpx.URL("http://test").copy_with(raw_path=other.encode())
                answer = await service.client.post(raw, json=BODY)
                assert answer.status_code in (404, 405), other
                assert answer.headers["content-type"] == "application/problem+json"
                assert "location" not in answer.headers
        said = (await service.client.post("/recommend/", json=BODY)).json()["detail"]
    assert "without a slash at the end" in said


@pytest.mark.parametrize("everything", [True, False])
@asynchronous
async def test_the_address_of_the_service_says_what_is_here(everything: bool) -> None:
    async with serving(operator=everything, playground=everything, openapi_pages=everything) as service:
        answer = await service.client.get("/")
        links = IndexAnswer.model_validate(answer.json()).links
        assert (
            ("docs" in links) == ("openapi" in links) == ("console" in links) == ("playground" in links) == everything
        )
        for name, path in links.items():
            method = "POST" if name in ("recommend", "events") else "GET"
            assert (await service.client.request(method, path)).status_code in (200, 400), name


# -- compression


@asynchronous
async def test_large_answers_are_compressed_for_those_who_accept_it() -> None:
    async with serving(operator=True) as service:
        for path in ("/openapi.json", "/docs", "/metrics"):
            plain = await service.client.get(path, headers=PLAIN)
            async with service.client.stream("GET", path, headers=GZIP) as packed:
                raw = b"".join([part async for part in packed.aiter_raw()])
            assert packed.headers["content-encoding"] == "gzip"
            assert "content-encoding" not in plain.headers
            assert plain.headers["vary"] == packed.headers["vary"] == "accept-encoding"
            assert len(raw) == int(packed.headers["content-length"]) < len(plain.content) / 2
            if path != "/metrics":  # which has counted the first
                assert gzip.decompress(raw) == plain.content
        for accepted in ("gzip;q=0", "gzip; q=0.0", "br", "*", ""):
            answer = await service.client.get("/openapi.json", headers={"Accept-Encoding": accepted})
            assert "content-encoding" not in answer.headers, accepted
        small = await service.client.post("/recommend", json={**BODY, "k": 100}, headers=GZIP)
        assert len(small.content) < COMPRESSED_FROM and "content-encoding" not in small.headers


@asynchronous
async def test_a_compressed_page_is_revalidated_by_its_weak_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    large = static_pages.File(b"x" * 2 * COMPRESSED_FROM, "text/css; charset=utf-8", '"abc"')
    monkeypatch.setattr(static_pages, "files", lambda: {"base.css": large})
    async with serving() as service:
        first = await service.client.get("/assets/base.css", headers=GZIP)
        assert (first.headers["etag"], first.headers["content-encoding"]) == ('W/"abc"', "gzip")
        again = await service.client.get("/assets/base.css", headers={**GZIP, "If-None-Match": first.headers["etag"]})
    assert again.status_code == 304


# -- a path prefix


async def prefixes(client: httpx.AsyncClient, headers: dict[str, str]) -> set[str]:
    """Every path prefix that documents speak of."""
    index, about = [(await client.get(path, headers=headers)).json() for path in ("/", "/playground/about")]
    document = (await client.get("/openapi.json", headers=headers)).json()
    links: list[str] = [
        index["links"]["docs"],
        about["links"]["API"],
        about["links"]["console"].replace("/ops", "/docs"),
    ]
    servers = [server["url"] for server in document.get("servers", [])]
    return {link.removesuffix("/docs") for link in links} | set(servers or [""])


@asynchronous
async def test_documents_know_the_prefix_of_trusted_proxies_and_of_nobody_else() -> None:
    async with serving(operator=True, playground=True, trusted_proxies="10.1.0.0/16, ::1") as service:
        forwarded = {"X-Forwarded-Prefix": "/shop/rec/"}
        async with peer(service, "10.1.2.3") as proxy, peer(service, "10.2.0.1") as stranger:
            assert await prefixes(proxy, forwarded) == {"/shop/rec"}
            assert await prefixes(stranger, forwarded) == {""}
            assert await prefixes(proxy, {}) == {""}
            for bad in (
                "//evil.example",
                "/a//b",
                "/a/../b",
                '/"><script>',
                "evil",
                "/" + "x" * 200,
                "/a, /b",
                "/%2e%2e",
            ):
                assert await prefixes(proxy, {"X-Forwarded-Prefix": bad}) == {""}
        async with peer(service, "::1") as six, peer(service, "::ffff:10.1.0.9") as mapped:
            assert await prefixes(six, forwarded) == await prefixes(mapped, forwarded) == {"/shop/rec"}
    async with serving(operator=True, playground=True) as service:
        assert await prefixes(service.client, {"X-Forwarded-Prefix": "/shop"}) == {""}


@asynchronous
async def test_a_service_with_a_root_path_answers_with_it_and_without() -> None:
    async with serving(operator=True, playground=True, root_path="/shop/rec/", api_keys="shop:k1") as service:
        assert await prefixes(service.client, {}) == {"/shop/rec"}
        for path in ("/docs", "/playground", "/ops", "/assets/base.css", "/openapi.json", "/"):
            assert (await service.client.get(f"/shop/rec{path}")).status_code == 200
            assert (await service.client.get(path)).status_code == 200
        assert (await service.client.get("/shop/rec")).json()["name"] == "gpt4rec"
        assert (await service.client.get("/shop/recs")).status_code == 404
        del service.client.headers["Authorization"]
        assert (await service.client.post("/shop/rec/recommend", json=BODY)).status_code == 401
        assert (await service.client.get("/shop/rec/ops/fallback")).status_code == 401


@pytest.mark.parametrize("page", ["/ops", "/playground", "/docs"])
@asynchronous
async def test_everything_that_a_page_loads_is_below_the_prefix_it_was_opened_under(page: str) -> None:
    """A page has relative addresses only, so a proxy that removes its prefix need not be known."""
    prefix = "http://test/shop/rec"
    async with serving(operator=True, playground=True) as service:
        todo, seen = [f"{prefix}{page}"], set()
        while todo:
            address = todo.pop()
            seen.add(address)
            assert address.startswith(f"{prefix}/"), f"{page} leads out of the prefix: {address}"
            answer = await service.client.get(address.removeprefix(prefix))
            assert answer.status_code == 200, address
            if address.endswith((".js", page)):
                loaded = re.findall(r'(?:src|href)="([^"#]+)"|^import .* from "(.+)";', answer.text, re.MULTILINE)
                todo += {urljoin(address, first or second) for first, second in loaded} - seen
    assert len(seen) > 3


def test_no_script_calls_an_absolute_address() -> None:
    for name, file in static_pages.files().items():
        if name.endswith(".js"):
            absolute = re.findall(
                r'["`]/(?:ops|playground|recommend|items|events|users|assets)\b', file.content.decode()
            )
            assert not absolute, f"{name}: {absolute}"


@pytest.mark.parametrize(
    ("setting", "value"), [("root_path", "shop"), ("root_path", "//x"), ("root_path", "/a/../b"),
                           ("trusted_proxies", "proxy.example"), ("trusted_proxies", "10.0.0.0/99")],
)  # fmt: skip
def test_a_bad_prefix_or_proxy_stops_the_start(setting: str, value: str) -> None:
    from service.app import create_app
    from service.settings.service_settings import Settings

    with pytest.raises(ServiceError, match=f"GPT4REC_{setting.upper()}: {re.escape(value)} is n"):
        create_app(Settings.model_validate({setting: value}))


# -- preflights


@asynchronous
async def test_a_refused_preflight_is_a_problem_document_that_says_what_was_refused() -> None:
    good = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    refused: list[tuple[dict[str, str], str]] = [
        ({**good, "Origin": "https://evil.example"}, "origin"),
        ({**good, "Access-Control-Request-Method": "DELETE"}, "method"),
        ({**good, "Access-Control-Request-Headers": "x-other"}, "headers"),
    ]
    async with serving(cors_origins=ORIGIN) as service:
        assert (await service.client.options("/recommend", headers=good)).status_code == 200
        for headers, what in refused:
            answer = await service.client.options("/recommend", headers=headers)
            problem = Problem.model_validate(answer.json())
            assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
            assert problem.detail.endswith(f": {what}")
            assert problem.request_id == answer.headers["x-request-id"]
            assert "evil" not in str(answer.headers)


# -- clocks of proxies


async def ask(client: httpx.AsyncClient, behind_s: float) -> tuple[Any, Any]:
    start = f"t={(time.time() - behind_s) * 1000:.0f}"
    answer = (await client.post("/recommend", json=BODY, headers={"X-Request-Start": start})).json()
    return answer["source"], answer["reason"]


@asynchronous
async def test_one_proxy_with_another_clock_takes_nothing_from_the_lists_of_others() -> None:
    async with (
        serving() as service,
        peer(service, "10.0.0.1") as right,
        peer(service, "10.0.0.2") as behind,
        peer(service, "10.0.0.3") as ahead,
    ):
        found = []
        for _ in range(80):
            assert await ask(right, 0.0) == ("gpt4rec", None)
            assert await ask(ahead, -5.0) == ("gpt4rec", None)
            found.append(await ask(behind, 5.0))
            await ask(behind, -600.0)  # somebody behind the same proxy sends a start in the future
    assert found[0] == ("popular", "deadline")
    assert set(found[64:]) == {("gpt4rec", None)}


@asynchronous
async def test_where_proxies_are_named_no_other_peer_says_when_its_requests_began() -> None:
    async with (
        serving(trusted_proxies="10.0.0.1") as service,
        peer(service, "10.0.0.1") as proxy,
        peer(service, "10.0.0.2") as stranger,
    ):
        assert await ask(proxy, 5.0) == ("popular", "deadline")
        assert await ask(stranger, 5.0) == ("gpt4rec", None)
