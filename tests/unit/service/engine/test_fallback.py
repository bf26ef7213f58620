"""The rungs below the model: filled up to k, new items included, nothing excluded or forbidden."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact.item_cf import ItemCF
from service.artifact.popularity import Popularity
from service.engine.fallback import Constraints, Fallback

N = 12
FIRST_NEW = N + 2


def fallback(seed: int, stand_in: dict[int, int]) -> Fallback:
    rng = np.random.default_rng(seed)
    neighbour = np.stack([rng.permutation(np.delete(np.arange(N), item))[:3] for item in range(N)]).astype(np.int32)
    similarity = -np.sort(-rng.random((N, 3), np.float32), axis=1)
    return Fallback(ItemCF(neighbour, similarity), Popularity.fit(rng.integers(0, N, 50), N), stand_in)


@given(st.integers(0, 50), st.integers(0, 3), st.data())
@settings(max_examples=60, deadline=None)
def test_k_items_whenever_k_are_allowed_new_ones_included(seed: int, n_new: int, data: st.DataObject) -> None:
    size = FIRST_NEW + n_new if n_new else N
    item = st.integers(0, size)
    items = [*range(N), *range(FIRST_NEW, FIRST_NEW + n_new)]
    mask = data.draw(st.none() | st.lists(st.booleans(), min_size=size, max_size=size))
    allowed = None if mask is None else np.array(mask, np.bool_)
    if allowed is not None:
        allowed[N : N + 2] = False
    history = np.array(data.draw(st.lists(item, max_size=6)), np.int64)
    excluded = np.unique(np.array(data.draw(st.lists(item, max_size=6)), np.int64))
    k = data.draw(st.integers(1, 20))
    below = fallback(seed, {FIRST_NEW + at: at for at in range(n_new)})
    possible = {i for i in items if (allowed is None or allowed[i]) and i not in excluded}
    for listing in (
        below.by_history(history, k, Constraints(allowed, excluded)),
        below.popular(k, Constraints(allowed, excluded)),
    ):
        found = listing.items.tolist()
        assert len(found) == len(set(found)) == len(listing.scores) == min(k, len(possible))
        assert set(found) <= possible
        assert (np.diff(listing.scores) <= 0).all()


def test_events_of_a_new_item_count_as_those_of_the_one_it_is_like() -> None:
    below = fallback(0, {FIRST_NEW: 5})
    limits = Constraints(None, np.zeros(0, np.int64))
    of_new = below.by_history(np.array([FIRST_NEW]), 5, limits)
    of_like = below.by_history(np.array([5]), 5, limits)
    assert of_new.source == "item_cf" and of_new.items.tolist() == of_like.items.tolist()


def test_a_new_item_is_similar_to_the_one_it_is_like_and_its_neighbours() -> None:
    below = fallback(0, {FIRST_NEW: 5})
    neighbours, _ = below.similar(5, 10)
    items, scores = below.similar(FIRST_NEW, 10)
    assert items.tolist() == [5, *neighbours.tolist()] and (np.diff(scores) <= 0).all()
    allowed = np.ones(FIRST_NEW + 1, np.bool_)
    allowed[5] = False
    assert below.similar(FIRST_NEW, 10, allowed)[0].tolist() == neighbours.tolist()
