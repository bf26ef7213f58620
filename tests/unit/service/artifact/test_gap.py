"""How the time since the last event is read: in steps, so that a list does not move when it is asked again."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.artifact.features import GAP_EDGES_MS, GAP_UNKNOWN, ContextVocabulary, quantised_gap_ms

YEAR_MS = 365 * 86_400_000
CONTEXT = ContextVocabulary(max_gap_ms=YEAR_MS)


@given(st.integers(0, YEAR_MS))
def test_the_service_and_the_evaluation_read_the_same_gap(gap_ms: int) -> None:
    assert CONTEXT.gap(0, gap_ms) == int(quantised_gap_ms(np.array([gap_ms]))[0])


@given(st.integers(60_000, YEAR_MS))
def test_a_gap_is_read_as_one_that_is_at_most_a_fifth_off(gap_ms: int) -> None:
    assert 1 / 1.19 < CONTEXT.gap(0, gap_ms) / gap_ms < 1.19


@given(st.integers(0, 59_999), st.integers(0, 59_999))
def test_all_of_the_first_minute_is_now(one_ms: int, other_ms: int) -> None:
    assert CONTEXT.gap(0, one_ms) == CONTEXT.gap(0, other_ms) == 0


def test_gaps_grow_with_time_and_a_longer_one_than_was_trained_is_unknown() -> None:
    around = sorted(edge + shift for edge in GAP_EDGES_MS for shift in (-1, 0, 1))
    read = quantised_gap_ms(np.array(around))
    assert (np.diff(read) >= 0).all() and len(np.unique(read)) == len(GAP_EDGES_MS) + 1
    assert CONTEXT.gap(0, YEAR_MS + 1) == GAP_UNKNOWN == CONTEXT.gap(None, 5)
    assert CONTEXT.gap(10, 5) == 0, "an event of the future has just happened"
