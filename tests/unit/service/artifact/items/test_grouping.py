"""Equal items are found in any order, and their shares added up in the order in which they come."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.artifact.items.grouping import Grouping

ITEMS = st.integers(-3, 9) | st.sampled_from([-(2**39), 2**39])


@given(st.lists(st.tuples(ITEMS, st.floats(-10, 10)), max_size=60))
def test_groups_are_those_of_a_plain_loop(events: list[tuple[int, float]]) -> None:
    sums: dict[int, float] = {}
    for item, share in events:
        sums[item] = sums.get(item, 0.0) + share
    grouping = Grouping.of(np.array([item for item, _ in events], np.int64))
    assert grouping.items.tolist() == sorted(sums)
    assert grouping.sums(np.array([share for _, share in events], np.float64)).tolist() == [
        sums[i] for i in sorted(sums)
    ]
    expected = sorted(range(len(events)), key=lambda place: (events[place][0], place))
    assert grouping.place.tolist() == expected
    assert grouping.item.tolist() == [events[place][0] for place in expected]
