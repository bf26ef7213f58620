"""New items beside the decoded list: allowed, not excluded, in the right place, never twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact.array_types import FloatArray
from service.artifact.graphs.noise import item_hash
from service.common.errors import ModelError
from service.engine.candidates import Candidates
from service.engine.decode.delta_table import DeltaTable, WaitingScores, like_vector
from service.engine.decode.draws import draw
from service.engine.decoding import Decoding
from service.engine.draw import Draw
from service.engine.jobs import DecodedList, ListRequest

D = 8
NO_CONTEXT = np.zeros(0, np.int64)


def asking(k: int, excluded: list[int], decoding: Decoding | None = None, seed: int = 0) -> ListRequest:
    return ListRequest(
        context=NO_CONTEXT,
        gap_ms=-1,
        decoding=decoding or Decoding("beam"),
        k=k,
        excluded=np.array(excluded, np.int64),
        seed=seed,
    )


def listed(scores: list[float]) -> DecodedList:
    ordered = np.sort(np.array(scores, np.float32))[::-1]
    draw = Draw(np.zeros(len(scores), np.float32), np.arange(len(scores)), ordered, ordered - 1)
    return DecodedList(np.arange(len(scores)), ordered, ordered - 1, draw=draw)


def table(rng: np.random.Generator, m: int) -> DeltaTable:
    return DeltaTable(np.arange(100, 100 + m), rng.standard_normal((m, D)).astype(np.float32))


def waiting(query: FloatArray, offset: float, m: int, *, weight: float = 1.0, added: float = 0.0) -> WaitingScores:
    return WaitingScores(query, offset, weight, np.full(m, added, np.float32))


scores = st.lists(st.floats(-9, 0, width=32), max_size=12)
decodings = st.sampled_from([Decoding("beam"), Decoding("greedy"), Decoding("top_p"), Decoding("temperature")])


@given(
    scores, st.integers(1, 6), st.integers(1, 10), st.integers(0, 2**80), decodings,
    st.sets(st.integers(100, 106)), st.floats(0.5, 2), st.data(),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_merged_lists_are_allowed_not_excluded_and_without_repeats(
    given: list[float],
    m: int,
    k: int,
    seed: int,
    decoding: Decoding,
    excluded: set[int],
    weight: float,
    data: st.DataObject,
) -> None:
    rng = np.random.default_rng(seed)
    given = given[:k]
    delta, before = table(rng, m), listed(given)
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=m, max_size=m)))
    query, request = rng.standard_normal(D).astype(np.float32), asking(k, sorted(excluded), decoding, seed)
    scored = waiting(query, -2.0, m, weight=weight, added=0.5)
    merged = delta.merge(before, scored, request, allowed)
    possible = {100 + at for at in range(m) if allowed[at]} - excluded
    items = merged.items.tolist()
    assert len(set(items)) == len(items) == min(k, len(given) + len(possible))
    assert set(items) <= possible | set(before.items.tolist())
    again = delta.merge(before, scored, request, allowed)
    assert again.items.tolist() == items, "the same seed gives the same list"
    offset = -2.0 if given else 0.0  # nothing to compare with
    expected = {100 + at: weight * (float(delta.vectors[at] @ query) + offset) + 0.5 for at in range(m)}
    expected |= dict(zip(before.items.tolist(), before.scores.tolist(), strict=True))
    assert merged.scores.tolist() == pytest.approx([expected[item] for item in items], abs=1e-5)
    if not decoding.sampled:
        kept = [item for item in items if item < 100]
        assert kept == before.items.tolist()[: len(kept)], "the list's own order is kept"
        everything = sorted((possible | set(before.items.tolist())), key=lambda item: -expected[item])
        assert [expected[i] for i in items] == pytest.approx([expected[i] for i in everything[:k]], abs=1e-5)


def test_without_an_item_to_show_the_list_is_returned_as_it_is() -> None:
    delta, before = table(np.random.default_rng(0), 2), listed([-1.0, -2.0])
    scored = waiting(np.ones(D, np.float32), 0.0, 2)
    assert delta.merge(before, scored, asking(5, []), np.zeros(2, np.bool_)) is before
    assert delta.merge(before, scored, asking(5, [100, 101]), np.ones(2, np.bool_)) is before
    nan = waiting(np.full(D, np.nan, np.float32), 0.0, 2)
    assert delta.merge(before, nan, asking(5, []), np.ones(2, np.bool_)) is before


def test_waiting_items_are_candidates_of_a_list_that_shows_them() -> None:
    delta, before = table(np.random.default_rng(0), 2), listed([-1.0, -2.0])
    shown = replace(before, candidates=Candidates(before.items, before.log_probs, before.scores, before.items > 0))
    query = np.ones(D, np.float32)
    merged = delta.merge(shown, waiting(query, -2.0, 2), asking(5, [101]), np.ones(2, np.bool_))
    assert merged.candidates is not None
    assert merged.candidates.items.tolist() == [0, 1, 100]
    short = delta.merge(shown, waiting(query, -2000.0, 2), asking(2, []), np.ones(2, np.bool_))
    assert short.candidates is not None and short.candidates.items.tolist() == [0, 1], "none of them is on the list"
    dense = float(delta.vectors[0] @ query)
    assert merged.candidates.dense[-1] == pytest.approx(dense)
    assert merged.candidates.log_probs[-1] == pytest.approx(dense - 2.0)


@pytest.mark.parametrize("decoding", [Decoding("temperature", temperature=0.5), Decoding("top_p", top_p=0.7)], ids=str)
def test_a_waiting_item_is_drawn_with_all_candidates_and_the_law_is_theirs(decoding: Decoding) -> None:
    """The list, and its law, that all candidates together give, with the noise of the graph."""
    rng = np.random.default_rng(0)
    score = rng.normal(-4, 1, 40).astype(np.float32)
    delta = DeltaTable(np.array([40, 41]), rng.normal(size=(2, D)).astype(np.float32))
    query = rng.normal(size=D).astype(np.float32)
    together, everybody = np.arange(42), np.concatenate([score, delta.vectors @ query - 4])
    taken = 0
    for seed in range(100):
        order, law = draw(item_hash(np.arange(40)), score, decoding, seed, 10)
        before = DecodedList(order, score[order], score[order], draw=Draw(law, np.arange(40), score, score))
        merged = delta.merge(before, waiting(query, -4.0, 2), asking(10, [], decoding, seed), np.ones(2, bool))
        want, its_law = draw(item_hash(together), everybody, decoding, seed, 10)
        assert merged.items.tolist() == want.tolist()
        assert merged.draw is not None and merged.draw.items.tolist() == together.tolist()
        assert merged.log_propensities is not None
        assert merged.log_propensities.tolist() == pytest.approx(its_law.tolist(), abs=1e-12)
        np.testing.assert_allclose(merged.scores, everybody[want])
        taken += int((want >= 40).sum())
    assert taken > 5
    with pytest.raises(ModelError, match="candidates"):
        delta.merge(replace(before, draw=None), waiting(query, -4.0, 2), asking(9, [], decoding), np.ones(2, bool))


def test_a_vector_is_along_the_mean_of_its_likes_and_the_nearest_is_one_of_them() -> None:
    rng = np.random.default_rng(0)
    item_table = rng.standard_normal((5000, D)).astype(np.float32)
    mean, nearest = like_vector([3, 7], item_table, named=False)
    np.testing.assert_allclose(mean, (item_table[3] + item_table[7]) / 2, rtol=1e-6)
    assert nearest in (3, 7)
    named, same = like_vector([3, 7], item_table, named=True)
    assert same == nearest and named.dtype == np.float32
    length = np.linalg.norm(item_table[[3, 7]], axis=1).mean()
    np.testing.assert_allclose(named, mean * (length / np.linalg.norm(mean)), rtol=1e-5)
    np.testing.assert_allclose(like_vector([5], item_table, named=True)[0], item_table[5], rtol=1e-6)
    opposed = np.stack([item_table[5], -item_table[5] * np.float32(0.99)])
    assert np.linalg.norm(like_vector([0, 1], opposed, named=True)[0]) < 0.01 * length, "they say nothing together"
    rows = np.arange(0, 5000, 2)
    mean, nearest = like_vector(rows, item_table, named=False)
    assert nearest in rows and mean.shape == (D,), "of many, an even spread is enough"
