"""The short form of the commands that measure rules and diversity."""

from __future__ import annotations

import math

from loadtests.shop import list_criteria as criteria
from loadtests.shop.diversity import kept


def test_the_price_of_diversity_is_read_at_the_weight_that_validation_chooses() -> None:
    accuracy, diverse = criteria.MEASURES[1], criteria.MEASURES[2]
    valid = {("mmr", weight): {diverse: 0.5 + weight, accuracy: 0.0} for weight in criteria.WEIGHTS}
    valid["none", 0.0] = {diverse: 0.5, accuracy: 0.0}
    test = {key: {diverse: 0.0, accuracy: 0.4 - key[1]} for key in valid}
    assert math.isclose(kept(valid, test, "mmr"), 100 * (0.4 - 0.05) / 0.4)
    valid["none", 0.0] = {diverse: 2.0, accuracy: 0.0}
    assert math.isnan(kept(valid, test, "mmr"))


def test_limits_were_written_down_for_costs_and_for_both_methods() -> None:
    assert criteria.row(criteria.COST, 1.2, "×", "").limit == "≤ 1.15"
    assert criteria.row(criteria.COST, 1.2, "×", "").holds is False
    assert all(criteria.row(criteria.kept(method), 96.0, "%", "").holds for method in criteria.METHODS)
    assert criteria.row(criteria.of_weight("dpp", 0.3, "recall@10"), 0.2, "", "").limit is None
