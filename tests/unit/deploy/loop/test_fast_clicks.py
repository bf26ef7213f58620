"""Subjects that click too fast are found as their clicks come, as reports find them afterwards."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deploy.loop.sink.fast_clicks import FastClicks
from deploy.loop.sink.live_join import LiveJoin
from deploy.loop.sink.tallies import DAY_MS, Tallies
from model.online.made_traffic import Suspicion, too_fast
from service.experiments.sums import Sums

RULE = Suspicion(clicks_max=3, clicks_ms=1000)
NOON = 20_000 * DAY_MS + DAY_MS // 2


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 900)), max_size=60))
def test_days_are_those_of_reports(steps: list[tuple[str, int]]) -> None:
    fast, time_ms = FastClicks(subjects_most=2, suspicion=RULE), NOON + DAY_MS // 2 - 10_000  # soon it is midnight
    clicks: defaultdict[str, list[int]] = defaultdict(list)
    found: set[tuple[str, int]] = set()
    for subject, later in steps:
        time_ms += later
        clicks[subject].append(time_ms)
        new = {(subject, day) for day in fast.add(subject, time_ms)}
        assert not new & found
        found |= new
    wanted = {
        (subject, time // DAY_MS)
        for subject, times in clicks.items()
        for time, quick in zip(
            times,
            too_fast(np.zeros(len(times), np.int64), np.array(times), RULE.clicks_max, RULE.clicks_ms),
            strict=True,
        )
        if quick
    }
    assert found == wanted
    assert all(fast.on(subject, day * DAY_MS) for subject, day in wanted)


def test_those_that_clicked_longest_ago_make_room() -> None:
    fast = FastClicks(subjects_most=2, suspicion=RULE)
    for subject in ("u:1", "u:2", "u:1", "u:3"):
        for _ in range(4):
            fast.add(subject, NOON)
    assert [fast.on(subject, NOON) for subject in ("u:1", "u:2", "u:3")] == [True, False, True]


def test_a_program_counts_for_no_arm_on_its_day_and_a_person_does() -> None:
    tallies = Tallies(subjects_most=100)
    join = LiveJoin(tallies, open_most=1000, window_ms=60_000)

    def show(list_id: str, subject: str, time_ms: int) -> None:
        arms = [{"experiment": "e", "arm": "b"}]
        join.add_list({"list_id": list_id, "subject": subject, "time_ms": time_ms, "items": ["1"], "arms": arms})

    def click(list_id: str, subject: str, time_ms: int) -> None:
        join.add_event({
            "subject": subject, "item_id": "1", "type": "click", "time_ms": time_ms, "received_ms": time_ms,
            "event_id": f"{list_id}-{time_ms}", "list_id": list_id,
        })  # fmt: skip

    def sums() -> Sums:
        return tallies.together()["arm", "e=b"].sums

    show("before", "s:bot", NOON - DAY_MS)
    show("person", "u:1", NOON)
    click("person", "u:1", NOON + 1)
    for number in range(60):
        show(f"l{number}", "s:bot", NOON + 10 * number)
        click(f"l{number}", "s:bot", NOON + 10 * number + 1)
    assert sums() == Sums(2, 62, 61, 61**2 + 1, 60**2 + 1, 61 * 60 + 1)
    click("before", "s:bot", NOON + 700)  # the sixty-first
    # Of the program there is what it was shown the day before.
    assert sums() == Sums(2, 2, 2, 2, 2, 2)
    show("after", "s:bot", NOON + 9000)
    join.merge("s:bot", "u:2", NOON + 10_000)
    assert sums() == Sums(2, 2, 2, 2, 2, 2)
    assert tallies.together()["all", "all"].sums.lists == 63  # other figures have it
    join.erase("u:2", NOON + 20_000)
    assert sums() == Sums(1, 1, 1, 1, 1, 1)
    assert tallies.together()["all", "all"].sums.lists == 1
