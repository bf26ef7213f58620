"""The playground in a real browser, over a real service: what newcomers click, type and read."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import pytest

from service.artifact.items.catalogue import Catalogue
from tests.support.artifacts import random_parts, write_artifact
from tests.support.browser import DESK, PHONE, accessibility_faults, browser, scrolls_sideways  # noqa: F401 - a fixture
from tests.support.processes import PATIENT, Serve, serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.timeout(120)

KEY = "key-of-the-playground-test-0123456789"
MARKUP = "<img src=x onerror=alert(1)>"
NARROW = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """A service that asks for a key, over a catalogue with a title that is no good HTML."""
    folder = tmp_path_factory.mktemp("playground")
    parts = random_parts()
    items = list(parts.catalogue.items)
    items[3] = replace(items[3], title=MARKUP)
    artifact = write_artifact(folder / "artifacts", replace(parts, catalogue=Catalogue.of(items)))
    settings = {**PATIENT, "GPT4REC_PLAYGROUND": "true", "GPT4REC_API_KEYS": f"web:{KEY}"}
    with serve(folder, "--artifact", str(artifact), **settings) as service:
        yield service


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Page]:  # noqa: F811
    """One tab for all visits that need no other: opening one takes longer than what is tried in it."""
    context = browser.new_context(
        viewport=DESK,  # type: ignore[arg-type]
        permissions=["clipboard-read", "clipboard-write"],
    )
    known = f"sessionStorage.setItem('gpt4rec.api-key', '{KEY}')"
    context.add_init_script(f"if (location.protocol === 'http:') {known}")
    yield context.new_page()
    context.close()


class Visit:
    """A page of the playground, and what it asked of the service."""

    def __init__(self, page: Page, service: Serve, fragment: str = "") -> None:
        self.page = page
        self.origin = f"http://127.0.0.1:{service.port}"
        self.bodies: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.faults: list[str] = []
        self._listeners = {"request": self._noted, "pageerror": self._failed, "console": self._said}
        page.goto("about:blank")  # another fragment alone would be no other visit
        for event, listener in self._listeners.items():
            page.on(event, listener)  # type: ignore[call-overload]
        page.goto(f"{self.origin}/playground{fragment}")

    def leave(self) -> None:
        """Nothing went wrong until here."""
        for event, listener in self._listeners.items():
            self.page.remove_listener(event, listener)
        self.page.unroute_all()
        assert self.faults == []

    def _noted(self, request: Any) -> None:
        if not request.url.startswith((self.origin, "data:", "about:")):
            self.faults.append(f"the page asks elsewhere: {request.url}")
        if request.method == "POST":
            assert request.url.endswith("/playground/lists"), "one request for each change"
            self.asked.append(json.loads(request.post_data))
            self.bodies.append(self.asked[-1]["request"])

    def _failed(self, error: Any) -> None:
        self.faults.append(str(error))

    def _said(self, message: Any) -> None:
        if message.type == "error":
            self.faults.append(message.text)

    def settled(self) -> Visit:
        """Once the list is that of what is chosen now."""
        self.page.wait_for_function(
            "() => document.querySelector('#items li') && !document.body.dataset.asking", timeout=20_000
        )
        return self

    @property
    def history(self) -> list[str]:
        found: list[str] = self.page.eval_on_selector_all("#events li", "rows => rows.map(row => row.dataset.item)")
        return found

    @property
    def items(self) -> list[str]:
        found: list[str] = self.page.eval_on_selector_all("#items li", "rows => rows.map(row => row.dataset.item)")
        return found

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)


Open = Callable[[str], Visit]


@pytest.fixture
def visit(tab: Page, service: Serve) -> Iterator[Open]:
    """Visits with a fragment; nothing has gone wrong in them at their end."""
    visits: list[Visit] = []

    def open_(fragment: str) -> Visit:
        visits.append(Visit(tab, service, fragment))
        return visits[-1].settled()

    yield open_
    for one in visits:
        one.leave()


@pytest.fixture
def sure(visit: Open) -> Visit:
    """A visit to a history of three whose list is drawn by no chance."""
    return visit("#h=i1&h=i2&h=i5&strategy=beam")


def test_a_first_visit_shows_a_history_its_list_how_it_was_made_and_why(visit: Open) -> None:
    first = visit("")
    assert len(first.history) >= 4
    assert len(first.items) == 10
    assert not set(first.history) & set(first.items)
    assert "generative recommender" in first.text(".hello")
    assert first.text("#ladder li[aria-current]") == "full"
    assert "gpt4rec" in first.text("#facts")
    assert "of 2000 ms" in first.text("#latency")
    shares = [
        int(text.removesuffix(" %").removeprefix("<"))
        for text in first.page.locator(".share .number").all_inner_texts()
    ]
    assert 0 < sum(shares) <= 100 + len(shares)
    assert "rolled out over its layers" in first.text("#why")
    assert "random-" in first.text("#model")
    assert first.page.locator("#links a").all_inner_texts() == ["API", "console"]


def test_the_reason_is_beside_each_item_and_the_signals_that_ranked_the_list_above(visit: Open) -> None:
    here = visit("#h=i1&h=i2&h=i5&strategy=beam&budget=1000000")
    assert "ranked by path, dense" in here.text("#facts")
    reasons = here.page.locator("#items .reason").all_inner_texts()
    assert len(reasons) == 10
    assert all(reason.startswith("read most from ") and "attention" in reason for reason in reasons)
    shown = here.page.locator("#items .score").first.get_attribute("title")
    assert shown is not None and "path" in shown and "dense" in shown


def test_a_title_of_markup_is_shown_as_it_is(visit: Open) -> None:
    here = visit("#h=i3")
    assert here.text("#events .name") == MARKUP
    assert here.page.locator("#events img").count() == 0


def test_by_keyboard_alone_an_item_is_found_and_added_and_the_list_follows(sure: Visit) -> None:
    page, before = sure.page, sure.items
    page.keyboard.press("/")
    page.keyboard.type("item 17", delay=5)
    page.keyboard.press("Enter")  # before anything is found: the first that will be
    page.wait_for_function("() => document.querySelectorAll('#events li').length === 4")
    sure.settled()
    assert sure.history == ["i1", "i2", "i5", "i17"]
    assert [event["item_id"] for event in sure.bodies[-1]["events"]] == sure.history
    assert "i17" not in sure.items
    assert sure.items != before
    assert page.evaluate("document.activeElement.id") == "search"
    assert "first" in sure.text("#said")


def test_arrow_keys_choose_among_what_is_found_and_escape_leaves(sure: Visit) -> None:
    page = sure.page
    page.fill("#search", "item 1")
    page.wait_for_selector("#found [role=option] >> nth=3")
    names = page.locator("#found .name").all_inner_texts()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    chosen = page.get_attribute("#search", "aria-activedescendant")
    assert page.inner_text(f"#{chosen} .name") == names[1]
    assert page.get_attribute(f"#{chosen}", "aria-selected") == "true"
    page.keyboard.press("Escape")
    assert page.is_hidden("#found")
    assert page.get_attribute("#search", "aria-expanded") == "false"
    assert sure.history == ["i1", "i2", "i5"]


def test_clicking_what_is_recommended_adds_it_and_says_what_has_moved(sure: Visit) -> None:
    taken = sure.items[0]
    before = sure.items
    sure.page.click("#items li >> nth=0 >> .take")
    sure.page.wait_for_function("() => document.querySelectorAll('#events li').length === 4")
    after = sure.settled().items
    assert sure.history[-1] == taken
    assert taken not in after
    moved = sure.page.locator("#items .moved").all_inner_texts()
    for item, text in zip(after, moved, strict=True):
        if item not in before:
            assert text == "new"
        elif before.index(item) != after.index(item):
            up = before.index(item) > after.index(item)
            assert text.startswith("▲" if up else "▼")
        else:
            assert text == ""


def test_events_are_moved_and_removed_and_the_focus_stays(sure: Visit) -> None:
    page = sure.page
    page.get_by_role("button", name="Move to after: Item 1", exact=True).focus()
    page.keyboard.press("Enter")
    assert sure.history == ["i2", "i1", "i5"]
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Move to after: Item 1"
    page.keyboard.press("Enter")
    assert sure.history == ["i2", "i5", "i1"]
    page.get_by_role("button", name="Remove: Item 5", exact=True).click()
    assert sure.settled().history == ["i2", "i1"]
    assert [event["item_id"] for event in sure.bodies[-1]["events"]] == ["i2", "i1"]
    page.click("#clear")
    sure.settled()
    assert sure.history == []
    assert sure.bodies[-1]["session_id"]
    assert "for a new user" in sure.text("#empty")
    page.click("#starters button >> nth=0")
    assert len(sure.settled().history) == 1


def test_events_are_moved_by_dragging(sure: Visit) -> None:
    rows = sure.page.locator("#events li")
    rows.nth(0).drag_to(rows.nth(2), target_position={"x": 40, "y": 40})
    assert sure.settled().history == ["i2", "i5", "i1"]
    assert [event["item_id"] for event in sure.bodies[-1]["events"]] == ["i2", "i5", "i1"]


def test_every_choice_reaches_the_request(sure: Visit) -> None:
    page = sure.page
    page.select_option("#segment", "explorer")
    page.get_by_label("top-p", exact=True).check()
    page.locator("#top-p").fill("0.5")
    page.locator("#k").fill("5")
    page.fill("#seed", "11")
    page.select_option("#spacing", "day")
    page.select_option("#seen", "in")
    page.get_by_role("button", name="a", exact=True).click()
    page.get_by_text("Who and where").click()
    page.select_option("#who-age", "young")
    page.select_option("#code-category", "b")
    sure.settled()
    body = sure.bodies[-1]
    assert body["segment"] == "explorer"
    assert body["decoding"] == {"strategy": "top_p", "top_p": 0.5}
    assert (body["k"], body["seed"]) == (5, 11)
    assert body["filter"] == {"category": ["a"]}
    assert body["features"] == {"age": "young"}
    assert body["context"] == {"category": "b"}
    assert body["exclude_seen"] is False
    times = [event["timestamp"] for event in body["events"]]
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [86_400] * 2
    assert len(sure.items) == 5
    assert "top-p" in sure.text("#facts")
    assert "segment explorer" in sure.text("#facts")
    assert all("a" in text.split(" · ") for text in page.locator("#items .what .small:not(.reason)").all_inner_texts())
    page.click("#reset")
    assert set(sure.settled().bodies[-1]) == {"events", "explain", "k", "seed"}


def test_the_address_brings_back_all_of_it(sure: Visit, visit: Open) -> None:
    sure.page.get_by_label("greedy", exact=True).check()
    sure.page.get_by_role("button", name="b", exact=True).click()
    sure.settled()
    history, items = sure.history, sure.items
    other = visit("#" + sure.page.url.partition("#")[2])
    assert (other.history, other.items) == (history, items)
    assert other.bodies[-1] == sure.bodies[-1], "the times of the events are part of the address"
    assert other.page.get_attribute("#categories [data-name=b]", "aria-pressed") == "true"
    other.page.evaluate("location.hash = 'h=i7&k=nonsense&strategy=sideways&only=none&seed=-4&h=nowhere'")
    other.page.wait_for_function("() => document.querySelectorAll('#events li').length === 2")
    assert other.settled().history == ["i7", "nowhere"]
    assert len(other.items) == 10


def test_with_no_time_left_a_lower_rung_answers_and_says_why(sure: Visit) -> None:
    sure.page.locator("#budget").fill("0")
    sure.settled()
    assert sure.bodies[-1]["budget_ms"] == 1
    assert sure.text("#ladder li[aria-current]") in ("item-CF", "popular")
    assert "because" in sure.text("#facts")
    assert not any(name in sure.text("#facts") for name in ("beam", "greedy", "top-p", "temperature")), (
        "nothing decoded it"
    )
    assert "No attention to show" in sure.text("#why")
    assert not "".join(sure.page.locator("#events .share .number").all_inner_texts()).strip()
    assert len(sure.items) == 10


def test_similar_items_open_beside_an_item_and_may_be_taken(sure: Visit) -> None:
    page = sure.page
    opener = page.locator("#items .like").nth(1)
    opener.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#similar:not([hidden]) button:focus")
    page.keyboard.press("Escape")
    assert page.is_hidden("#similar")
    assert opener.evaluate("node => node === document.activeElement")
    page.locator("#items li").nth(2).hover()
    page.wait_for_selector("#similar:not([hidden])")
    assert page.locator("#similar button").count() > 0
    name = page.inner_text("#similar button >> nth=0")
    page.click("#similar button >> nth=0")
    assert page.is_hidden("#similar")
    assert sure.settled().text("#events li:last-child .name") == name


def test_an_answer_that_comes_late_is_not_shown(sure: Visit) -> None:
    page = sure.page
    held: list[Any] = []
    page.route("**/playground/lists", lambda route: held.append(route) if not held else route.continue_())
    page.get_by_label("greedy", exact=True).check()
    page.wait_for_function("() => document.body.dataset.asking")
    while not held:
        page.wait_for_timeout(10)
    page.locator("#k").fill("3")
    sure.settled()
    assert len(sure.items) == 3
    assert sure.bodies[-1]["decoding"] == {"strategy": "greedy"}


def test_a_service_that_is_away_is_said_and_tried_again(sure: Visit) -> None:
    page = sure.page
    page.route("**/playground/lists", lambda route: route.abort())
    page.locator("#k").fill("4")
    page.wait_for_selector("#notice:not([hidden])")
    assert "does not answer" in sure.text("#notice")
    assert len(sure.items) == 10
    sure.faults.clear()  # the browser's own word about it
    page.unroute_all()
    page.click("#again")
    page.wait_for_selector("#notice", state="hidden")
    assert len(sure.settled().items) == 4


def test_after_too_many_requests_the_last_list_stays_and_the_next_follows(sure: Visit) -> None:
    page, before = sure.page, sure.items
    refused: list[Any] = []

    def once(route: Any) -> None:
        if refused:
            route.continue_()
            return
        refused.append(route)
        route.fulfill(status=429, headers={"Retry-After": "1"}, json={"status": 429, "detail": "the rate is used up"})

    page.route("**/playground/lists", once)
    page.locator("#k").fill("4")
    page.wait_for_selector("#notice:not([hidden])")
    assert "last list" in sure.text("#notice")
    assert sure.items == before
    sure.faults.clear()  # the browser's own word about it
    page.wait_for_selector("#notice", state="hidden")
    assert len(sure.settled().items) == 4


def test_two_lists_stand_beside_each_other_and_say_what_they_share(sure: Visit) -> None:
    page = sure.page
    page.select_option("#beside", "popular")
    page.wait_for_selector("#rival-items li")
    sure.settled()
    assert sure.asked[-1]["beside"] == {"rung": "popular"}
    rival = page.eval_on_selector_all("#rival-items li", "rows => rows.map(row => row.dataset.item)")
    common = len(set(rival) & set(sure.items))
    assert sure.text("#rival-title") == f"popular items: {common} of {len(rival)} items in both lists"
    assert page.locator("#rival-items .moved.new").count() == len(rival) - common
    told = sure.text("#rival-facts")
    assert "popular" in told
    assert not [word for word in ("beam", "greedy", "top-p", "operator") if word in told], "nothing of the model"
    page.select_option("#beside", "segment new")
    page.wait_for_function("() => document.querySelector('#rival-title').textContent.startsWith('segment new')")
    assert "gpt4rec" in sure.settled().text("#rival-facts")
    page.select_option("#beside", "")
    page.wait_for_selector("#rival", state="hidden")


def test_items_of_one_category_have_one_colour_and_a_path_counts_from_its_first_step(sure: Visit) -> None:
    found = sure.page.evaluate("""async () => {
        const { swatch } = await import("./assets/playground-text.js");
        const hue = (...category) => swatch({ category }).style.getPropertyValue("--hue");
        return [hue("Fashion > Women"), hue("Fashion > Men"), hue("Sports > Women"), hue()];
    }""")
    assert found[0] == found[1] != found[2]
    assert found[3] == ""
    assert sure.page.locator("#items .swatch").count() == 10


def test_an_artefact_that_cannot_say_why_is_told_from_one_that_can(tab: Page, visit: Open) -> None:
    def without(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "explains": False})

    tab.route("**/playground/about", without)
    here = visit("#h=i1&h=i2")
    assert "exporting the model again" in here.text("#why")
    assert here.page.locator("#events.weighed").count() == 0


def test_the_command_it_copies_asks_the_same_and_does_not_hold_the_key(sure: Visit) -> None:
    sure.page.click("#curl")
    sure.page.wait_for_function("() => document.querySelector('#curl').textContent === 'Copied'")
    command = sure.page.evaluate("navigator.clipboard.readText()")
    assert KEY not in command
    environment = os.environ | {"GPT4REC_API_KEY": KEY}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True, env=environment
    )
    assert len(json.loads(done.stdout)["items"]) == 10
    asked = json.loads(shlex.split(command)[-1])
    for event in asked["events"] + sure.bodies[-1]["events"]:
        del event["timestamp"]  # the last event is always now
    assert asked == sure.bodies[-1]


def test_a_key_is_asked_for_kept_in_the_tab_and_shown_nowhere(browser: Browser, service: Serve) -> None:  # noqa: F811
    page = browser.new_page()
    here = Visit(page, service)
    page.wait_for_selector("#key-dialog[open]")
    page.fill("#key", "another-key")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#key-fault').textContent.includes('not known')")
    page.fill("#key", KEY)
    page.click("#key-dialog button")
    assert len(here.settled().items) == 10
    assert page.is_hidden("#key-dialog")
    assert KEY not in page.url + page.content() + page.evaluate("JSON.stringify(localStorage)")
    page.reload()
    assert len(here.settled().items) == 10
    assert page.is_hidden("#key-dialog")
    assert KEY not in service.log
    page.context.close()


def test_nothing_is_cut_off_nameless_or_hard_to_read(sure: Visit) -> None:
    page = sure.page
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme, size in itertools.product(schemes, (DESK, PHONE, NARROW)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(size)  # type: ignore[arg-type]
        page.evaluate("Promise.all(document.getAnimations().map(one => one.finished))")
        assert not scrolls_sideways(page), size
        assert accessibility_faults(page) == [], (scheme, size)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(DESK)  # type: ignore[arg-type]


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_rows_move_unless_the_reader_wants_less_of_it(sure: Visit, motion: Literal["reduce", "no-preference"]) -> None:
    page = sure.page
    page.emulate_media(reduced_motion=motion)
    page.evaluate(COUNT_MOVES)
    page.click("#items li >> nth=0 >> .take")
    page.wait_for_function("() => document.querySelectorAll('#events li').length === 4")
    sure.settled()
    assert (page.evaluate("window.moves") > 0) == (motion == "no-preference")
    page.emulate_media(reduced_motion="no-preference")


COUNT_MOVES = """() => {
  const move = Element.prototype.animate;
  window.moves = 0;
  Element.prototype.animate = function (...how) {
    window.moves += 1;
    return move.apply(this, how);
  };
}"""
