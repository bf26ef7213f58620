"""The criteria of the loop, written down before anything is measured. Pure.

A criterion is the name of a row of `results/loop.json`. The commands record their rows with `row`, so a figure never
chooses its own limit.
"""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.common import results

JOIN = "join: outcomes that differ from plain loops, 100,000 events"
# Estimators whose intervals are judged, and the least effective sample at which they are.
ESTIMATORS = ("ips", "snips", "dr", "list_ips")
LEAST_EFFECTIVE = 200
REPLICATIONS = 2_000


def coverage(estimator: str, end: str) -> str:
    """Returns the name of a row: coverage of an estimator's interval in the setting with the "least", or the "most"."""
    return f"ope: coverage of the 95 % interval, {estimator}, {end} of the settings, %"


# As `results.row` takes a limit.
LIMITS: Mapping[str, Mapping[str, float]] = {
    JOIN: {"at_most": 0},
    **{coverage(name, "least"): {"at_least": 92.0} for name in ESTIMATORS},
    **{coverage(name, "most"): {"at_most": 98.0} for name in ESTIMATORS},
}


def row(name: str, value: float, unit: str, command: str) -> results.Row:
    """Returns the row of a criterion, with the limit that was written down for it.

    Raises:
        KeyError: No such criterion was written down.
    """
    limit = LIMITS[name]
    return results.row(
        name,
        value,
        unit,
        command,
        at_most=limit.get("at_most"),
        at_least=limit.get("at_least"),
    )
