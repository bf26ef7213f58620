"""The join of what comes in gives what plain loops give over all of it, and tallies equal the report's."""

from __future__ import annotations

import gc
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.loop.sink.live_join import DUPLICATE, EVENTS_MOST, LATE, SUBJECT_MOST, LiveJoin
from deploy.loop.sink.tallies import DAY_MS, GROUPS_MOST, Tallies
from loadtests.loop.random_logs import RandomLog, random_log
from model.reference.attribution import attribute_plainly
from service.experiments.sums import Sums

WINDOW_MS = 30 * 60_000
START_MS = 20_000 * DAY_MS


def in_order(log: RandomLog) -> list[tuple[str, dict[str, Any]]]:
    """The rows in the order of their times, each list before the events that are received with it."""
    rows = [(row["time_ms"], 0, "list", row) for row in log.exposures]
    rows += [(row["merged_ms"], 1, "merge", row) for row in log.merges]
    rows += [(row["received_ms"], 2, "event", row) for row in log.events]
    rows += [(row["erased_ms"], 3, "erase", row) for row in log.erased]
    return [(kind, row) for _, _, kind, row in sorted(rows, key=lambda one: one[:2])]


def joined(log: RandomLog, *, open_most: int = 10**6) -> tuple[Tallies, LiveJoin]:
    tallies = Tallies(subjects_most=10**6)
    join = LiveJoin(tallies, open_most=open_most, window_ms=WINDOW_MS)
    for kind, row in in_order(log):
        if kind == "list":
            join.add_list(
                {**row, "model_version": row["list_id"][-1], "segment": None, "strategy": "beam", "rung": "full"}
            )
        elif kind == "event":
            join.add_event(row)
        elif kind == "merge":
            join.merge(row["subject"], row["into"], row["merged_ms"])
        else:
            join.erase(row["subject"], row["erased_ms"])
    return tallies, join


def plain_figures(log: RandomLog) -> dict[tuple[str, str], Counter[str]]:
    """Lists, clicked lists, items clicked and bought, value and views by model and position, from plain outcomes."""
    lists, outcomes = attribute_plainly(log.exposures, log.events, log.merges, log.erased, WINDOW_MS)
    shown = {one["list_id"]: one for one in reversed(log.exposures)}
    earned: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)
    value: Counter[str] = Counter()
    viewed = set[str]()
    for one in outcomes:
        event = log.events[one.event]
        if one.list_id is None:
            continue
        if event["type"] == "impression":
            viewed.add(one.list_id)
        if one.position is not None and event["type"] in ("click", "purchase"):
            earned[one.list_id].add((event["type"], one.position))
        if one.position is not None and event["type"] == "purchase" and event["value"] is not None:
            value[one.list_id] += event["value"]
    found: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for list_id in lists:
        clicks = {place for kind, place in earned[list_id] if kind == "click"}
        bought = {place for kind, place in earned[list_id] if kind == "purchase"}
        for key in (("all", "all"), ("model", list_id[-1])):
            found[key].update(lists=1, clicked=bool(clicks), clicks=len(clicks), conversions=len(bought))
            found[key].update(viewed=list_id in viewed, value=round(value[list_id], 6))
        for place in range(1, len(set(shown[list_id]["items"])) + 1):
            found["position", str(place)].update(
                lists=1, clicked=place in clicks, clicks=place in clicks, conversions=place in bought
            )
    return found


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), subjects=st.integers(2, 8))
@example(seed=70, subjects=2)  # of two events with one identity, received at one moment, a session has the first
@example(seed=322, subjects=2)  # the same, and the session is erased after it became a user: then the second counts
def test_live_outcomes_equal_plain_loops_with_duplicates_merges_and_erasures(seed: int, subjects: int) -> None:
    equal_plain_loops(random_log(seed, events=90, subjects=subjects, hours=5, start_ms=START_MS))


def equal_plain_loops(log: RandomLog) -> None:
    tallies, _ = joined(log)
    found = tallies.outcomes(START_MS // DAY_MS)
    for key, wanted in plain_figures(log).items():
        one = found[key]
        assert one.sums.lists == wanted["lists"], key
        assert one.sums.clicked == wanted["clicked"], key
        assert (one.clicks, one.conversions) == (wanted["clicks"], wanted["conversions"]), key
        if key[0] != "position":
            assert one.viewed == wanted["viewed"]
            assert one.value == pytest.approx(wanted["value"])


def row(list_id: str, subject: str = "u:1", time_ms: int = START_MS, **more: Any) -> dict[str, Any]:
    return {"list_id": list_id, "subject": subject, "time_ms": time_ms, "items": ["1", "2"], **more}


def click(list_id: str, subject: str = "u:1", received_ms: int = START_MS + 1, **more: Any) -> dict[str, Any]:
    return {
        "subject": subject, "item_id": "1", "type": "click", "time_ms": received_ms, "received_ms": received_ms,
        "event_id": f"{list_id}-{received_ms}", "list_id": list_id, **more,
    }  # fmt: skip


@pytest.mark.parametrize("first", ["s:1", "u:1"])
def test_of_two_events_of_one_moment_that_a_merge_makes_one_the_first_that_came_counts(first: str) -> None:
    shown = [{**row("L0", "s:1"), "request_id": None}, {**row("L1", "u:1"), "request_id": None}]
    clicks = [
        {**click(name, subject, value=None, query=None, request_id=None), "event_id": "e"}
        for name, subject in (("L0", "s:1"), ("L1", "u:1"))
    ]
    merged = {"subject": "s:1", "into": "u:1", "merged_ms": START_MS + 60_000}
    log = RandomLog(shown, clicks if first == "s:1" else clicks[::-1], [merged], [])
    equal_plain_loops(log)
    found = joined(log)[0].outcomes(START_MS // DAY_MS)
    assert found["model", "0" if first == "s:1" else "1"].clicks == 1
    assert found["all", "all"].clicks == 1
    erased = RandomLog(log.exposures, log.events, log.merges, [{"subject": "s:1", "erased_ms": START_MS + 120_000}])
    equal_plain_loops(erased)
    found = joined(erased)[0].outcomes(START_MS // DAY_MS)
    assert found["model", "1"].clicks == 1


def new(open_most: int = 100, subjects_most: int = 100) -> tuple[Tallies, LiveJoin]:
    tallies = Tallies(subjects_most=subjects_most)
    return tallies, LiveJoin(tallies, open_most=open_most, window_ms=WINDOW_MS)


def test_sums_are_clustered_by_subject_and_what_is_closed_stays() -> None:
    tallies, join = new(open_most=2)
    for number, subject in enumerate(("u:1", "u:1", "u:2")):
        join.add_list(row(f"l{number}", subject, START_MS + number, arms=[{"experiment": "e", "arm": "b"}]))
        join.add_event(click(f"l{number}", subject, START_MS + 10 + number))
    assert join.closed_early == 1
    assert join.add_event(click("l0", received_ms=START_MS + 20)) == LATE
    found = tallies.outcomes(START_MS // DAY_MS)["arm", "e=b"]
    assert found.sums == Sums(subjects=2, lists=3, clicked=3, lists2=5, clicked2=5, cross=5)
    tallies.forget_before(START_MS // DAY_MS + 1)
    join.erase("u:2", START_MS + 5)  # of a day that is forgotten
    assert tallies.days() == []


def test_subjects_beyond_the_bound_count_as_subjects_of_one_list() -> None:
    tallies, join = new(subjects_most=1)
    for number, subject in enumerate(("u:1", "u:2", "u:2")):
        join.add_list(row(f"l{number}", subject, START_MS + number))
    join.add_event(click("l1", "u:2"))
    found = tallies.outcomes(START_MS // DAY_MS)["all", "all"]
    assert found.sums == Sums(subjects=3, lists=3, clicked=1, lists2=3, clicked2=1, cross=1)


def test_an_erasure_also_forgets_events_that_belong_to_no_list() -> None:
    class Row(dict[str, Any]):
        """A row that can be referred to weakly."""

    _, join = new()
    rows = [Row(click("gone")), Row(click("gone", "u:2"))]
    known = [weakref.ref(one) for one in rows]
    assert [join.add_event(one) for one in rows] == [LATE, LATE]
    join.erase("u:1", START_MS + 5)
    rows.clear()
    gc.collect()
    assert [one() is None for one in known] == [True, False]


def test_groups_are_bounded_and_duplicates_named() -> None:
    tallies, join = new(open_most=10**4)
    for number in range(GROUPS_MOST + 5):
        join.add_list(row(f"l{number}", segment=f"s{number}"))
    assert join.add_event(click("l1")) == "named"
    assert join.add_event(click("l1")) == DUPLICATE
    segments = [group for dimension, group in tallies.together() if dimension == "segment"]
    assert len(segments) == GROUPS_MOST + 1
    assert tallies.together()["segment", "(other)"].sums.lists == 5
    assert tallies.unnamed == {"segment": 5}


def test_models_and_arms_of_hourly_cycles_are_told_apart_for_days() -> None:
    tallies, join = new(open_most=10**4)
    for cycle in range(GROUPS_MOST + 30):
        time_ms = START_MS + cycle * DAY_MS // 24
        day = time_ms // DAY_MS
        tallies.forget_before(day - 1)
        for arm in ("champion", "candidate"):
            arms = [{"experiment": f"loop-{cycle}", "arm": arm}]
            join.add_list(row(f"{arm}{cycle}", time_ms=time_ms, arms=arms, model_version=f"m{cycle}"))
            assert tallies.outcomes(day)["arm", f"loop-{cycle}={arm}"].sums.lists == 1
        assert tallies.outcomes(day)["model", f"m{cycle}"].sums.lists == 2
    assert not tallies.unnamed
    assert len(tallies.days()) == 2


class Counting(dict[str, Any]):
    """An event that counts how often its fields are looked at: what the join does for it."""

    looked = 0

    def __getitem__(self, name: str) -> Any:
        type(self).looked += 1
        return super().__getitem__(name)


def looks_of(rows: Iterable[dict[str, Any]], join: LiveJoin) -> int:
    Counting.looked = 0
    for one in rows:
        join.add_event(Counting(one))
    return Counting.looked


def test_an_event_costs_the_same_whatever_its_list_earned_before() -> None:
    _, join = new()
    join.add_list(row("l"))
    first = looks_of((click("l", received_ms=START_MS + 1 + number) for number in range(10)), join)
    looks_of((click("l", received_ms=START_MS + 100 + number) for number in range(500)), join)
    assert looks_of((click("l", received_ms=START_MS + 1000 + number) for number in range(10)), join) == first


def test_an_event_that_names_a_list_costs_the_same_however_many_its_subject_has() -> None:
    def looks(lists: int) -> int:
        _, join = new(open_most=10**4)
        for number in range(lists):
            join.add_list(row(f"l{number:04d}", time_ms=START_MS + number))
        events = [click(name, received_ms=START_MS + 5000) for name in ("l0000", "elsewhere")]
        return looks_of(events, join)

    assert looks(900) == looks(2)


def test_a_subject_has_a_bounded_number_of_open_lists_and_a_list_of_events() -> None:
    tallies, join = new(open_most=10**4)
    for number in range(SUBJECT_MOST + 3):
        join.add_list(row(f"l{number}", time_ms=START_MS + number))
        join.add_list(row(f"n{number}", "", time_ms=START_MS + number))  # lists for nobody are no subject's
    assert (join.closed_early, len(join)) == (3, 2 * SUBJECT_MOST + 3)
    assert join.add_event(click("l2", received_ms=START_MS + 9000)) == LATE
    join.add_list(row("late", time_ms=START_MS))
    assert join.add_event(click("late", received_ms=START_MS + 9000)) == LATE
    marks = Counter(join.add_event(click("l9", received_ms=START_MS + 5000 + number)) for number in range(1003))
    assert marks == {"named": EVENTS_MOST, LATE: 3}
    assert tallies.outcomes(START_MS // DAY_MS)["all", "all"].sums.lists == 2 * SUBJECT_MOST + 7
