"""The whole loop on simulated users: what is left of it, and what its log says in the end."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from loadtests.draw import loop as drawn
from loadtests.draw.plots import draw
from loadtests.loop import criteria
from loadtests.loop.whole.figures import Found, Lift, compared, found, lift, rows
from loadtests.loop.whole.plan import Plan, Progress, ProgressError, turn_of, visits_of
from loadtests.loop.whole.simulated import Simulated
from loadtests.loop.whole.trial import BETTER, EQUAL, EXPERIMENT, FORETOLD
from loadtests.simulator.past import Click, dataset_of
from loadtests.simulator.world import AFTER, BEFORE, Shape, World
from model.online.grouped import Rate
from model.online.log_folder import LogFolder
from model.online.log_schema import frame_of
from service.experiments.assignment import Assignment
from service.experiments.document import Document, HoldOut

PLAN = Plan(users=40, items=60, cycles=2, lists=2, past=1, trial=1)
HOUR = 3_600_000
T = 1_700_000_000_000 // HOUR * HOUR


def test_visits_go_on_where_they_ended_in_the_same_order(tmp_path: Path) -> None:
    ours, other = (Simulated(PLAN, tmp_path) for _ in range(2))
    usual, last = ours.cycle(1)
    for one in (ours, other):
        one.before(T)
    order = list(ours.left(usual))
    assert len(order) == PLAN.users + PLAN.users // 2
    assert sorted(order[: PLAN.users]) == list(range(PLAN.users))
    for user in order[:7]:
        other.people.visits[user] += 1
    assert list(other.left(usual)) == order[7:]
    # The second half of the users makes the last visits.
    assert sorted([*order[PLAN.users :], *ours.left(last)]) == list(range(PLAN.users))
    assert [one.phase for number in (1, 2) for one in ours.cycle(number)] == [BEFORE, BEFORE, AFTER, AFTER]
    stretches = [*ours.cycle(1), *ours.cycle(2), ours.trial(0)]
    assert stretches[0].begin == PLAN.past * PLAN.users
    assert [one.end for one in stretches[:-1]] == [one.begin for one in stretches[1:]]


def test_each_half_of_the_users_makes_the_visits_of_one_part_of_the_trial(tmp_path: Path) -> None:
    ours = Simulated(PLAN, tmp_path)
    ours.before(T)
    parts = [list(ours.left(ours.trial(number))) for number in (0, 1)]
    assert [len(part) for part in parts] == [ours.lists(ours.trial(number)) for number in (0, 1)] == [20, 20]
    assert sorted(parts[0] + parts[1]) == list(range(PLAN.users))
    for user in parts[0]:
        ours.people.visits[user] = ours.trial(0).end // PLAN.users
    assert (list(ours.left(ours.trial(0))), list(ours.left(ours.trial(1)))) == ([], parts[1])


def test_progress_is_taken_up_and_another_plan_is_refused(tmp_path: Path) -> None:
    progress = Progress.open(tmp_path, PLAN)
    assert progress.begin("past", 1)
    again = Progress.open(tmp_path, PLAN)
    assert again.begin("past", 5)  # it was interrupted
    again.end("past", 9, clicks=3)
    again = Progress.open(tmp_path, PLAN)
    assert not again.begin("past", 11)
    assert again.span("past") == (1, 9)
    with pytest.raises(ProgressError, match="--fresh"):
        Progress.open(tmp_path, Plan())


def test_a_lift_has_the_errors_of_both_sides() -> None:
    wide = lift(Rate(1.2, 1.08, 1.32), Rate(1.0, 0.9, 1.1))
    assert wide.value == pytest.approx(0.2)
    assert wide.low is not None
    assert wide.low == pytest.approx(1.2 * 2.718281828 ** -(0.02**0.5) - 1.0)
    unknown = lift(Rate(1.2, None, None), Rate(1.0, 0.9, 1.1))
    assert unknown.value == pytest.approx(0.2)
    assert (unknown.low, unknown.high) == (None, None)


@pytest.mark.parametrize(("value", "holds"), [(1100.0, True), (1300.0, False)])
def test_what_was_foretold_is_compared_with_the_errors_of_both(value: float, holds: bool) -> None:
    told = {"estimates": {"dr": {"value": 1000.0, "low": 920.0, "high": 1080.0}}, "refused": None}
    one = compared(told, {"value": value, "low": value - 90.0, "high": value + 90.0})
    assert (one["holds"], one["inside"]) == (holds, False)
    assert one["high"] - one["low"] == pytest.approx(2 * (80.0**2 + 90.0**2) ** 0.5)
    refused = compared({"estimates": {}, "refused": "too few"}, {"value": value, "low": 1.0, "high": 2.0})
    assert (refused["refused"], refused["holds"]) == ("too few", False)


def test_the_log_is_read_by_cycle_and_side_as_loops_read_it_without_made_traffic(tmp_path: Path) -> None:
    progress = _done(tmp_path)
    world = World(Shape(users=20, items=10))
    learned = [Click(user, 0, T) for user in range(20)]
    dataset_of(world, learned).save(tmp_path / "cycles" / "cycles" / "20260101-000000" / "data")
    world.user_ids = ("bot1", *world.user_ids[1:])
    dataset_of(world, learned).save(tmp_path / "cycles" / "cycles" / "20260101-010000" / "data")
    held = Assignment(Document(holdout=HoldOut(share=criteria.WHOLE_HOLDOUT, model="first")))
    expected: dict[tuple[int, str], list[int]] = {}
    lists: list[Any] = []
    events: list[Any] = []
    for number in (1, 2):
        for user in range(60):
            subject = f"u:u{user}"
            clicks = (user * number) % 4
            side = "hold-out" if held.of(subject).held_out else "loop"
            expected.setdefault((number, side), []).append(clicks)
            _show(lists, events, subject, T + number * HOUR + user, clicks)
        for n in range(13):  # 65 clicks within a minute
            _show(lists, events, "u:bot0", T + number * HOUR + n, 5)
    folder = LogFolder(str(tmp_path / "log"))
    folder.write("exposures", frame_of("exposures", lists), "a")
    folder.write("events", frame_of("events", events), "a")
    came = found(progress)
    for one in came.cycles:
        for side in ("loop", "hold-out"):
            counts = expected[one["cycle"], side]
            assert one[side]["value"] == pytest.approx(sum(counts) / len(counts))
    ours, theirs = ([n for number in (1, 2) for n in expected[number, side]] for side in ("loop", "hold-out"))
    assert came.lift.value == pytest.approx(sum(ours) / len(ours) / (sum(theirs) / len(theirs)) - 1.0)
    assert (came.made, came.learned) == (130, 1)
    judged = {row.criterion: row for row in rows(came, "command")}
    assert set(judged) == {
        criteria.WHOLE_LIFT, criteria.WHOLE_BETTER, criteria.WHOLE_EQUAL, criteria.WHOLE_FORETOLD,
        criteria.WHOLE_OUTSIDE, criteria.WHOLE_MADE,
    }  # fmt: skip
    assert judged[criteria.WHOLE_BETTER].holds
    assert judged[criteria.WHOLE_EQUAL].holds
    assert judged[criteria.WHOLE_OUTSIDE].value == 1
    assert judged[criteria.WHOLE_FORETOLD].value == 1  # the better arm earned more than was foretold


def test_the_plots_are_drawn_from_the_recorded_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rate = {"value": 1.0, "low": 0.9, "high": 1.1}
    came = {
        "plan": {"cycles": 2},
        "cycles": [{"cycle": n, "loop": rate, "hold-out": {**rate, "low": None, "high": None}} for n in (1, 2)],
        "foretold": {BETTER: {"estimate": rate, "measured": rate}, EQUAL: {"estimate": None, "measured": rate}},
    }
    assert [path.name for path in draw(drawn.wanted({"loop_whole": came}), tmp_path)] == ["cycles.svg", "foretold.svg"]
    assert "tastes drift" in (tmp_path / "cycles.svg").read_text("utf-8")
    assert drawn.wanted({"loop_whole": None}) == {}


def test_a_criterion_that_nobody_measured_stays_in_the_table() -> None:
    measured = [asdict(criteria.row(criteria.WHOLE_EQUAL, value, "", "measure it")) for value in (0.01,)]
    text = drawn.judged(measured, {})
    assert f"| {criteria.WHOLE_EQUAL} | ≥ 0.05 | 0.01 | **missed** |" in text
    assert f"| {criteria.WHOLE_BETTER} | < 0.05 | not measured | – | – |" in text
    assert all(name in text for name in criteria.LIMITS)
    assert "Met: 0. Missed: 1." in text


def _show(lists: list[Any], events: list[Any], subject: str, time_ms: int, clicks: int) -> None:
    list_id = f"{subject}-{time_ms}"
    items = [f"i{n}" for n in range(5)]
    lists.append({"list_id": list_id, "request_id": list_id, "subject": subject, "time_ms": time_ms, "items": items})
    common = {"subject": subject, "time_ms": time_ms, "received_ms": time_ms, "list_id": list_id}
    events.append(common | {"item_id": "i0", "type": "impression"})
    events.extend(common | {"item_id": item, "type": "click"} for item in items[:clicks])


def _done(folder: Path) -> Progress:
    """Progress of a run of two cycles, an hour each."""
    progress = Progress.open(folder, PLAN)
    parts = progress.parts
    parts["first model"] = {"version": "first"}
    for number in (1, 2):
        parts[visits_of(number)] = {"from_ms": T + number * HOUR, "until_ms": T + number * HOUR + 1, "made": 65}
        parts[turn_of(number)] = {"from_ms": 0, "until_ms": T + (number + 1) * HOUR, "version": "second", "code": 0}
    told = {"estimates": {"dr": {"value": 1000.0, "low": 950.0, "high": 1050.0}}, "refused": None}
    parts[FORETOLD] = {"arms": {BETTER: told, EQUAL: told}}
    earned = {BETTER: 1400.0, EQUAL: 1010.0}
    parts[EXPERIMENT] = {
        "measured": {arm: {"value": value, "low": value - 40.0, "high": value + 40.0} for arm, value in earned.items()},
        "report": {
            "arms": [
                {"name": "control", "comparison": None},
                {"name": BETTER, "comparison": {"p": 0.001}},
                {"name": EQUAL, "comparison": {"p": 0.9}},
            ]
        },
    }
    return progress


def test_found_figures_are_json() -> None:
    came = Found([], Lift(0.1, None, None), Lift(0.0, None, None), 0, 0, {BETTER: 0.5, EQUAL: 0.5}, {})
    assert rows(came, "command")[0].value == -100.0  # nothing varies, so nothing is shown
