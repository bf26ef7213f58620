"""The example shop, backend and page, beside a real service."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING

import httpx
import pytest
from gpt4rec_client import Client, NotFound

from deploy.clients.examples.shop import backend
from tests.support.browser import accessibility_faults, opened, scrolls_sideways, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_ITEMS = "() => [...document.querySelectorAll('#list button')].map((one) => one.dataset.item)"


@pytest.fixture
def service() -> Iterator[Client]:
    with Client(
        os.environ["GPT4REC_URL"], api_key=os.environ["GPT4REC_OPERATOR_KEY"], timeout_s=30.0, kept_lists=0
    ) as client:
        yield client


@pytest.fixture
def shop(service: Client) -> Iterator[ThreadingHTTPServer]:
    server = backend.serve(service, 0)
    yield server
    server.shutdown()
    server.server_close()


def _address(shop: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{shop.server_port}"


def _history(service: Client, user: str) -> list[tuple[str, str]]:
    return [(one["item_id"], one["type"]) for one in service.user(user)["history"]]


def test_the_backend_decides_who_it_is_and_stores_nothing_of_who_did_not_agree(
    shop: ThreadingHTTPServer, service: Client
) -> None:
    click = {"type": "click", "item_id": "i1", "timestamp": 1_700_000_000_000, "event_id": "e1", "user_id": "somebody"}
    with httpx.Client(base_url=_address(shop), timeout=30.0) as visitor:
        assert visitor.post("/rec/v1/events", json={"events": [click]}).json()["accepted"] == 0
        asked = {"k": 3, "user_id": "somebody", "events": [{"item_id": "i1"}]}
        listed = visitor.post("/rec/v1/recommend", json=asked).json()
        assert (len(listed["items"]), listed["user_id"]) == (3, None)
        assert visitor.post("/login", json={"user": "eve"}).status_code == 404
        visitor.post("/consent", json={})
        for _ in range(2):  # as a beacon sends it, and again
            answer = visitor.post("/rec/v1/events", content=json.dumps({"events": [click]}))
        assert (answer.json()["accepted"], answer.json()["duplicates"]) == (0, 1)
        assert visitor.post("/login", json={"user": "shop-eve"}).json() == {"user": "shop-eve", "merged": 1}
        assert _history(service, "shop-eve") == [("i1", "click")]
        wrong = visitor.post("/rec/v1/recommend", json={"k": 0})
        assert (wrong.status_code, wrong.json()["type"]) == (422, "urn:gpt4rec:problem:invalid_request")
        assert visitor.get("/backend.py").status_code == visitor.get("/client/../backend.py").status_code == 404
        assert visitor.delete("/me").json()["deleted"] > 0
        with pytest.raises(NotFound):
            service.user("shop-eve")
        visitor.post("/consent", json={})
        visitor.post("/rec/v1/events", json={"events": [click]})
        assert visitor.delete("/me").json()["deleted"] > 0, "an anonymous session can be erased too"


def _settled(page: Page) -> list[str]:
    """What the list shows once no question is on its way."""
    until(page, "() => document.getElementById('list').ariaBusy === 'false'")
    found: list[str] = page.evaluate(_ITEMS)
    return found


def _changes(page: Page, before: list[str]) -> None:
    until(page, f"(before) => JSON.stringify(({_ITEMS})()) !== JSON.stringify(before)", before)


def test_the_page_reacts_to_clicks_and_its_visitor_agrees_logs_in_and_is_forgotten(
    browser: Browser, shop: ThreadingHTTPServer, service: Client
) -> None:
    with opened(browser, _address(shop), faults=("503", "ERR_FAILED")) as page:
        before = _settled(page)
        assert len(before) == 8
        assert accessibility_faults(page) == []
        page.click(f"#list button[data-item={before[0]}]")
        _changes(page, before)
        until(page, "() => document.querySelectorAll('#like button').length === 4")

        page.click("#agree")
        page.wait_for_selector("#forget", state="visible")
        before = _settled(page)
        page.click(f"#list button[data-item={before[1]}]")
        _changes(page, before)
        page.fill("input[name=user]", "shop-ann")
        page.click("button[type=submit]")
        until(page, "() => document.getElementById('name').textContent === 'Hello shop-ann.'")
        assert _history(service, "shop-ann") == [(before[1], "click")]
        assert accessibility_faults(page) == []
        assert not scrolls_sideways(page)

        shown = _settled(page)
        page.route("**/rec/v1/recommend", lambda route: route.abort())
        page.click("#list button >> nth=0")
        until(page, "() => document.getElementById('note').textContent.includes('offline')")
        assert page.evaluate(_ITEMS) == shown, "the last good list stays on screen"
        page.unroute("**/rec/v1/recommend")

        page.click("#forget")
        until(page, "() => document.getElementById('name').textContent === 'You are not logged in.'")
        with pytest.raises(NotFound):
            service.user("shop-ann")


def test_a_page_that_is_left_at_once_loses_no_click(
    browser: Browser, shop: ThreadingHTTPServer, service: Client
) -> None:
    with opened(browser, _address(shop)) as page:
        page.click("#agree")
        page.wait_for_selector("#forget", state="visible")
        page.evaluate("""async () => {
          const { Client } = await import("./client/index.js");
          const client = new Client({ baseUrl: "rec", queue: { intervalMs: 600000 } });
          client.track({ type: "cart", item_id: "i7" });
          window.tracked = true;
        }""")
        page.goto("about:blank")
        page.goto(_address(shop))
        page.fill("input[name=user]", "shop-leaver")
        page.click("button[type=submit]")
        until(page, "() => document.getElementById('name').textContent === 'Hello shop-leaver.'")
        assert ("i7", "cart") in _history(service, "shop-leaver")
