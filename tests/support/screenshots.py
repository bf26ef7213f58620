"""Takes the pictures of the pages for the documentation.

Run it as `python -m tests.support.screenshots --artifact DIR [--out docs/screens]`.

Each page is shown in light, in dark, and on a phone. A real service answers a little load while the console is taken:
the machine should have nothing else to do, since the console shows how long the answers took.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from tests.support.browser import DESK, PHONE, chromium, opened, save, until
from tests.support.processes import OPS, PATIENT, Serve, items_of, serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TOKEN = OPS["Authorization"].removeprefix("Bearer ")
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": DESK},
    "dark": {"color_scheme": "dark", "viewport": DESK},
    "phone": {"color_scheme": "light", "viewport": PHONE},
}
_PAUSE_S = 0.008
_SECONDS = 100
# A browser that starts beside the service takes its processors for a while.
_SETTLE_MS = 6000
# Lists and reasons can be late while the browser starts.
_VISITS = 20


def console(page: Page) -> None:
    """Logged in, with a few minutes of load in the charts."""
    page.get_by_label("Ops token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.locator("#board").wait_for(state="visible")
    until(page, "Number(document.querySelector('#f-rate').textContent) > 0")
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(_SETTLE_MS)


def playground(page: Page) -> None:
    """With the history that a first visit begins with, the list of the model that follows from it, and the reasons."""
    for _ in range(_VISITS):
        page.locator("#items li").first.wait_for()
        until(page, "!document.body.dataset.asking")
        if page.locator("#events.weighed").count() and page.locator("#items .reason:not(:empty)").count():
            return
        page.reload()  # the list came from a lower rung, or its reasons too late
    raise TimeoutError(f"no list of the model with its reasons came in {_VISITS} visits")


PAGES: dict[str, tuple[str, Callable[[Page], None]]] = {
    "console": ("/ops", console),
    "playground": ("/playground", playground),
}


@contextmanager
def load(service: Serve, items: list[str]) -> Iterator[threading.Event]:
    """Requests from a few users, some with too little time, until the end."""
    stop = threading.Event()

    def ask() -> None:
        rng = random.Random(1)
        with httpx.Client(base_url=service.client.base_url, timeout=30.0) as client:
            while not stop.wait(_PAUSE_S * (0.5 + rng.random())):
                user = f"u{rng.randrange(40)}"
                body: dict[str, Any] = {"user_id": user, "k": 10}
                if rng.random() < 0.1:
                    click = {"user_id": user, "item_id": rng.choice(items), "type": "click", "timestamp": time.time()}
                    client.post("/events", json={"events": [click]})
                if rng.random() < 0.02:
                    body["budget_ms"] = 4
                client.post("/recommend", json=body)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield stop
    finally:
        stop.set()
        asking.join()


def pictures(browser: Browser, service: Serve, name: str, out: Path) -> None:
    """Takes one page in every look."""
    path, prepare = PAGES[name]
    for look, context in LOOKS.items():
        with opened(browser, f"{service.client.base_url}{path}", **context) as page:
            prepare(page)
            save(page, out / f"{name}-{look}.png")


def take(artifact: Path, out: Path, names: list[str], seconds: float) -> None:
    settings = {**PATIENT, "GPT4REC_DEADLINE_MS": "80", "GPT4REC_PLAYGROUND": "true"}
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(Path(folder), "--artifact", str(artifact), "--redis", "embedded", **settings) as service,
        chromium() as browser,
    ):
        if "playground" in names:
            pictures(browser, service, "playground", out)
        if "console" in names:
            with load(service, items_of(artifact)) as running:
                for mode, reason in (("fallback", "drill: the switch works"), ("auto", "drill over")):
                    running.wait(seconds / 10)
                    service.client.put("/ops/fallback", headers=OPS, json={"mode": mode, "reason": reason})
                running.wait(seconds * 0.8)
                pictures(browser, service, "console", out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/screens"))
    parser.add_argument("--pages", nargs="*", choices=list(PAGES), default=list(PAGES))
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="Load before the first picture.")
    given = parser.parse_args()
    take(given.artifact, given.out, given.pages, given.seconds)
