"""The operators' console in a real browser, on a real service and a real Valkey."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import redis

from service.artifact.features import EVENT_TYPES
from service.experiments.outcomes import DAY_S, Outcomes, Place, packed
from service.experiments.sums import Sums
from service.watch.baseline import ENTRY, Distribution, WatchBaseline
from tests.support.artifacts import write_artifact
from tests.support.browser import PHONE, accessibility_faults, browser, opened, scrolls_sideways, until
from tests.support.processes import OPS, PATIENT, Serve, T, event, recommend, serve
from tests.support.valkey import Valkey

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["browser"]

TOKEN = "tok"
ONE_SEGMENT = {"segments": [{"name": "all", "decoding": {"strategy": "greedy"}}], "default": "all"}
REFUSED = ("status of 401",)


@pytest.fixture(scope="module")
def artifact(random_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact with another version beside it."""
    models = tmp_path_factory.mktemp("models")
    write_artifact(models, seed=1)
    return Path(shutil.copytree(random_artifact, models / random_artifact.name))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def service(artifact: Path, store: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    folder = tmp_path_factory.mktemp("serve")
    settings = {**PATIENT, "GPT4REC_REDIS_WRITE_TIMEOUT_MS": "250"}
    with serve(folder, "--artifact", str(artifact), "--redis", store.url, **settings) as running:
        yield running


def address(service: Serve) -> str:
    return f"http://127.0.0.1:{service.port}/ops"


def log_in(page: Page, token: str = TOKEN) -> None:
    page.get_by_label("Ops token").fill(token)
    page.get_by_role("button", name="Log in").click()


def live(page: Page) -> None:
    log_in(page)
    page.locator("#board").wait_for(state="visible")


def says(page: Page, selector: str, words: str) -> None:
    """Waits until the text of an element holds these words."""
    until(page, "([s, w]) => document.querySelector(s).textContent.includes(w)", [selector, words])


def force(page: Page, mode: str, reason: str, *, minutes: float | None = None) -> None:
    page.get_by_role("button", name=mode, exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill(reason)
    if minutes is not None:
        dialog.get_by_label("Back to auto after").select_option("other")
        dialog.get_by_label("Minutes").fill(str(minutes))
    dialog.locator("#confirm-go").click()
    dialog.wait_for(state="hidden")


def share_outcomes(store: Valkey) -> None:
    """Writes what lists earned today as a sink does."""
    today = int(time.time()) // DAY_S
    model, none = Outcomes(Sums(lists=2000, clicked=100), viewed=1500, conversions=7, value=31), Outcomes(Sums(lists=9))
    found = {
        Place(today, "all", "all"): model, Place(today, "model", "m-1"): model,
        Place(today, "arm", "ranker=<b>"): none, Place(today - 9, "model", "of last week"): none,
    }  # fmt: skip
    with redis.Redis.from_url(store.url) as client:
        client.hset("gpt4rec:{ops}:outcomes", mapping=packed(found))


def rung(service: Serve) -> str:
    return str(recommend(service, user_id="nobody")["rung"])


@pytest.fixture
def auto(service: Serve) -> Iterator[Serve]:
    """The service, whose mode is given back at the end."""
    yield service
    answer = service.client.put("/ops/fallback", headers=OPS, json={"mode": "auto", "reason": "the test ends"})
    assert answer.status_code == 200


def test_a_wrong_token_shows_nothing_and_a_right_one_stays_out_of_the_address(browser: Browser, service: Serve) -> None:
    with opened(browser, address(service), faults=REFUSED) as page:
        log_in(page, "wrong")
        says(page, "#login-fault", "not an ops token of this service")
        assert page.locator("#board").is_hidden()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        live(page)
        says(page, "#link", "Live")
        assert page.evaluate("localStorage.length") == 0
        assert not any(TOKEN in url.partition("/ops")[2] for url in [*asked, page.url])
        page.reload()  # this tab still has it
        page.locator("#board").wait_for(state="visible")
        page.get_by_role("button", name="Log out").click()
        page.reload()
        assert page.locator("#login").is_visible()


def test_the_switch_is_felt_by_the_next_request_and_ends_by_itself(browser: Browser, auto: Serve) -> None:
    with opened(browser, address(auto)) as page:
        live(page)
        assert rung(auto) == "full"
        says(page, "#f-model", "100 %")
        page.get_by_role("button", name="Fallback", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name="Force the fallback").click()
        assert page.get_by_role("dialog").is_visible()  # not without a reason
        page.get_by_role("button", name="Cancel").click()
        assert rung(auto) == "full"
        force(page, "Fallback", "<b>drill</b>", minutes=5)
        assert rung(auto) == "popular"
        says(page, "#mode-name", "Fallback forced")
        says(page, "#mode-left", "min left")
        until(
            page, "s => document.querySelector('#mode-left').textContent < s", page.locator("#mode-left").text_content()
        )
        says(page, "#verdict", "fallback is forced by alice")
        says(page, "#audit", "forced the mode fallback")
        says(page, "#audit", "<b>drill</b>")  # shown as it was typed
        force(page, "Fallback", "soon over", minutes=0.05)
        says(page, "#audit", "soon over")
        says(page, "#mode-name", "Auto")
        assert rung(auto) == "full"
        assert page.locator("#mode-left").text_content() == ""


def test_redis_away_is_shown_and_the_switch_works_and_says_that_it_holds_here_only(
    browser: Browser, auto: Serve, store: Valkey
) -> None:
    share_outcomes(store)
    with opened(browser, address(auto)) as page:
        live(page)
        says(page, "#mode-shared", "on every replica")
        says(page, "#outcomes", "m-1")
        store.sigstop()
        try:
            says(page, "#verdict", "Redis cannot be used (there was no reply in time")
            says(page, "#outcomes-fault", "Redis cannot be used (there was no reply in time")
            says(page, "#outcomes-fault", "These figures are of")
            says(page, "#outcomes", "m-1")
            force(page, "Fallback", "no Redis")
            says(page, "#mode-shared", "here only")
            says(page, "#verdict", "applies on this replica only")
            assert rung(auto) == "popular"
            assert recommend(auto, user_id="nobody")["reason"] == "forced"
        finally:
            store.sigcont()
        says(page, "#mode-shared", "on every replica")
        says(page, "#audit", "no Redis")
        page.locator("#outcomes-fault").wait_for(state="hidden")
        says(page, "#outcomes", "m-1")


def test_a_console_opened_while_redis_is_away_says_so_and_shows_what_came_of_the_lists_later(
    browser: Browser, service: Serve, store: Valkey
) -> None:
    share_outcomes(store)
    store.sigstop()
    try:
        with opened(browser, address(service)) as page:
            live(page)
            says(page, "#outcomes-fault", "The figures will be here when it is back")
            assert page.locator("#outcomes-table").is_hidden()
            assert accessibility_faults(page) == []
            store.sigcont()
            says(page, "#outcomes", "m-1")
            page.locator("#outcomes-fault").wait_for(state="hidden")
    finally:
        store.sigcont()


def test_everything_can_be_done_by_keyboard(browser: Browser, auto: Serve) -> None:
    with opened(browser, address(auto)) as page:
        page.keyboard.type(TOKEN)  # the field has the focus
        page.keyboard.press("Enter")
        page.locator("#board").wait_for(state="visible")
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.dataset.mode") == "fallback":
                break
        assert page.evaluate("document.activeElement.matches(':focus-visible')")
        page.keyboard.press("Enter")
        page.keyboard.type("by keyboard")
        page.keyboard.press("Enter")
        says(page, "#mode-why", "alice: by keyboard")
        assert page.evaluate("document.activeElement.dataset.mode") == "fallback"  # where it was before the dialog
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        assert page.get_by_role("dialog").is_hidden()
        assert rung(auto) == "popular"


def test_what_came_of_the_lists_is_shown_by_group(browser: Browser, service: Serve, store: Valkey) -> None:
    share_outcomes(store)
    with opened(browser, address(service)) as page:
        live(page)
        says(page, "#outcomes", "m-1")
        assert page.locator("#outcomes tr").all_inner_texts() == [
            "m-1\t2000\t5 %\t3.5\t15.5", "all lists\t2000\t5 %\t3.5\t15.5"
        ]  # fmt: skip
        page.get_by_role("button", name="Arm", exact=True).click()
        says(page, "#outcomes", "ranker=<b>")
        assert accessibility_faults(page) == []
    answer = service.client.get("/ops/outcomes", headers=OPS).json()
    assert [row["group"] for row in answer["groups"]["model"]] == ["m-1"]


def experiment(service: Serve, name: str) -> dict[str, Any]:
    answer = service.client.get(f"/ops/experiments/{name}", headers=OPS)
    found: dict[str, Any] = answer.json()
    return found


def test_experiments_are_shown_and_each_change_is_shown_before_it_is_made(
    browser: Browser, service: Serve, store: Valkey
) -> None:
    today = int(time.time()) // DAY_S
    good, better = Sums(700, 1000, 200, 1900, 250, 330), Sums(700, 1000, 240, 1900, 290, 370)
    earned = {Place(today, "arm", f"try={arm}"): Outcomes(sums) for arm, sums in (("old", good), ("new", better))}
    with redis.Redis.from_url(store.url) as client:
        client.hset("gpt4rec:{ops}:outcomes", mapping=packed(earned))
    with opened(browser, address(service)) as page:
        live(page)
        says(page, "#experiments-note", "None so far")
        page.get_by_text("Start an experiment").click()
        page.get_by_label("Name", exact=True).fill("try")
        page.get_by_label("Share of the users, %").fill("50")
        page.get_by_role("button", name="Show what it would do").click()
        says(page, "#confirm-would", "start try in the layer default with 50.00% of its subjects")
        says(page, "#confirm-would", "go back by itself")
        assert accessibility_faults(page) == []
        assert service.client.get("/ops/experiments/try", headers=OPS).status_code == 404
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Reason").fill("a test")
        dialog.get_by_role("button", name="Start it").click()
        says(page, "#experiments", "canary, step 1 of 4: 2 % let in of 50 % of the layer default")
        says(page, "#experiments", "+20 % (")
        says(page, "#experiments", "Shares of the arms hold")
        assert experiment(service, "try")["state"] == "running"
        page.get_by_role("button", name="Promote new of try").click()
        says(page, "#confirm-would", "activate the model")
        dialog.get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Stop try").click()
        says(page, "#confirm-would", "end try: all its subjects, 1.00% of the layer default")
        dialog.get_by_label("Reason").fill("seen enough")
        dialog.get_by_role("button", name="Stop it").click()
        says(page, "#experiments", "seen enough")
        assert experiment(service, "try")["state"] == "stopped"
        shadow = {"name": "behind", "kind": "shadow", "arms": [{"name": "next", "policies": ONE_SEGMENT}]}
        assert service.client.post("/ops/experiments", headers=OPS, json=shadow).status_code == 200
        assert recommend(service, user_id="u1")["rung"] == "full"
        deadline = time.monotonic() + 20.0
        while not sum(experiment(service, "behind")["shadow"]["requests"].values()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        page.reload()
        says(page, "#experiments", "shadow of 100 % of the requests")
        says(page, "#experiments", "Candidate: policies of all.")
        page.set_viewport_size({"width": 390, "height": 844})
        assert not scrolls_sideways(page)
        assert accessibility_faults(page) == []
    assert service.client.post("/ops/experiments/behind/stop", headers=OPS, json={}).status_code == 200


def test_policies_are_edited_tried_on_recent_requests_and_found_in_the_audit(browser: Browser, service: Serve) -> None:
    for user in ("p1", "p2"):
        recommend(service, user_id=user)
    with opened(browser, address(service)) as page:
        live(page)
        page.locator("#policies-box summary").click()
        says(page, "#policies-origin", "from the file")
        editor = page.get_by_label("Policies, as JSON")
        editor.fill("{ not JSON")
        page.get_by_role("button", name="Preview and set").click()
        says(page, "#policies-fault", "This is no JSON")
        assert accessibility_faults(page) == []
        editor.fill(json.dumps(ONE_SEGMENT))
        page.get_by_role("button", name="Preview and set").click()
        says(page, "#confirm-would", "of the last")
        says(page, "#confirm-would", "to all")
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Reason").fill("one for everybody")
        dialog.locator("#confirm-go").click()
        dialog.wait_for(state="hidden")
        says(page, "#policies-origin", "set by")
        assert service.client.get("/ops/policies", headers=OPS).json()["default"] == "all"
        says(page, "#audit", "one for everybody")
        page.get_by_label("Of", exact=True).select_option("policies")
        until(
            page,
            "() => [...document.querySelectorAll('#audit li')].every(li => li.textContent.includes('polic'))",
            None,
        )
        page.get_by_label("With the words").fill("no such words")
        says(page, "#audit-none", "No change is like that")
        page.get_by_role("button", name="Segment", exact=True).first.click()
        page.get_by_role("button", name="Back to the file").click()
        page.get_by_role("dialog").get_by_label("Reason").fill("the test ends")
        page.locator("#confirm-go").click()
        says(page, "#policies-origin", "from the file")


def test_an_item_is_found_with_a_typo_taken_out_of_all_lists_and_let_in_again(browser: Browser, service: Serve) -> None:
    put = service.client.put(
        "/items/new-1", headers=OPS, json={"title": "Walnut bookshelf", "price": 129.0, "currency": "EUR"}
    )
    assert put.status_code == 200, put.text
    with opened(browser, address(service)) as page:
        live(page)
        page.get_by_label("Find an item by title or id").fill("walnot booksh")
        says(page, "#catalogue", "Walnut bookshelf")
        says(page, "#catalogue", "129 EUR")
        says(page, "#catalogue-changes", "new-1")
        page.get_by_role("button", name="Disable Walnut bookshelf").click()
        assert accessibility_faults(page) == []
        page.locator("#confirm-go").click()
        says(page, "#catalogue", "disabled")
        assert service.client.get("/items/new-1").json()["disabled"]
        page.get_by_role("button", name="Enable Walnut bookshelf").click()
        page.locator("#confirm-go").click()
        page.get_by_role("button", name="Disable Walnut bookshelf").wait_for()
        page.get_by_label("Find an item by title or id").fill("no such thing at all")
        says(page, "#catalogue-note", "No item is like that")
    assert service.client.delete("/items/new-1", headers=OPS).status_code == 200


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_contrast_and_a_phones_width_are_right(browser: Browser, service: Serve, scheme: Any) -> None:
    with opened(browser, address(service), viewport=PHONE, color_scheme=scheme) as page:
        assert accessibility_faults(page) == []
        live(page)
        says(page, "#models", "active")
        for width in (390, 360, 1280):
            page.set_viewport_size({"width": width, "height": 844})
            assert not scrolls_sideways(page)
            assert accessibility_faults(page) == []
        page.get_by_role("button", name="Fallback", exact=True).click()
        assert accessibility_faults(page) == []


def with_baseline(artifact: Path, copy: Path) -> Path:
    """A copy of an artefact whose manifest says that all events were views."""
    shutil.copytree(artifact, copy)
    shares = np.array([float(name == "view") for name in EVENT_TYPES])
    views = Distribution(EVENT_TYPES, shares, 100, [50.0], [0.1])
    manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
    manifest[ENTRY] = WatchBaseline({"event_types": views}, np.arange(9.0)).to_json()
    (copy / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return copy


def test_the_panel_of_lists_and_traffic_says_what_moved_from_the_models_baseline(
    browser: Browser, artifact: Path, service: Serve, store: Valkey, tmp_path: Path
) -> None:
    with opened(browser, address(service)) as page:
        live(page)
        says(page, "#watch-state", "no baseline")
        says(page, "#watch-note", "Export the model again")
    known = with_baseline(artifact, tmp_path / "artifact")
    with (
        serve(
            tmp_path, "--artifact", str(known), "--redis", store.url, GPT4REC_REDIS_PREFIX="w:", **PATIENT
        ) as watched,
        opened(browser, address(watched)) as page,
    ):
        live(page)
        says(page, "#watch-note", "Too few users")
        recommend(watched, user_id="new")
        events = [event(f"u{n}", "0", T, type="cart") for n in range(60)]
        assert watched.client.post("/events", json={"events": events}).status_code == 200
        says(page, "#watch-figures", "Lists: 1, events: 60")
        says(page, "#watch-figures", "100 % new users")
        says(page, "#watch", "Events: type")
        says(page, "#watch", "view: 100 % → 0 %")
        assert page.locator("#watch .hot").count() >= 1
        assert accessibility_faults(page) == []


def test_a_console_says_that_the_service_is_gone_and_comes_back_with_it(
    browser: Browser, artifact: Path, store: Valkey, tmp_path: Path
) -> None:
    arguments = ("--artifact", str(artifact), "--redis", store.url)
    # The page connects again at once: while the service drains it is refused with 503, later there is nobody.
    faults = ("ERR_", "status of 503")
    with serve(tmp_path, *arguments, **PATIENT) as first, opened(browser, address(first), faults=faults) as page:
        live(page)
        assert first.stop() == 0  # a stream does not keep a process alive
        says(page, "#link", "Reconnecting")
        says(page, "#verdict", "does not answer this console")
        again = [*arguments, "--port", str(first.port)]
        page.route("**/ops/stream", lambda route: route.abort())  # else it may come back before it is told to
        with serve(tmp_path, *again, **PATIENT):
            button = page.get_by_role("button", name="Connect now")
            button.wait_for(state="visible")
            page.unroute("**/ops/stream")
            button.dispatch_event("click")
            says(page, "#link", "Live")
        with httpx.Client() as client, pytest.raises(httpx.TransportError):
            client.get(address(first))


# A stream whose tries all fail. It is told to connect now while the first try is under way.
HURRIED = """async () => {
  const { Stream } = await import("./assets/console-stream.js");
  const states = [];
  let tries = 0;
  const stream = await new Promise((done) => {
    window.fetch = async () => {
      tries += 1;
      if (tries === 1) await Promise.resolve().then(() => held.now());
      else done(held);
      throw new TypeError("nobody is there");
    };
    const held = new Stream("token", { link: (state) => states.push(state), status() {}, refused() {} });
  });
  stream.close();
  return states;
}"""


def test_a_wish_to_connect_now_is_kept_while_a_try_is_under_way(browser: Browser, service: Serve) -> None:
    with opened(browser, address(service)) as page:
        assert page.evaluate(HURRIED)[:2] == ["connecting", "connecting"]


def test_workers_are_shown_as_one_service(artifact: Path, store: Valkey, tmp_path: Path) -> None:
    with serve(tmp_path, "--artifact", str(artifact), "--redis", store.url, "--workers", "2", **PATIENT) as service:
        for worker in (1, 2):
            own = httpx.post(f"http://127.0.0.1:{service.port + worker}/recommend", json={"user_id": "u"}, timeout=30.0)
            assert own.status_code == 200
        deadline = time.monotonic() + 20.0
        while (told := status(service))["traffic"]["answers"] < 2:
            assert time.monotonic() < deadline, told
            time.sleep(0.1)
        assert told["service"]["workers_answering"] == len(told["workers"]) == 2
        assert told["traffic"]["source"] == {"gpt4rec": 2}
        assert [row["answers"] for row in status(service, 300)["series"] if row["answers"]] in ([2], [1, 1])


def status(service: Serve, series_s: int = 0) -> dict[str, Any]:
    answer = service.client.get(f"/ops/status?series_s={series_s}", headers=OPS)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_shell_is_told_the_same(service: Serve) -> None:
    command = [sys.executable, "-m", "service.cli", "ops", "status", "--url", address(service)[:-4], "--token", TOKEN]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for words in ("mode           auto", "breaker        closed", "redis          works", "burn latency"):
        assert words in shown
    told = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True, text=True).stdout)
    assert told.keys() == status(service).keys()
