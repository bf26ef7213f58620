"""Histories at the time of a list hold what was received by then, and move with merges."""

from __future__ import annotations

from typing import Any

from model.online.attribution import attribute
from model.online.log_schema import frame_of
from model.online.rebuilt_histories import Histories


def event(subject: str, item: str | None, time_ms: int, received_ms: int, kind: str = "click") -> dict[str, Any]:
    return {"subject": subject, "item_id": item, "type": kind, "time_ms": time_ms, "received_ms": received_ms}


def test_a_history_holds_the_events_received_by_then_in_their_own_order() -> None:
    events = [
        event("u:a", "x", 5, 6), event("u:a", "y", 2, 9), event("u:a", "z", 3, 3, "impression"),
        event("u:a", None, 4, 4, "search"), event("u:b", "w", 1, 1),
    ]  # fmt: skip
    histories = Histories(joined(events, []))
    assert histories.before("u:a", 8).item_ids == ("x",)
    assert histories.before("u:a", 9).item_ids == ("y", "x")
    assert histories.before("u:a", 9).times_ms == (2, 5)
    assert histories.before("u:new", 9).item_ids == ()


def test_the_history_of_a_session_moves_to_the_user() -> None:
    events = [event("s:1", "x", 1, 1), event("u:a", "y", 2, 2), event("s:1", "z", 12, 12)]
    histories = Histories(joined(events, [{"subject": "s:1", "into": "u:a", "merged_ms": 10}]))
    assert [histories.before("s:1", t).item_ids for t in (9, 10, 12)] == [("x",), (), ("z",)]
    assert [histories.before("u:a", t).item_ids for t in (9, 10, 12)] == [("y",), ("x", "y"), ("x", "y")]


def joined(events: list[dict[str, Any]], merges: list[dict[str, Any]]) -> Any:
    tables = (frame_of("exposures", []), frame_of("events", events), frame_of("merges", merges), frame_of("erased", []))
    return attribute(*tables).outcomes
