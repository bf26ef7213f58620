"""The criteria of the order of a slate, written down before anything is measured. Pure.

A criterion is the name of a row of `results/shop.json`. Of several seeds the worst counts.
"""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.common import results

SEEDS = 3
# Lists that are put into order in each world, and judged by the truth.
JUDGED = 60

BIAS = f"slate: error of the position bias at any position, simulated users, worst of {SEEDS} seeds, %"
BY_SCORE = f"slate: expected clicks of lists by score, of the best order's, worst of {SEEDS} seeds, %"
CLICKS = f"slate: expected clicks of the learned order, of the best order's, worst of {SEEDS} seeds, %"
DWELL = f"slate: expected dwell of the learned order, of the best order's, worst of {SEEDS} seeds, %"
POLICY = f"slate: expected clicks of the order by policy gradient, of the best order's, worst of {SEEDS} seeds, %"
SWITCHED_ON = f"slate: orders that are kept where they earn more, of {SEEDS}"
# The order by score is the best one: an order that is kept there earns no more. By chance one in forty is.
LEFT_OFF = f"slate: orders that are kept where the order by score is the best one, of {SEEDS}"

# Lists of a small network that goes on from the clicks of half of the users, with the other half.
_AFTER = "slate: expected clicks of the generator's lists after {}, more than before, mean of {} seeds, %"
DPO, GRPO = _AFTER.format("DPO", SEEDS), _AFTER.format("GRPO", SEEDS)
# Going on with the usual loss on the same clicks: what the two are compared with.
LIKELIHOOD = _AFTER.format("likelihood of the same clicks", SEEDS)


# As `results.row` takes a limit.
LIMITS: Mapping[str, Mapping[str, float]] = {
    BIAS: {"at_most": 10.0},
    BY_SCORE: {},
    CLICKS: {"at_least": 97.0},
    DWELL: {"at_least": 97.0},
    POLICY: {},
    SWITCHED_ON: {"at_least": SEEDS},
    LEFT_OFF: {"at_most": 0},
    # Whatever comes.
    DPO: {},
    GRPO: {},
    LIKELIHOOD: {},
}


def row(name: str, value: float, unit: str, command: str) -> results.Row:
    """Returns the row of a criterion, with the limit that was written down for it.

    Raises:
        KeyError: No such criterion was written down.
    """
    limit = LIMITS[name]
    return results.row(
        name, value, unit, command, at_most=limit.get("at_most"), at_least=limit.get("at_least"),
    )  # fmt: skip
