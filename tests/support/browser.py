"""Headless Chromium for tests: the system's, driven by playwright. Tests that ask for it skip themselves without it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_MS = 20_000
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 800}

# WCAG 2.2: contrast of what text is drawn on; [text, ratio, needed] of every place below it.
_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], under) => [r, g, b].map((v, i) => v * a + under[i] * (1 - a));
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    if (!node) return [255, 255, 255];
    const colour = rgba(getComputedStyle(node).backgroundColor);
    return colour[3] === 1 ? colour.slice(0, 3) : over(colour, ground(node.parentElement));
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const words = walker.currentNode.data.trim(), node = walker.currentNode.parentElement;
    if (!words || !node.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    if (node.closest(":disabled, [aria-hidden=true], option, script, style")) continue;
    const style = getComputedStyle(node), under = ground(node), ink = over(rgba(style.color), under);
    const [a, b] = [light(ink), light(under)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push([words.slice(0, 40), Math.round(ratio * 100) / 100, large ? 3 : 4.5]);
  }
  return found;
}"""
# Names and structure that assistive technology needs; a sentence for each fault.
_STRUCTURE = """() => {
  const faults = [], shown = (node) => node.checkVisibility({visibilityProperty: true});
  const ids = [...document.querySelectorAll("[id]")].map((n) => n.id);
  for (const id of ids.filter((id, i) => ids.indexOf(id) !== i)) faults.push(`two elements are #${id}`);
  if (!document.documentElement.lang) faults.push("the page has no language");
  if (!document.title) faults.push("the page has no title");
  if (document.querySelectorAll("main").length !== 1) faults.push("there is not one main");
  if (document.querySelectorAll("h1").length !== 1) faults.push("there is not one h1");
  const words = (id) => document.getElementById(id)?.textContent.trim();
  const named = "button, a[href], input, select, textarea, dialog, [role=img], [role=group], section";
  for (const node of document.querySelectorAll(named)) {
    if (!shown(node)) continue;
    const by = (node.getAttribute("aria-labelledby") || "").split(" ").map(words).join(" ").trim();
    const label = [...(node.labels || [])].map((l) => l.textContent).join(" ").trim();
    const own = node.matches("button, a") ? node.textContent.trim() || node.querySelector("img[alt]")?.alt : "";
    const name = by || label || own || node.getAttribute("aria-label") || node.title;
    if (!name) faults.push(`${node.outerHTML.slice(0, 90)} has no name`);
  }
  for (const image of document.querySelectorAll("img:not([alt])")) faults.push(`${image.src} has no alt`);
  for (const node of document.querySelectorAll("[aria-labelledby], [aria-describedby]"))
    for (const at of ["aria-labelledby", "aria-describedby"])
      for (const id of (node.getAttribute(at) || "").split(" "))
        if (id && !document.getElementById(id)) faults.push(`nothing is #${id}`);
  for (const cell of document.querySelectorAll("thead th:not([scope])")) faults.push(`${cell.textContent} heads none`);
  return faults;
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a profile; its folder goes with it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        # As root, and in containers with a small /dev/shm, it needs these two.
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a module: each opens a page of its own with `opened`."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    pytest.importorskip("playwright.sync_api")
    with chromium() as running:
        yield running


@contextmanager
def opened(
    browser: Browser, url: str, *, faults: tuple[str, ...] = (), viewport: dict[str, int] | None = None, **context: Any
) -> Iterator[Page]:
    """A page in a context of its own. Whatever it says on its console as an error (a broken policy included), and every
    exception, fails the test at its end, but for those that hold one of `faults`."""
    held = browser.new_context(viewport=viewport or DESK, **context)  # type: ignore[arg-type]
    said: list[str] = []
    try:
        page = held.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.goto(url)
        yield page
    finally:
        held.close()
    unexpected = [words for words in said if not any(fault in words for fault in faults)]
    assert not unexpected, unexpected


def until(page: Page, expression: str, argument: Any = None) -> None:
    """Waits until a JavaScript expression holds. Evaluated from here: the pages forbid evaluation in themselves."""
    deadline = time.monotonic() + PATIENCE_MS / 1000.0
    while not page.evaluate(expression, argument):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def accessibility_faults(page: Page) -> list[Any]:
    """What is wrong with the page as it is shown: contrast, names, structure."""
    return [*page.evaluate(_CONTRAST), *page.evaluate(_STRUCTURE)]


def scrolls_sideways(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


def save(page: Page, path: Path, most_bytes: int = 250_000) -> None:
    """A screenshot of what is in view. Raises ValueError where the file would be too large to keep."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path, animations="disabled")
    if path.stat().st_size > most_bytes:
        raise ValueError(f"{path} is larger than {most_bytes} bytes")
