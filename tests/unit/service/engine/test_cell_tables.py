"""The cells on the device: what filters leave of them, and where items to leave out lie."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from service.artifact.graphs import graph_names as names
from service.artifact.graphs.cells import Cells
from service.artifact.trie import Trie
from service.engine.decode.cell_tables import CellArena, CellTables, cell_bias, cells_read
from service.engine.decode.filters import Mask
from service.engine.decode.mask_arena import MaskArena
from service.engine.decode.mask_parts import mask_parts
from service.engine.placement import Placement
from service.signals.item_values import ItemValues

CPU = Placement("cpu", 1, pad=False)
N = 300
RNG = np.random.default_rng(0)
FLAT = RNG.choice(4 * 8 * 16, N, replace=False)
TRIE = Trie.build(np.stack(np.unravel_index(FLAT, (4, 8, 16)), axis=1).astype(np.int64))
CELLS = Cells.build(TRIE, RNG.normal(size=(N, 6)).astype(np.float32), rows=20)


def mask(share: float, place: int = 1) -> Mask:
    allowed = np.random.default_rng(place).random(N) < share
    nothing = np.zeros(0, np.bool_)
    return Mask(place, place, {}, "", allowed, TRIE.node_counts(allowed), nothing, nothing)


def rows_of(one: Mask) -> list[list[int]]:
    """The allowed leaves of every cell, in plain loops."""
    bounds = CELLS.first_leaf.tolist()
    return [
        [leaf for leaf in range(first, after) if one.allowed[TRIE.leaf_item[leaf]]]
        for first, after in itertools.pairwise(bounds)
    ]


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 1.0])
def test_the_allowed_items_of_a_place_lie_cell_by_cell(share: float) -> None:
    arena = CellArena(MaskArena(mask_parts(TRIE, {}, 0, packed=False), CPU), TRIE, CELLS, CPU)
    arena.open(3)
    one = mask(share)
    arena.write([one])
    values = {name: np.asarray(value.numpy()) for name, value in arena.values.items()}
    first = values[names.CELL_FIRST].reshape(3, -1)[1]
    place = values[names.CELL_PLACE].reshape(3, -1)[1]
    for cell, leaves in enumerate(rows_of(one)):
        assert values[names.CELL_OPEN][1, cell] == bool(leaves)
        found = CELLS.first_leaf[cell] + place[first[cell] : first[cell + 1]]
        assert found.tolist() == leaves
    assert names.NODE_OK + "_0" in values


def test_places_of_items_are_those_among_the_allowed_of_their_cell() -> None:
    tables, one = CellTables(CELLS, TRIE, CPU), mask(0.4)
    at = {
        int(TRIE.leaf_item[leaf]): (cell, place)
        for cell, leaves in enumerate(rows_of(one))
        for place, leaf in enumerate(leaves)
    }
    wanted = np.array([-1, *range(N), N + 7])
    cell, place = tables.excluded(one, wanted)
    assert list(zip(cell.tolist(), place.tolist(), strict=True)) == [at[item] for item in range(N) if item in at]
    signals = ItemValues(np.array(sorted(at)[:5]), np.ones(5, np.float32))
    feeds = tables.signal_feeds([signals], [one], rows=2, size=6)
    assert feeds[names.SIGNAL_CELL][0].tolist() == [at[item][0] for item in signals.items.tolist()] + [0]
    assert feeds[names.SIGNAL_PLACE][0].tolist() == [at[item][1] for item in signals.items.tolist()] + [0]
    assert not tables.excluded(one, np.zeros(0, np.int64))[0].size


def test_so_many_cells_are_read_as_fill_the_rows_and_a_quarter_more() -> None:
    assert cells_read(np.full(100, 10), rows=80) == 10
    assert cells_read(np.array([5, 0, 0, 5]), rows=80) == 2, "all that have items"
    assert cells_read(np.zeros(4, np.int64), rows=80) == 1
    assert cells_read(np.ones(100, np.int64), rows=3) == 4


def test_a_cell_is_worth_more_than_the_mean_of_its_signals() -> None:
    bias = np.random.default_rng(1).normal(size=(2, N)).astype(np.float32)
    found = cell_bias(CELLS, bias)
    for cell, (first, after) in enumerate(itertools.pairwise(CELLS.first_leaf)):
        for group in range(2):
            values = bias[group, first:after]
            assert found[group, cell] == pytest.approx((values.mean() + values.max()) / 2, abs=1e-5)


def test_inputs_of_a_number_of_cells_are_kept_so_that_bindings_last() -> None:
    tables = CellTables(CELLS, TRIE, CPU)
    assert tables.keep(5, 16) is tables.keep(5, 16)
    assert tables.keep(5, 16)[names.KEEP_EXACT].numpy().tolist() == [21], "no more than rows there are"
