"""The summaries of several workers as one. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# The worst comes last.
_STATES = ("ok", "missing", "unreadable")

Summary = Mapping[str, Any]


def merged_summary(workers: Sequence[Summary]) -> dict[str, Any]:
    """Returns one summary: counts added up, figures weighted by lists, and of each drift the worst.

    Args:
        workers: Of each worker, as `TrafficWatch.summary` gives them; those that do not watch are left out.
    """
    watched = [one for one in workers if one]
    if not watched:
        return {}
    over: dict[str, dict[str, Any]] = {}
    for one in watched:
        for window, found in one["over"].items():
            worst = over.setdefault(window, {})
            for drift in found:
                worst[drift["statistic"]] = _worse(worst.get(drift["statistic"]), drift)
    drifts: dict[str, Any] = {}
    for one in watched:
        for drift in one["drift"]:
            drifts[drift["statistic"]] = _worse(drifts.get(drift["statistic"]), drift)
    return {
        "baseline": max((one["baseline"] for one in watched), key=_STATES.index),
        "lists": sum(one["lists"] for one in watched),
        "events": sum(one["events"] for one in watched),
        "figures": _weighted(watched),
        "drift": list(drifts.values()),
        "over": {window: list(found.values()) for window, found in over.items()},
    }


def _weighted(watched: Sequence[Summary]) -> dict[str, float]:
    names = dict.fromkeys(name for one in watched for name in one["figures"])
    found: dict[str, float] = {}
    for name in names:
        values = [(one["figures"][name], max(1, one["lists"])) for one in watched if name in one["figures"]]
        found[name] = round(sum(v * n for v, n in values) / sum(n for _, n in values), 4)
    return found


def _worse(one: Any, other: Any) -> Any:
    """The drift that is further above its threshold."""
    if one is None or other["divergence"] / other["threshold"] > one["divergence"] / one["threshold"]:
        return other
    return one
