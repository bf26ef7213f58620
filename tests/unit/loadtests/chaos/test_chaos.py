"""What faults are judged by: what is wrong with a list, and which promises the requests of a run broke."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from loadtests.chaos.__main__ import FAULTS
from loadtests.chaos.load import EVENTS, RECOMMEND, Load, Seen, wrong
from loadtests.chaos.scene import Allowed, Fault, Scene, _Timeline, stored_history
from service.recommend.request_plan import HISTORY_NOT_READ

CATALOGUE = frozenset("abcdef")
FAULT = Fault("a fault", "redis", "what is done", "what is promised", lambda _: None)


def answer(ids: str, reason: str | None = None, *warnings: str) -> dict[str, Any]:
    return {"items": [{"item_id": one} for one in ids], "reason": reason, "warnings": warnings}


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (answer("abc"), None),
        (answer("abx"), "x is not in the catalogue"),
        (answer("aba"), "an item twice"),
        (answer("ab"), "2 items of 3, without a reason"),
        (answer("ab", "not_enough_items"), None),
        (answer("fab"), "f was seen by an event acknowledged before"),
        (answer("fab", "overload"), "f was seen by an event acknowledged before"),
        (answer("fab", "state_unavailable", HISTORY_NOT_READ), None),
    ],
    ids=["right", "unknown", "double", "short", "short with a reason", "seen", "seen below the model", "no history"],
)
def test_a_wrong_list_is_told_from_one_that_knows_less(found: dict[str, Any], fault: str | None) -> None:
    assert wrong(found, {"f"}, CATALOGUE, k=3) == fault


def scene(seen: list[Seen], **allowed: Any) -> Scene:
    """After a run whose fault lasted from 10 to 20, and that was well again at 21."""
    running = SimpleNamespace(seen=seen, wrong=[], undone=0)
    times = _Timeline(10.0, 20.0, 21.0)
    return Scene(Path(), Path(), allowed=Allowed(**allowed), running=cast("Load", running), _times=times)


def lists(due: float, count: int = 100, *, took_s: float = 0.01, reason: str | None = None) -> list[Seen]:
    rung = "full" if reason is None else "popular"
    return [Seen(RECOMMEND, due, took_s, 200, rung, reason) for _ in range(count)]


def test_a_fault_may_do_what_it_is_allowed_and_its_entry_counts_it() -> None:
    seen = [*lists(1.0), *lists(12.0, reason="state_unavailable"), Seen(EVENTS, 12.0, 0.01, 503), *lists(22.0)]
    entry = scene(seen, reasons={"state_unavailable"}, refused=True).entry(FAULT)
    assert (entry["holds"], entry["broken"]) == (True, [])
    assert entry["answers"] == {"full": 200, "narrow": 0, "item_cf": 0, "popular": 100}
    assert (entry["requests"], entry["reasons"]) == (301, {"state_unavailable": 100})
    assert (entry["errors"], entry["events"]["refused"]) == ({"/events 503": 1}, 1)
    assert (entry["late"], entry["p99_ms"], entry["recovery_s"]) == (0, 10.0, 1.0)


@pytest.mark.parametrize(
    ("more", "broken"),
    [
        ([Seen(RECOMMEND, 12.0, 0.01, 500)], "1 times /recommend 500 during the fault"),
        ([Seen(RECOMMEND, 12.0, None, "cut off")], "1 times /recommend cut off during the fault"),
        ([Seen(EVENTS, 12.0, 0.01, 500)], "1 times /events 500 during the fault"),
        ([Seen(EVENTS, 25.0, 0.01, 503)], "1 times /events 503 without a fault"),
        (lists(12.0, 10, took_s=0.2), "10 of 310 lists late"),
        (lists(12.0, 10, reason="model_error"), "answers for other reasons than the fault's: 10 × model_error"),
    ],
    ids=["5xx", "no answer", "events broke", "refused when well", "late", "another reason"],
)
def test_what_a_fault_does_beyond_breaks_a_promise(more: list[Seen], broken: str) -> None:
    seen = [*lists(1.0), *lists(12.0, reason="state_unavailable"), *lists(22.0), *more]
    assert scene(seen, reasons={"state_unavailable"}, refused=True).entry(FAULT)["broken"] == [broken]


def test_every_fault_has_a_name_of_its_own() -> None:
    for one, other in itertools.combinations(FAULTS, 2):
        assert one.name != other.name
    assert not {fault.name for fault in FAULTS} & {fault.group for fault in FAULTS}


def test_a_refused_history_is_asked_for_again_and_counts_no_event_as_lost() -> None:
    answers = iter(
        [httpx.Response(503, json={"title": "busy"}), httpx.Response(200, json={"history": [{"event_id": "e"}]})]
    )
    transport = httpx.MockTransport(lambda _: next(answers))
    with httpx.Client(transport=transport, base_url="http://test") as client:
        assert stored_history(client, "u") == [{"event_id": "e"}]
