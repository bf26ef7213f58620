"""Whether a segment's default serves its objective: the frontier, and when a default is beaten."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.draw.quality_lists import segments as drawn
from loadtests.quality import segments
from loadtests.quality.segments import ACCURATE, OBJECTIVES, Objective, Point, chosen, frontier
from service.policies import policies
from service.settings.service_settings import DEFAULT_POLICIES

PLACES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12)
VARIED = Objective("intra", 0.5, "different kinds")
USERS = 200


def point(name: str, accuracy: float, wanted: float) -> Point:
    """Users differ from each other in the same way in every strategy."""
    varied = np.linspace(-0.01, 0.01, USERS)
    return Point(name, accuracy + varied, wanted + varied)


def judged(among: list[Point], default: str, objective: Objective) -> dict[str, Any]:
    """With a validation that chose the default."""
    return segments.judged({"best": default, "users": USERS, "as_good": [default]}, among, default, objective)


@given(PLACES)
def test_a_point_is_on_the_frontier_unless_one_as_good_in_both_is_better_in_one(at: list[tuple[int, int]]) -> None:
    slow = []
    for x, y in at:
        dominated = False
        for other_x, other_y in at:
            if (other_x > x and other_y >= y) or (other_x >= x and other_y > y):
                dominated = True
        slow.append(not dominated)
    assert frontier([(float(x), float(y)) for x, y in at]) == slow
    assert any(slow)


@pytest.mark.parametrize(
    ("rival", "beaten", "holds"),
    [((0.3, 0.5), True, False), ((0.2, 0.6), True, False), ((0.3, 0.4), False, True), ((0.2, 0.5), False, True)],
    ids=["more accurate", "more varied", "a trade", "the same"],
)
def test_a_default_is_beaten_only_by_one_that_gives_nothing_up(
    rival: tuple[float, float], beaten: bool, holds: bool
) -> None:
    found = judged([point("own", 0.2, 0.5), point("rival", *rival)], "own", VARIED)
    assert (found["beaten_by"] == ["rival"], found["holds"]) == (beaten, holds)


def test_a_default_below_its_floor_does_not_hold_though_nobody_beats_it() -> None:
    among = [point("own", 0.1, 0.9), point("between", 0.2, 0.7), point("accurate", 0.3, 0.5)]
    found = judged(among, "own", VARIED)
    assert found["points"]["own"]["frontier"]
    assert not found["beaten_by"]
    assert found["above_floor"]["high"] < 0
    assert not found["holds"]


def test_validation_chooses_the_best_of_those_that_are_above_the_floor_by_more_than_chance() -> None:
    accurate, between, low = (point(*at) for at in (("accurate", 0.3, 0.5), ("between", 0.2, 0.7), ("low", 0.1, 0.9)))
    # On the mean above half of the best, but not for sure.
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.normal(size=USERS)
    unsure = Point("unsure", 0.151 + noise - noise.mean(), np.full(USERS, 0.8))
    like = Point("like", between.accuracy, between.wanted + 0.001 * rng.permutation(np.resize([-1.0, 1.0], USERS)))
    found = chosen([accurate, between, low, unsure, like], VARIED)
    assert found["best"] in ("between", "like")
    assert set(found["as_good"]) == {"between", "like"}


def test_a_default_that_validation_did_not_choose_does_not_hold() -> None:
    among = [point("own", 0.2, 0.5), point("rival", 0.3, 0.4)]
    choice = {"best": "rival", "users": USERS, "as_good": ["rival"]}
    assert judged(among, "own", VARIED)["holds"]
    assert not segments.judged(choice, among, "own", VARIED)["holds"]


def test_users_whose_objective_is_not_defined_do_not_count() -> None:
    own, rival = point("own", 0.2, 0.5), point("rival", 0.2, 0.6)
    rival.wanted[0] = np.nan
    assert judged([own, rival], "own", VARIED)["beaten_by"] == ["rival"]


def test_where_the_objective_is_accuracy_there_is_no_floor() -> None:
    among = [Point("own", np.full(USERS, 0.2), np.full(USERS, 0.2)), Point("other", np.zeros(USERS), np.zeros(USERS))]
    assert judged(among, "other", ACCURATE)["above_floor"]["low"] >= 0
    assert judged(among, "own", ACCURATE)["holds"]
    assert chosen(among, ACCURATE)["as_good"] == ["own"]


def test_every_shipped_segment_has_an_objective() -> None:
    assert set(policies.load(DEFAULT_POLICIES).names) == set(OBJECTIVES)


def test_the_table_says_who_beats_a_default() -> None:
    one = judged([point("own", 0.2, 0.5), point("rival", 0.3, 0.5)], "own", VARIED)
    part = {"users": USERS, "seeds": 1, "sizes": {"explorer": USERS}, "judged": {"explorer": one}}
    text = drawn({"parts": {"small": part}, "command": "python -m x", "date": "2026-01-01"})
    [line] = [line for line in text.splitlines() if line.startswith("| explorer")]
    assert "| rival | **no** |" in line
