"""The playground in a real browser, over a model that knows more than histories: conditions, and a memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.test_playground import Visit
from tests.support.artifacts import write_artifact
from tests.support.browser import DESK, browser  # noqa: F401 - a fixture
from tests.support.conditions import CONTEXT, conditional_parts
from tests.support.processes import PATIENT, serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def visit(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:  # noqa: F811
    """A visit to the playground of a model whose scenes have soft prompts; nothing has gone wrong in it at its end."""
    folder = tmp_path_factory.mktemp("conditions")
    artifact = write_artifact(folder / "artifacts", conditional_parts("scene"))
    with serve(folder, "--artifact", str(artifact), **{**PATIENT, "GPT4REC_PLAYGROUND": "true"}) as service:
        page = browser.new_page(viewport=DESK)  # type: ignore[arg-type]
        visit = Visit(page, service, "#h=i1&h=i2&h=i5&strategy=beam").settled()
        yield visit
        visit.leave()
        page.close()


def listed(visit: Visit) -> list[str]:
    """The items and their scores, once the list is that of what is chosen now."""
    return [*visit.settled().items, *visit.page.locator("#items .score").all_inner_texts()]


def test_every_condition_is_chosen_on_the_page_reaches_the_request_and_moves_the_list(visit: Visit) -> None:
    visit.page.get_by_text("Who and where").click()
    plain = listed(visit)
    fields = {slot: f"#{'code' if slot in CONTEXT.controls else 'who'}-{slot}" for slot in CONTEXT.slots}
    for slot, field in fields.items():
        visit.page.select_option(field, max(CONTEXT.values[slot]))
        assert listed(visit) != plain, slot
        visit.page.select_option(field, "")
        assert listed(visit) == plain, slot
    for slot, field in fields.items():
        visit.page.select_option(field, min(CONTEXT.values[slot]))
    body = visit.settled().bodies[-1]
    assert body["features"] == {"age": "old", "segment": "gift"}
    assert body["scene"] == "basket"
    assert body["context"] == {"price_band": "high", "style": "oak", "category": "a"}


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        (
            {"events": [0.1, 0.6, 0.2], "sessions": None, "slots": [0.1, 0.2, 0.7], "horizons": None},
            r"Read from memory: slots 3 \(70.%\), 2 \(20.%\), 1 \(10.%\); of events most from Item 2, .* \(60.%\)\.",
        ),
        (
            {"events": [0.1, 0.2, 0.6], "sessions": [0, 0, 1], "slots": None, "horizons": {"hours": 0.7, "days": 0.3}},
            r"Read from memory: the session of event 3 most \(60.%\); .*means over hours 70.%, days 30.%\.",
        ),
    ],
    ids=["slots of a bank", "sessions and horizons"],
)
def test_what_was_read_from_a_memory_is_told_below_the_history(visit: Visit, memory: dict[str, Any], said: str) -> None:
    """The service's answer says what `test_step_encoder.py` shows of real memories."""

    def with_memory(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        route.fulfill(response=answer, json={**body, "why": {**body["why"], "memory": memory}})

    visit.page.route("**/playground/lists", with_memory)
    visit.page.fill("#seed", str(len(said)))
    told = visit.settled().text("#memory")
    visit.page.unroute_all()
    assert re.fullmatch(said, told), told
