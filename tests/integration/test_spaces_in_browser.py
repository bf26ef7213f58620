"""The list of spaces in the console and in the playground, in a real browser: what is chosen is what is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from service.artifact.artifact import Artifact
from tests.integration.test_console import force
from tests.support.browser import accessibility_faults, browser, opened, until
from tests.support.processes import OPS, PATIENT, Serve, recommend, serve
from tests.support.shops import secret_file
from tests.support.valkey import Valkey

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["browser"]

pytestmark = pytest.mark.timeout(120)

OF_THE_PROCESS, OF_SHOES, KEY_OF_BOOKS = "tok", "shoes-operator-token", "books-key"


@dataclass
class Shops:
    """A service whose default space and shoes are open, and whose books are closed.

    Attributes:
        service: The process.
        models: Model version of each space.
    """

    service: Serve
    models: dict[str, str] = field(default_factory=dict)

    def page(self, name: str) -> str:
        return f"http://127.0.0.1:{self.service.port}/{name}"

    def modes(self) -> dict[str, str]:
        found = {}
        for space in self.models:
            answer = self.service.client.get(f"/spaces/{space}/ops/fallback", headers=OPS)
            assert answer.status_code == 200, answer.text
            found[space] = answer.json()["mode"]
        return found


@pytest.fixture(scope="module")
def shops(
    two_versions: tuple[Path, Path], shared_valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shops]:
    folder = tmp_path_factory.mktemp("shops")
    one, other = two_versions
    tokens = secret_file(folder, "shoes.tokens", f"shoes-operator:{OF_SHOES}")
    keys = secret_file(folder, "books.keys", f"shop:{KEY_OF_BOOKS}:users:items")
    spaces = {
        "shoes": {"artifact": str(other), "ops_tokens_file": str(tokens)},
        "books": {"artifact": str(one), "api_keys_file": str(keys)},
    }
    (folder / "spaces.yaml").write_text(yaml.safe_dump({"spaces": spaces}, sort_keys=False), encoding="utf-8")
    settings = {
        **PATIENT, "GPT4REC_SPACES": str(folder / "spaces.yaml"), "GPT4REC_PLAYGROUND": "true",
        "GPT4REC_REDIS_PREFIX": "browsed:",
    }  # fmt: skip
    versions = [Artifact.open(path).model_version for path in two_versions]
    with serve(folder, "--artifact", str(one), "--redis", shared_valkey.url, **settings) as service:
        yield Shops(service, {"default": versions[0], "shoes": versions[1], "books": versions[0]})


def log_in(page: Page, token: str) -> None:
    page.get_by_label("Ops token").fill(token)
    page.get_by_role("button", name="Log in").click()
    page.locator("#board").wait_for(state="visible")


def offered(page: Page) -> list[str]:
    found: list[str] = page.locator("#space option").all_inner_texts()
    return found


def choose(page: Page, space: str) -> None:
    """Chooses a space, and waits until the page that is loaded again has it."""
    with page.expect_navigation():
        page.locator("#space").select_option(space)
    page.locator("#space").wait_for(state="visible")
    assert page.locator("#space").input_value() == space


def shows_the_model(page: Page, version: str) -> None:
    until(page, "(words) => document.querySelector('#model').textContent.includes(words)", version)


def test_the_console_shows_and_changes_the_space_that_is_chosen_and_no_other(browser: Browser, shops: Shops) -> None:
    with opened(browser, shops.page("ops")) as page:
        assert page.locator("#space").is_hidden(), "nobody learns of spaces before the token"
        log_in(page, OF_THE_PROCESS)
        page.locator("#space").wait_for(state="visible")
        assert offered(page) == ["default", "shoes", "books"]
        assert page.locator("#space").input_value() == "default"
        shows_the_model(page, shops.models["default"])

        choose(page, "shoes")
        shows_the_model(page, shops.models["shoes"])
        assert accessibility_faults(page) == []
        force(page, "Fallback", "the shoes alone")
        assert shops.modes() == {"default": "auto", "shoes": "fallback", "books": "auto"}
        assert recommend(shops.service, user_id="nobody")["rung"] == "full"

        page.reload()  # this tab still has both the token and the space
        page.locator("#space").wait_for(state="visible")
        assert page.locator("#space").input_value() == "shoes"
        force(page, "Auto", "the test ends")
        assert set(shops.modes().values()) == {"auto"}

        page.get_by_role("button", name="Log out").click()
        assert page.locator("#space").is_hidden()
        log_in(page, OF_THE_PROCESS)
        page.locator("#space").wait_for(state="visible")
        assert page.locator("#space").input_value() == "default", "who logs out leaves the space as well"


def test_a_token_of_a_space_has_nothing_to_choose_and_opens_no_other(browser: Browser, shops: Shops) -> None:
    with opened(browser, shops.page("ops"), faults=("status of 403",)) as page:
        log_in(page, OF_SHOES)
        shows_the_model(page, shops.models["shoes"])
        until(page, "() => document.querySelectorAll('#space option').length === 1")
        assert page.locator("#space").is_hidden()
        # A choice that another token left behind.
        page.evaluate("sessionStorage.setItem('gpt4rec.space', 'books')")
        page.reload()
        page.locator("#login-fault").wait_for(state="visible")
        assert "belongs to another space" in page.locator("#login-fault").inner_text()
        assert page.locator("#board").is_hidden()
        log_in(page, OF_SHOES)
        shows_the_model(page, shops.models["shoes"])


class Asked:
    """The space that each request of a page names to the service."""

    def __init__(self, page: Page) -> None:
        self.spaces: set[str | None] = set()
        page.on("request", self._noted)

    def _noted(self, request: Any) -> None:
        if "/playground/" in request.url and request.resource_type == "fetch":
            self.spaces.add(request.headers.get("x-gpt4rec-space"))


def listed(page: Page) -> list[str]:
    """The list, once it is that of what is chosen now."""
    until(page, "() => document.querySelector('#items li') && !document.body.dataset.asking")
    found: list[str] = page.eval_on_selector_all("#items li", "rows => rows.map(row => row.dataset.item)")
    return found


def test_the_playground_offers_open_spaces_and_lists_from_the_one_that_is_chosen(
    browser: Browser, shops: Shops
) -> None:
    address = f"{shops.page('playground')}#h=i1&h=i2&h=i5&strategy=beam"
    permissions = ["clipboard-read", "clipboard-write"]
    with opened(browser, address, permissions=permissions) as page:
        before = listed(page)
        assert offered(page) == ["default", "shoes"], "books are closed, so they are not named"
        shows_the_model(page, shops.models["default"])
        asked = Asked(page)
        choose(page, "shoes")
        shown = listed(page)
        shows_the_model(page, shops.models["shoes"])
        assert accessibility_faults(page) == []
        assert asked.spaces == {"shoes"}
        assert shown != before
        page.click("#curl")
        until(page, "() => document.querySelector('#curl').textContent === 'Copied'")
        assert f"{shops.page('spaces/shoes/')}recommend" in page.evaluate("navigator.clipboard.readText()")
        page.reload()
        assert listed(page) == shown
        choose(page, "default")
        assert listed(page) == before


def test_a_key_of_a_closed_space_shows_that_space_whatever_was_chosen_before(browser: Browser, shops: Shops) -> None:
    known = f"if (location.protocol === 'http:') sessionStorage.setItem('gpt4rec.api-key', '{KEY_OF_BOOKS}')"
    with opened(browser, "about:blank", faults=("status of 403",)) as page:
        page.add_init_script(known)
        page.goto(f"{shops.page('playground')}#h=i1&h=i2&strategy=beam")
        shown = listed(page)
        shows_the_model(page, shops.models["books"])
        assert page.locator("#space").is_hidden()
        page.evaluate("sessionStorage.setItem('gpt4rec.space', 'shoes')")
        page.reload()
        assert listed(page) == shown
        shows_the_model(page, shops.models["books"])
        assert page.evaluate("sessionStorage.getItem('gpt4rec.space')") is None
