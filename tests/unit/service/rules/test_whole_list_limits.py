"""Limits over the whole list, which are counted as the list is filled, against loops that count anew."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.rules.limits import Limit
from service.rules.selection import Selection
from tests.support.limited_choice import Groups, Problem, select
from tests.unit.service.rules.test_rule_selection import _slow


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_list_is_that_of_plain_loops_and_names_every_limit_that_changed_it(data: st.DataObject) -> None:
    n, k = 12, data.draw(st.integers(1, 8))
    keys = data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))
    members = st.frozensets(st.integers(0, n - 1), min_size=1)
    limits = [
        Limit(1 << number, data.draw(members), k, high=data.draw(st.integers(0, 3)))
        for number in range(data.draw(st.integers(0, 4)))
    ]
    groups = [Groups(1 << 4, data.draw(st.dictionaries(st.integers(0, n - 1), st.integers(0, 2))), k)]
    chosen = _chosen(keys, k, limits, groups)
    assert chosen.places == _slow(keys, k, limits, groups)
    masks = 0
    for mask in chosen.passed_over.values():
        masks |= mask
    for limit in limits:
        others = [other for other in limits if other is not limit]
        if not masks & limit.bit:
            assert _chosen(keys, k, others, groups).places == chosen.places


def _chosen(keys: list[int], k: int, limits: list[Limit], groups: list[Groups]) -> Selection:
    return select(Problem(np.array(keys, np.float64), np.zeros(len(keys), np.int64), limits, groups), k)


def test_where_every_candidate_is_barred_those_that_break_least_come_first() -> None:
    limits = [Limit(2, frozenset(range(4)), 6, high=0), Limit(1, frozenset(range(2, 8)), 6, high=1)]
    chosen = _chosen([9, 8, 7, 6, 5, 4, 3, 2], 6, limits, [])
    assert chosen.places == [4, 5, 6, 7, 0, 1]
    assert chosen.broken == 3
