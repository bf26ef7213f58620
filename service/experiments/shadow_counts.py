"""What a shadow has found: how much of each list its candidate would have shown too, and how long both took. Pure.

Counts are whole numbers by name, so that those of all replicas add up in Redis. Times are counted by bucket, and their
quantiles are read from the buckets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

from service.metrics.families import LATENCY_BUCKETS

Outcome = Literal["compared", "dropped", "busy", "skipped", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("compared", "dropped", "busy", "skipped", "failed")
SIDES = ("shown", "candidate")
_MILLION = 1_000_000
# Arms have a count `failed` as well.
_OUTCOME = "shadow_"


def overlap_of(shown: Sequence[str], candidate: Sequence[str]) -> float:
    """Returns the share of the items of two lists that are in both, 0 to 1: overlap@k, where k is the longer length.

    Args:
        shown: Item ids, best first.
        candidate: The same of the other list.
    """
    longest = max(len(shown), len(candidate))
    return len({*shown} & {*candidate}) / longest if longest else 1.0


def happened(outcome: Outcome) -> dict[str, int]:
    """Returns the count of one request with this outcome."""
    return {_OUTCOME + outcome: 1}


def compared(shown: Sequence[str], candidate: Sequence[str], shown_s: float, candidate_s: float) -> dict[str, int]:
    """Returns the counts of one compared request.

    Args:
        shown: Item ids of the list that was shown, best first.
        candidate: Those of the candidate.
        shown_s: Seconds that the shown list took.
        candidate_s: Seconds that the candidate took.
    """
    counts = {
        **happened("compared"),
        "overlap": round(_MILLION * overlap_of(shown, candidate)),
        "same_first": int([*shown[:1]] == [*candidate[:1]]),
        "same_list": int([*shown] == [*candidate]),
    }
    for side, seconds in zip(SIDES, (shown_s, candidate_s), strict=True):
        counts[f"{side}_us"] = round(_MILLION * seconds)
        counts[f"{side}_within_{bisect_left(LATENCY_BUCKETS, seconds)}"] = 1
    return counts


def told(counts: Mapping[str, int]) -> dict[str, Any]:
    """Returns what counts say, as operators read it.

    Args:
        counts: Sums of what `compared` and `happened` return.
    """
    n = counts.get(_OUTCOME + "compared", 0)

    def share(name: str, of: int = 1) -> float | None:
        return counts.get(name, 0) / of / n if n else None

    return {
        "requests": {outcome: counts.get(_OUTCOME + outcome, 0) for outcome in OUTCOMES},
        "overlap": share("overlap", _MILLION),
        "same_first": share("same_first"),
        "same_list": share("same_list"),
        **{f"{side}_ms": _times(counts, side, n) for side in SIDES},
    }


def _times(counts: Mapping[str, int], side: str, n: int) -> dict[str, float] | None:
    """Mean and quantiles of one side in milliseconds; None if nothing was compared."""
    if not n:
        return None
    within = [counts.get(f"{side}_within_{place}", 0) for place in range(len(LATENCY_BUCKETS) + 1)]
    return {
        "mean": counts.get(f"{side}_us", 0) / 1000.0 / n,
        "p50": 1000.0 * _quantile(within, 0.50),
        "p95": 1000.0 * _quantile(within, 0.95),
    }


def _quantile(within: Sequence[int], share: float) -> float:
    """A quantile in seconds, linear within its bucket; the last bound for what is above it."""
    bounds = (0.0, *LATENCY_BUCKETS)
    rank = share * sum(within)
    for place, reached in enumerate(accumulate(within)):
        if reached >= rank and within[place]:
            if place >= len(LATENCY_BUCKETS):
                break
            part = (rank - (reached - within[place])) / within[place]
            return bounds[place] + part * (bounds[place + 1] - bounds[place])
    return bounds[-1]
