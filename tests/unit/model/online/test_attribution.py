"""The join of lists and events, against plain loops."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from loadtests.loop.random_logs import RandomLog, random_log
from model.online.attribution import Attributed, Reading, attribute
from model.online.log_schema import frame_of
from model.reference.attribution import attribute_plainly

MINUTE = 60_000


def joined(log: RandomLog, reading: Reading | None = None) -> Attributed:
    return attribute(
        frame_of("exposures", log.exposures),
        frame_of("events", log.events),
        frame_of("merges", log.merges),
        frame_of("erased", log.erased),
        reading,
    )


def shown(list_id: str, subject: str, time_ms: int, items: str, request_id: str = "") -> dict[str, Any]:
    return {
        "list_id": list_id, "request_id": request_id, "subject": subject, "time_ms": time_ms, "items": items.split()
    }  # fmt: skip


def event(subject: str, item: str | None, time_ms: int, **more: Any) -> dict[str, Any]:
    base = {
        "subject": subject, "item_id": item, "type": "click", "time_ms": time_ms, "event_id": None, "value": None,
        "query": None, "request_id": None, "list_id": None, "received_ms": time_ms,
    }  # fmt: skip
    return {**base, **more}


def marks(log: RandomLog) -> list[tuple[str | None, int | None, str]]:
    return joined(log).outcomes.select("list_id", "position", "mark").rows()


@pytest.mark.parametrize("seed", range(10))
def test_random_logs_are_joined_as_the_plain_loops_join_them(seed: int) -> None:
    log = random_log(seed, events=60 + 20 * (seed % 4), subjects=3 + seed % 5)
    lists, outcomes = attribute_plainly(log.exposures, log.events, log.merges, log.erased, 30 * MINUTE)
    found = joined(log)
    assert sorted(found.lists["list_id"]) == sorted(lists)
    fields = ("subject", "item_id", "type", "time_ms", "event_id", "received_ms")
    expected = [(*(log.events[o.event][name] for name in fields), o.list_id, o.position, o.mark) for o in outcomes]
    assert found.outcomes.select(*fields, "list_id", "position", "mark").rows() == expected
    assert {mark for *_, mark in expected} == {"named", "by_request", "inferred", "unmatched"}


def test_an_event_belongs_to_the_list_that_it_names_or_to_none() -> None:
    log = RandomLog(
        [shown("L1", "u:a", 0, "x y"), shown("L2", "u:a", 1, "x y")],
        [
            event("u:a", "y", 5, list_id="L1"),
            event("u:a", "z", 5, list_id="L1"),
            event("u:b", "y", 5, list_id="L1"),
            event("u:a", "x", 5),
        ],
        [], [],
    )  # fmt: skip
    none = (None, None, "unmatched")
    assert marks(log) == [("L1", 2, "named"), none, none, ("L2", 1, "inferred")]


def test_no_event_belongs_to_a_list_shown_after_it() -> None:
    log = RandomLog(
        [shown("L1", "u:a", 10, "x", "r")],
        [event("u:a", "x", 9, list_id="L1"), event("u:a", "x", 8, request_id="r"), event("u:a", "x", 7)],
        [], [],
    )  # fmt: skip
    assert {mark for *_, mark in marks(log)} == {"unmatched"}


def test_the_lists_of_a_session_belong_to_the_user_once_it_is_merged() -> None:
    merges = [{"subject": "s:1", "into": "u:a", "merged_ms": 100}]
    log = RandomLog(
        [shown("L1", "s:1", 50, "x y z"), shown("L2", "s:1", 150, "x")],
        [
            event("u:a", "x", 60, received_ms=99),
            event("u:a", "y", 60, received_ms=100),
            event("u:a", "z", 120, list_id="L1"),
            event("u:a", "x", 160, list_id="L2"),
        ],
        merges, [],
    )  # fmt: skip
    assert [list_id for list_id, *_ in marks(log)] == [None, "L1", "L1", None]
    assert joined(log).lists["owner"].to_list() == ["u:a", "s:1"]


def test_of_duplicates_the_first_that_was_received_counts() -> None:
    log = RandomLog(
        [shown("L1", "u:a", 0, "x y")],
        [
            event("u:a", "x", 5, event_id="e", received_ms=9),
            event("u:a", "y", 5, event_id="e", received_ms=8),
            event("u:a", "x", 6),
            event("u:a", "x", 6, received_ms=50),
            event("u:b", "x", 6, event_id="e"),
        ],
        [], [],
    )  # fmt: skip
    found = joined(log)
    assert found.counts["duplicate_events"] == 2
    assert found.outcomes.filter(pl.col("subject") == "u:a").select("item_id", "received_ms").rows() == [
        ("x", 6), ("y", 8)
    ]  # fmt: skip


def test_an_erasure_takes_lists_and_events_until_then_and_those_of_merged_sessions() -> None:
    log = RandomLog(
        [shown("L1", "u:a", 10, "x"), shown("L2", "u:a", 30, "x"), shown("L3", "s:1", 10, "x")],
        [event("u:a", "x", 15), event("u:a", "x", 35), event("s:1", "x", 12)],
        [{"subject": "s:1", "into": "u:a", "merged_ms": 15}],
        [{"subject": "u:a", "erased_ms": 20}],
    )
    found = joined(log)
    assert found.lists["list_id"].to_list() == ["L2"]
    assert found.outcomes["time_ms"].to_list() == [35]
    assert found.counts["erased_lists"] == 2 and found.counts["erased_events"] == 2


def test_a_list_is_viewed_from_its_first_impression_on() -> None:
    log = RandomLog(
        [shown("L1", "u:a", 0, "x y"), shown("L2", "u:a", 0, "x")],
        [
            event("u:a", None, 7, type="impression", list_id="L1"),
            event("u:a", "y", 5, type="impression", list_id="L1"),
        ],
        [], [],
    )  # fmt: skip
    assert joined(log).lists.select("list_id", "viewed_ms").rows() == [("L1", 5), ("L2", None)]


def test_lists_that_were_made_for_nobody_are_not_one_subject() -> None:
    log = RandomLog([shown("L1", "", 0, "x"), shown("L2", "", 0, "x")], [event("u:a", "x", 5, list_id="L1")], [], [])
    assert joined(log).lists["owner"].to_list() == ["L1", "L2"]
    assert marks(log) == [(None, None, "unmatched")]


def test_an_empty_log_has_no_outcomes() -> None:
    found = joined(RandomLog([], [], [], []))
    assert len(found.lists) == len(found.outcomes) == 0
