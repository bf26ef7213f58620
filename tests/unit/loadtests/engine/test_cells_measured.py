"""Enlarged catalogues keep the structure of the trained one, and candidates by cell are measured on them."""

from __future__ import annotations

import numpy as np

from loadtests.common.limit_criteria import CRITERIA, LEFT_BY_FILTER, cells_filtered
from loadtests.engine.cells import ROWS, chosen_rows, found_of, on_paper
from loadtests.engine.enlarged_artifact import enlarge, enlarged_network, filter_names
from tests.support.networks import random_network


def test_an_enlarged_catalogue_keeps_the_items_and_the_cells_of_the_trained_one() -> None:
    trained = random_network(seed=1, n_items=60, sizes=(4, 4, 8))
    codes, table = trained.codes.numpy(), trained.item_table()[:-2].detach().numpy()
    more = enlarge(codes, table, 200, np.random.default_rng(0))
    np.testing.assert_array_equal(more.vectors[:60], table)
    assert {tuple(c) for c in more.codes[:, :2]} == {tuple(c) for c in codes[:, :2]}
    assert len({tuple(c) for c in more.codes}) == 200
    lengths = [np.linalg.norm(v, axis=1).mean() for v in (table, more.vectors)]
    assert 0.7 < lengths[1] / lengths[0] < 1.4
    network = enlarged_network(trained, more)
    np.testing.assert_allclose(network.item_table()[:200].detach().numpy(), more.vectors, atol=1e-5)
    fewer = enlarge(codes, table, 20, np.random.default_rng(0))
    assert {tuple(v) for v in fewer.vectors} <= {tuple(v) for v in table}


def test_filters_leave_what_they_say() -> None:
    names = filter_names(2000, LEFT_BY_FILTER, np.random.default_rng(0))
    assert [names.count(f"left {left:g}") for left in LEFT_BY_FILTER] == [200, 20, 2]
    assert all(cells_filtered(left) in CRITERIA for left in LEFT_BY_FILTER)


def test_the_criteria_are_read_at_the_smallest_number_of_rows_that_finds_enough() -> None:
    def found(*recall: float) -> dict[str, object]:
        points = {str(rows): {"recall": {"everything": one}} for rows, one in zip(ROWS, recall, strict=True)}
        return {"sizes": {"9": {"points": points}}}

    assert chosen_rows(found(0.1, 0.5, 0.99, 0.995, 1.0), 9) == str(ROWS[2])
    assert chosen_rows(found(0.1, 0.5, 0.6, 0.7, 0.8), 9) == str(ROWS[-1])
    assert on_paper()["item vectors, MiB"] == 4883


def test_an_item_is_found_where_one_with_the_same_score_is_listed() -> None:
    def found(listed: list[float], best: list[float]) -> int:
        return found_of(np.array(listed, np.float32), np.array(best, np.float32))

    assert found([5, 4, 3], [3, 4, 5]) == 3
    assert found([5, 4, 2], [3, 4, 5]) == 2
    # Of three items with the same score the exhaustive list holds two: any two of them will do, and one is one.
    assert found([3, 3, 5], [3, 3, 5]) == 3
    assert found([3, 5], [3, 3, 5]) == 2
    assert found([3, 3, 3], [3, 3, 5]) == 2
    assert found([], [1]) == 0
    assert found([-7.000001], [-7.0]) == 1
    assert found([0.0000001, 7.0], [0.0, 7.0]) == 2
