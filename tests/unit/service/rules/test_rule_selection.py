"""The choice under limits, against loops over every list."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.rules.limits import UNLIMITED, Limit
from tests.support.limited_choice import Groups, Problem, select

PLACES = 5


def _keeps(order: Sequence[int], limits: Sequence[Limit]) -> bool:
    for limit in limits:
        there = sum(place in limit.members for place in order[: limit.first])
        if not limit.low <= there <= limit.high:
            return False
    return True


def _problem(keys: Sequence[int], limits: Sequence[Limit], **more: object) -> Problem:
    return Problem(np.array(keys, np.float64), np.zeros(len(keys), np.int64), limits, **more)  # type: ignore[arg-type]


def _family(draw: st.DrawFn) -> list[frozenset[int]]:
    """A laminar family: the places are cut in two, and what is cut off in two again."""
    order = draw(st.permutations(range(PLACES)))
    cut, inner = draw(st.integers(1, PLACES)), draw(st.integers(0, PLACES))
    outer = order[:cut]
    sets = [outer, outer[: inner % (cut + 1)], order[cut:], order]
    return [frozenset(one) for one in sets if one]


@st.composite
def laminar(draw: st.DrawFn) -> tuple[list[int], int, list[Limit]]:
    keys = draw(st.lists(st.integers(0, 4), min_size=PLACES, max_size=PLACES))
    k = draw(st.integers(1, 3))
    upper_alone = draw(st.booleans())
    window = draw(st.integers(1, k))
    limits = []
    for number, members in enumerate(_family(draw)):
        if not draw(st.booleans()):
            continue
        first = draw(st.integers(1, k)) if upper_alone else window
        low = 0 if upper_alone else draw(st.integers(0, min(2, first)))
        high = draw(st.one_of(st.integers(max(low, 1), 3), st.just(UNLIMITED)))
        limits.append(Limit(1 << number, members, first, low, high))
    return keys, k, limits


@given(laminar())
@settings(max_examples=80, deadline=None)
def test_over_nested_sets_all_limits_are_kept_if_any_list_keeps_them(case: tuple[list[int], int, list[Limit]]) -> None:
    keys, k, limits = case
    chosen = select(_problem(keys, limits), k)
    assert len(chosen.places) == k == len(set(chosen.places))
    possible = any(_keeps(order, limits) for order in itertools.permutations(range(PLACES), k))
    assert _keeps(chosen.places, limits) == possible
    assert bool(chosen.broken) != possible


@given(laminar(), st.dictionaries(st.integers(1, 4), st.integers(0, PLACES - 1), max_size=2))
@settings(max_examples=40, deadline=None)
def test_pinned_items_stand_where_they_are_pinned_and_count(
    case: tuple[list[int], int, list[Limit]], wanted: dict[int, int]
) -> None:
    keys, k, limits = case
    pins = {at: place for at, place in wanted.items() if at <= k}
    pins = {at: place for at, place in pins.items() if list(pins.values()).count(place) == 1}
    chosen = select(_problem(keys, limits, pins=pins), k)
    assert len(chosen.places) == k == len(set(chosen.places))
    assert all(chosen.places[at - 1] == place for at, place in pins.items())
    pinned = [
        order
        for order in itertools.permutations(range(PLACES), k)
        if all(order[at - 1] == place for at, place in pins.items())
    ]
    assert _keeps(chosen.places, limits) == any(_keeps(order, limits) for order in pinned)


def _slow(keys: Sequence[int], k: int, limits: Sequence[Limit], groups: Sequence[Groups]) -> list[int]:
    """The same choice for upper limits and groups: everything is counted anew for each candidate."""
    chosen: list[int] = []
    for position in range(1, k + 1):

        def broken(place: int, position: int = position) -> int:
            mask = 0
            for limit in limits:
                there = sum(one in limit.members for one in chosen[: limit.first])
                if position <= limit.first and place in limit.members and there >= limit.high:
                    mask |= limit.bit
            for one in groups:
                taken = next((one.of_place[other] for other in chosen[: one.first] if other in one.of_place), None)
                group = one.of_place.get(place)
                if position <= one.first and None not in (group, taken) and group != taken:
                    mask |= one.bit
            return mask

        free = [place for place in range(len(keys)) if place not in chosen]
        chosen.append(min(free, key=lambda place: (broken(place), -keys[place], place)))
    return chosen


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_limits_that_overlap_give_way_from_the_lowest_precedence_as_in_plain_loops(data: st.DataObject) -> None:
    n, k = 8, data.draw(st.integers(1, 6))
    keys = data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    members = st.frozensets(st.integers(0, n - 1), min_size=1)
    limits = [
        Limit(1 << number, data.draw(members), data.draw(st.integers(1, k)), high=data.draw(st.integers(0, 2)))
        for number in range(data.draw(st.integers(0, 3)))
    ]
    of_place = data.draw(st.dictionaries(st.integers(0, n - 1), st.integers(0, 2)))
    groups = [Groups(1 << 3, of_place, data.draw(st.integers(1, k)))]
    assert select(_problem(keys, limits, groups=groups), k).places == _slow(keys, k, limits, groups)


def test_lower_limits_that_cannot_all_be_kept_leave_the_highest_precedence_kept() -> None:
    limits = [Limit(2, frozenset({4, 5}), 3, low=2), Limit(1, frozenset({2, 3}), 3, low=2)]
    chosen = select(_problem([9, 8, 7, 6, 5, 4], limits), 3)
    assert {4, 5} < set(chosen.places)
    assert chosen.broken == 1


def test_a_list_of_too_few_candidates_ends_with_what_was_pinned_behind_them() -> None:
    assert select(_problem([3, 2, 1], (), pins={5: 0}), 5).places == [1, 2, 0]


def test_what_was_passed_over_names_the_limit() -> None:
    limits = [Limit(4, frozenset({0, 1}), 3, high=1)]
    chosen = select(_problem([9, 8, 7, 6], limits), 3)
    assert chosen.places == [0, 2, 3]
    assert chosen.passed_over == {1: 4}
