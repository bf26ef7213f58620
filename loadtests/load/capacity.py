"""The highest offered rate that a service sustains.

A rate holds if a run has no errors, p99 ≤ `p99_ms` (of every route, or of one) and, if required, at least `full_share`
of the lists from the rung "full": a service that answers from a cheaper rung has not sustained the load. The rate is
doubled from `low` until it does not hold, then bisected until the bounds are within `precision`, and
confirmed by a run of `confirm_s` with another seed, stepping down by `precision` until one holds. A failed run is
repeated once with another seed, and counts as failed only if the repetition fails too: a burst of another process must
not end the search.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtests.load.open_loop_driver import Arrival, Report, drive_now

Make = Callable[[float, float, int], Sequence[Arrival]]

HIGHEST = 20_000.0
_CONFIRMATIONS = 8
_OPEN_BEYOND = 8.0


@dataclass(slots=True)
class Step:
    """One run of the search; `fault` says why it does not hold, and is None if it does."""

    rate: float
    seconds: float
    report: Report
    fault: str | None

    def json(self) -> dict[str, Any]:
        """Returns the step as it is recorded."""
        return {
            "rate": round(self.rate, 2),
            "seconds": self.seconds,
            "fault": self.fault,
            "latency_ms": {route: found.figures() for route, found in self.report.routes.items()},
            "generator_cpu_share": round(self.report.cpu_share, 3),
            "late_share": round(self.report.late_share, 4),
        }


@dataclass(slots=True)
class Capacity:
    """The highest confirmed rate (requests a second; 0 if none held), its run, and every run of the search.

    `generator_bound` is true if the generator itself ran out of processor time at the first rate that did not hold.
    """

    rate: float
    report: Report | None
    steps: list[Step] = field(default_factory=list)
    generator_bound: bool = False

    def json(self) -> dict[str, Any]:
        """Returns the result as it is recorded."""
        return {
            "rate": round(self.rate, 2),
            "generator_bound": self.generator_bound,
            "confirmed": self.report.json() if self.report else None,
            "steps": [step.json() for step in self.steps],
        }


def capacity(
    url: str,
    make: Make,
    *,
    p99_ms: float = 50.0,
    route: str | None = None,
    full_share: float | None = None,
    low: float = 50.0,
    seconds: float = 4.0,
    warmup_s: float = 1.0,
    precision: float = 0.05,
    confirm_s: float = 8.0,
    settle_s: float = 0.5,
    seed: int = 0,
    on_step: Callable[[Step], None] | None = None,
    **options: Any,
) -> Capacity:
    """Searches the highest rate that holds.

    Args:
        url: URL of the service.
        make: Returns the arrivals for a rate, a length in seconds (warm-up included) and a seed.
        p99_ms: Limit of p99.
        route: The route to which the limit applies; all routes if None.
        full_share: Least share of lists from the rung "full"; no such condition if None.
        low: First rate, requests a second.
        seconds: Length of a run, without the warm-up.
        warmup_s: Warm-up of each run.
        precision: Ratio of the bounds, less 1, at which the search ends.
        confirm_s: Length of the confirming run.
        settle_s: Pause after each run.
        seed: Seed of the first run.
        on_step: Called after each run.
        options: Further options of `drive`.

    Raises:
        LoadError: If no service listens at the URL.
    """
    found = Capacity(0.0, None)

    def once(rate: float, length: float, salt: int) -> Step:
        arrivals = make(rate, warmup_s + length, seed + 7919 * salt)
        # By Little's law, so many open requests mean that the limit is far exceeded: the rest need not be queued too.
        most = max(64, math.ceil(rate * p99_ms / 1000.0 * _OPEN_BEYOND))
        report = drive_now(url, arrivals, **{"warmup_s": warmup_s, "max_in_flight": most, **options})
        step = Step(rate, length, report, fault(report, p99_ms=p99_ms, route=route, full_share=full_share))
        found.steps.append(step)
        if on_step is not None:
            on_step(step)
        del arrivals
        gc.collect()
        # What this run left in queues must not become latency of the next one.
        time.sleep(settle_s)
        return step

    def holds(rate: float, length: float, salt: int) -> bool:
        for again in (0, 1):
            step = once(rate, length, salt + again)
            if step.fault is None:
                found.report = step.report
                return True
        # If the generator uses a whole core and sends late, the failure says nothing about the service.
        found.generator_bound = step.report.cpu_share > 0.9 and step.report.late_share > 0.01
        return False

    good, bad = _border(holds, low, seconds)
    while good > 0.0 and bad / good > 1.0 + precision:
        middle = (good * bad) ** 0.5
        good, bad = (middle, bad) if holds(middle, seconds, len(found.steps)) else (good, middle)
    for _ in range(_CONFIRMATIONS):
        if good <= 0.0 or holds(good, confirm_s, 1000 + len(found.steps)):
            break
        good /= 1.0 + precision
    else:
        good = 0.0
    found.rate = good
    if good <= 0.0:
        found.report = None
    return found


def fault(report: Report, *, p99_ms: float, route: str | None, full_share: float | None) -> str | None:
    """Says why a run does not hold; None if it does."""
    if report.errors:
        return "errors: " + ", ".join(f"{kind} ×{count}" for kind, count in list(report.errors.items())[:3])
    for label, found in report.routes.items():
        if route in (None, label) and (p99 := found.at(99.0)) is not None and p99 > p99_ms:
            return f"{label}: p99 {p99:.1f} ms"
    if full_share is not None and report.share("full") < full_share:
        return f"{report.share('full'):.1%} full lists"
    return None


def _border(holds: Callable[[float, float, int], bool], low: float, seconds: float) -> tuple[float, float]:
    """Doubles the rate; returns the last that held and the first that did not, (0, …) if even `low` / 16 failed."""
    rate = low
    while not holds(rate, seconds, 0):
        rate /= 4.0
        if rate < low / 16.0:
            return 0.0, rate
    while rate < HIGHEST:
        if not holds(2.0 * rate, seconds, 1):
            return rate, 2.0 * rate
        rate *= 2.0
    return rate, rate
