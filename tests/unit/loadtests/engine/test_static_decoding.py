"""The two ways to constrain a step allow the same tokens at the same scores, and lead to the same nodes."""

from __future__ import annotations

import numpy as np
import pytest

from loadtests.engine.static_decoding import NEVER, StaticIndex, our_step, static_step
from loadtests.engine.synthetic_artifact import synthetic_codes
from service.artifact.trie import Trie

SIZES = (16, 16, 16)
V = 16


@pytest.fixture(scope="module")
def trie() -> Trie:
    codes, _ = synthetic_codes(np.random.default_rng(0), 400, SIZES)
    return Trie.build(codes)


@pytest.mark.parametrize(
    ("level", "sizes"),
    [
        (1, (16, 16, 16, 16)),
        (1, (2**10, 2**9, 16)),
        (2, (16, 16, 16)),
        (2, (2**9, 2**8, 16)),
        (3, (2**9, 2**9, 16, 16)),
    ],
)
def test_both_steps_allow_the_same_tokens(trie: Trie, level: int, sizes: tuple[int, ...]) -> None:
    """Whatever form the sizes of the codes call for; the codes themselves are small."""
    sizes = (*sizes[:level], V, *sizes[level + 1 :])
    rng = np.random.default_rng(level)
    index = StaticIndex.of(trie, V)
    node = rng.integers(0, trie.n_nodes[level - 1], 64)
    log_prob = np.log(rng.dirichlet(np.ones(V), 64)).astype(np.float32)
    ours = our_step(trie, level, sizes)(log_prob, node)
    theirs = static_step(index, level)(log_prob, index.state(trie, level, node))
    for row in range(len(node)):
        expected = {
            int(token): (float(log_prob[row, token]), child)
            for child in range(*trie.first_child[level][node[row] : node[row] + 2].tolist())
            for token in [trie.token[level][child]]
        }
        for step, (candidate, token, following) in (("ours", ours), ("static", theirs)):
            found = {}
            for at in np.flatnonzero(candidate[row] > NEVER / 2):
                state = int(following[row, at])
                if step == "ours":
                    child = state
                elif level == trie.levels - 1:
                    assert state == 0
                    child = expected[int(token[row, at])][1]
                else:
                    child = state - index.base[level + 1]
                found[int(token[row, at])] = (float(candidate[row, at]), child)
            assert found == expected, step


def test_synthetic_codes_are_unique_balanced_and_unevenly_used() -> None:
    codes, last_size = synthetic_codes(np.random.default_rng(0), 20_000)
    trie = Trie.build(codes)
    assert trie.n_items == 20_000
    assert max(trie.branching) <= 256
    assert (codes.max(axis=0) < (256, 256, 256, last_size)).all()
    used = np.sort(np.bincount(codes[:, 0], minlength=256))[::-1]
    assert used[0] <= 2.5 * used.mean(), "balanced"
    assert used[:64].sum() > 1.3 * used[-128:].sum() * 64 / 128, "but not uniform"
