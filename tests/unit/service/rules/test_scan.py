"""Candidates that are looked at all at once are chosen, and noted, as those that are looked at one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact.array_types import Float64Array
from service.rules import selection
from service.rules.limits import UNLIMITED, Limit
from service.rules.selection import Selection
from tests.support.limited_choice import Groups, Problem, select


class Changing:
    """A gain whose keys are other ones at each position."""

    def __init__(self, n: int) -> None:
        self._n, self._placed = n, 0

    def keys(self) -> Float64Array:
        return np.random.default_rng(self._placed).permutation(self._n).astype(np.float64)

    def placed(self, place: int) -> None:
        self._placed = 31 * self._placed + place + 1


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_scan_of_all_candidates_is_the_loop_over_them(data: st.DataObject) -> None:
    n, k = 14, data.draw(st.integers(1, 10))
    keys = np.array(data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)), np.float64)
    members = st.frozensets(st.integers(0, n - 1), min_size=1)
    limits = []
    for number in range(data.draw(st.integers(1, 5))):
        low = data.draw(st.integers(0, 4))
        high = data.draw(st.one_of(st.integers(low, 5), st.just(UNLIMITED)))
        limits.append(Limit(1 << number, data.draw(members), data.draw(st.integers(1, k)), low, high))
    groups = [Groups(1 << 40, data.draw(st.dictionaries(st.integers(0, n - 1), st.integers(0, 2))), k)]
    pins = {at: at + 1 for at in data.draw(st.sets(st.integers(1, k), max_size=2))}
    problem = Problem(keys, np.zeros(n, np.int64), limits, groups, pins)
    changing = data.draw(st.booleans())

    def chosen(after: int) -> Selection:
        """By the scan once so many candidates were looked at."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(selection, "LOOKED_AT_MAX", after)
            return select(problem, k, Changing(n) if changing else None)

    by_loop = chosen(10**9)
    for after in (-1, data.draw(st.integers(0, 60))):
        assert chosen(after) == by_loop
