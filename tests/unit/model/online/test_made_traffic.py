"""Traffic that looks made is marked, and left out unless it is asked for."""

from __future__ import annotations

import numpy as np
import polars as pl

from model.online.attribution import Attributed, Reading, attribute
from model.online.log_schema import frame_of
from model.online.made_traffic import Suspicion, too_fast
from model.online.outcomes import by_list, by_position, genuine

DAY = 86_400_000


def clicks(subject: str, *times: int, type_: str = "click") -> list[dict[str, object]]:
    return [
        {"subject": subject, "item_id": f"i{t}", "type": type_, "time_ms": t, "received_ms": t, "list_id": None}
        for t in times
    ]


def joined(lists: list[tuple[str, str, int]], events: list[dict[str, object]]) -> Attributed:
    items = sorted({str(event["item_id"]) for event in events})
    exposures = [{"list_id": n, "subject": s, "time_ms": t, "items": items} for n, s, t in lists]
    reading = Reading(suspicion=Suspicion(clicks_max=3, clicks_ms=10))
    return attribute(
        frame_of("exposures", exposures), frame_of("events", events), frame_of("merges", []), frame_of("erased", []),
        reading,
    )  # fmt: skip


def test_a_subject_that_clicks_too_fast_is_left_out_for_the_day() -> None:
    lists = [("L1", "u:bot", 0), ("L2", "u:bot", DAY), ("L3", "u:slow", 0)]
    events = [*clicks("u:bot", 1, 2, 3, 4, 500, DAY + 1), *clicks("u:slow", 1, 2, 3, 13)]
    found = joined(lists, events)
    assert found.lists.filter("made")["list_id"].to_list() == ["L1"]
    marked = found.outcomes.filter(pl.col("made") == "rate")
    assert marked.select("subject", "time_ms").rows() == [("u:bot", t) for t in (1, 2, 3, 4, 500)]
    kept = genuine(found)
    assert by_list(kept.lists, by_position(kept.outcomes)).select("list_id", "clicks").rows() == [
        ("L2", 1.0), ("L3", 4.0)
    ]  # fmt: skip
    assert len(genuine(found, made=True).lists) == 3


def test_a_click_without_a_view_is_marked_where_clients_report_views() -> None:
    lists = [("L1", "u:a", 0), ("L2", "u:b", 0)]
    views = clicks("u:a", 5, type_="impression")
    unseen = joined(lists, [*views, *clicks("u:a", 4, 6), *clicks("u:b", 6)]).outcomes
    assert unseen["made"].to_list() == [None] * 4, "a client that reports few views does not report them all"
    more = [*views, *clicks("u:a", 8, type_="impression")]
    marked = joined(lists, [*more, *clicks("u:a", 4, 6), *clicks("u:b", 6)]).outcomes.filter(pl.col("type") == "click")
    assert marked.select("subject", "time_ms", "made").rows() == [
        ("u:a", 4, "unseen"), ("u:a", 6, None), ("u:b", 6, "unseen")
    ]  # fmt: skip


def test_bursts_are_those_that_plain_loops_find() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        subject = np.sort(rng.integers(3, size=30))
        time = np.concatenate([np.sort(rng.integers(40, size=n)) for n in np.bincount(subject, minlength=3)])
        most, within = int(rng.integers(1, 5)), int(rng.integers(1, 12))
        plain = [
            any(
                sum(s == mine and low <= t < low + within for s, t in zip(subject, time, strict=True)) > most
                for low in range(at - within + 1, at + 1)
            )
            for mine, at in zip(subject, time, strict=True)
        ]
        assert too_fast(subject, time, most, within).tolist() == plain
