"""The criteria of rules and of diversity, written down before anything is measured. Pure.

A criterion is the name of a row of `results/shop.json`.
"""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.common import results

METHODS = ("mmr", "dpp")
WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
MEASURES = ("recall@10", "ndcg@10", "diversity@10")
# By how much lists must be more diverse where it is asked what that costs.
MORE_DIVERSE = 1.10

RULES = 5
COST = f"rules: processor time of a /recommend with {RULES} rules, times one without"
COST_LATENCY = f"rules: median latency of a /recommend with {RULES} rules, times one without"


def kept(method: str) -> str:
    """Returns the name of a row: the part of NDCG@10 that is left where lists are a tenth more diverse.

    The weight is the smallest that makes them so on validation questions; both are measured on test questions.
    """
    return f"diversity: {method}, NDCG@10 kept where lists are 10 % more diverse, %"


def of_weight(method: str, weight: float, measure: str) -> str:
    """Returns the name of a row of the frontier; weight 0 is the list without diversity, whatever the method."""
    return f"diversity: {method} {weight:g}, {measure}" if weight else f"diversity: none, {measure}"


# As `results.row` takes a limit; a row without one is a figure.
LIMITS: Mapping[str, Mapping[str, float]] = {
    COST: {"at_most": 1.15},
    COST_LATENCY: {},
    **{kept(method): {"at_least": 95.0} for method in METHODS},
}


def row(name: str, value: float, unit: str, command: str) -> results.Row:
    """Returns the row of a criterion, with the limit that was written down for it, if there is one."""
    limit = LIMITS.get(name, {})
    return results.row(name, value, unit, command, at_most=limit.get("at_most"), at_least=limit.get("at_least"))
