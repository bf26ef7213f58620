"""The nucleus that a graph took, where rounding moves its end, against a draw in float32."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from export.nucleus_edges import nearby, of_draw
from model.reference.decoder import log_propensities, nucleus
from service.artifact.array_types import FloatArray
from service.engine.decoding import Decoding
from service.engine.draw import Draw


def in_float32(scores: FloatArray, top_p: float) -> tuple[FloatArray, set[int]]:
    """The log-probabilities and the nucleus as the graph computes them."""
    shifted = scores - scores.max()
    phi = shifted - np.log(np.exp(shifted).sum(dtype=np.float32))
    descending = -np.sort(-phi)
    mass = np.cumsum(np.exp(descending), dtype=np.float32)
    before = np.concatenate([np.zeros(1, np.float32), mass[:-1]])
    least = descending[before < np.float32(top_p)].min()
    return phi, set(np.flatnonzero(phi >= least).tolist())


def drawn(scores: FloatArray, top_p: float, k: int, seed: int) -> tuple[Draw, list[int], set[int]]:
    phi, inside = in_float32(scores, top_p)
    key = phi + np.random.default_rng(seed).gumbel(size=len(phi))
    order = sorted(range(len(phi)), key=lambda item: (item in inside, key[item]), reverse=True)[:k]
    law = log_propensities({item: float(value) for item, value in enumerate(phi)}, inside, order)
    items = np.arange(len(scores), dtype=np.int64)
    return Draw(np.array(law, np.float32), items, scores), order, inside


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.5, 0.9, 0.99]), st.sampled_from([0.0, 1e-7, 2.4e-7, 1e-3]))
def test_the_nucleus_of_a_draw_is_found_though_rounding_moves_its_end(seed: int, top_p: float, apart: float) -> None:
    rng = np.random.default_rng(seed)
    scores = np.repeat(rng.normal(size=8), 12) + apart * rng.integers(0, 3, 96)
    draw, order, inside = drawn(scores.astype(np.float32), top_p, 20, seed)
    found, off_by = of_draw(draw, order, Decoding("top_p", top_p=top_p))
    assert off_by <= 1e-4
    listed = set(order)
    assert found & listed == inside & listed


def test_another_law_is_no_nucleus() -> None:
    scores = np.random.default_rng(1).normal(size=50).astype(np.float32)
    draw, order, _ = drawn(scores, 0.5, 10, 1)
    _, off_by = of_draw(draw, order, Decoding("top_p", top_p=0.9))
    assert off_by > 1e-2


def test_away_from_an_edge_there_is_one_nucleus() -> None:
    log_probs = {item: float(np.log(share)) for item, share in enumerate([0.4, 0.3, 0.2, 0.1])}
    assert nearby(log_probs, 0.6) == [{0, 1}, {0, 1}] == [nucleus(log_probs, 0.6)] * 2
    assert {0, 1, 2} in nearby(log_probs, 0.700_001) and {0, 1} in nearby(log_probs, 0.700_001)
    assert nearby(log_probs, 1e-9)[0] == {0}
