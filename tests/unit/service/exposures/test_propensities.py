"""The probability of a set equals the sum over all orders, and the law of a draw that of the slow reference."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.reference.decoder import log_propensities, log_sum_exp, normalise
from service.engine.decode.draws import draw, first_log_probs, nucleus
from service.engine.decoding import Decoding
from service.exposures.propensities import SET_MAX, set_log_propensity

decodings = st.one_of(
    st.builds(Decoding, st.just("top_p"), top_p=st.floats(0.1, 1.0), temperature=st.floats(0.05, 5.0)),
    st.builds(Decoding, st.just("temperature"), temperature=st.floats(0.05, 5.0)),
)
scores = st.lists(st.floats(-20, 5, width=32), min_size=1, max_size=9, unique=True)


def weights(given: list[float], decoding: Decoding) -> tuple[dict[int, float], set[int]]:
    """Log-weights in plain Python, and the nucleus."""
    log_probs = normalise({item: score * decoding.inverse_temperature for item, score in enumerate(given)})
    array = first_log_probs(np.array(given, np.float32), decoding)
    return log_probs, set(np.flatnonzero(nucleus(array, decoding.nucleus)).tolist())


@given(scores, decodings, st.integers(0, 2**63), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_the_law_of_a_draw_is_that_of_the_slow_reference(
    given: list[float], decoding: Decoding, seed: int, k: int
) -> None:
    array = np.array(given, np.float32)
    order, law = draw(np.arange(len(given)), array, decoding, seed, k)
    log_probs, inside = weights(given, decoding)
    assert law.tolist() == pytest.approx(log_propensities(log_probs, inside, order.tolist()), abs=1e-6)
    drawn = [item in inside for item in order.tolist()]
    assert drawn == sorted(drawn, reverse=True)


@given(scores, decodings, st.data())
@settings(max_examples=60, deadline=None)
def test_the_probability_of_a_set_is_the_sum_over_its_orders(
    given: list[float], decoding: Decoding, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, min(5, len(given))))
    drawn = data.draw(st.permutations(range(len(given))))[:size]
    log_probs, inside = weights(given, decoding)
    possible = [
        sum(log_propensities(log_probs, inside, order))
        for order in permutations(drawn)
        # The nucleus comes first, to its end.
        if sorted(order, key=lambda item: item not in inside) == list(order)
        and (set(order) <= inside or inside <= set(order))
    ]
    found = set_log_propensity(np.array(given, np.float32), decoding, np.array(drawn))
    assert found is not None
    if possible:
        assert found == pytest.approx(log_sum_exp(possible), abs=1e-6)
    else:
        assert found == -math.inf


def test_the_sets_of_one_size_share_the_whole_probability() -> None:
    rng, decoding = np.random.default_rng(0), Decoding("temperature", temperature=0.7)
    given = rng.normal(size=13).astype(np.float32)
    alone = [set_log_propensity(given, decoding, np.delete(np.arange(13), left)) for left in range(13)]
    assert sum(math.exp(one) for one in alone if one is not None) == pytest.approx(1.0)


def test_of_more_items_than_the_recursion_takes_nothing_is_said() -> None:
    given = np.zeros(20, np.float32)
    assert set_log_propensity(given, Decoding("temperature"), np.arange(SET_MAX)) is not None
    assert set_log_propensity(given, Decoding("temperature"), np.arange(SET_MAX + 1)) is None
