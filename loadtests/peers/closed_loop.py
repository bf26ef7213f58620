"""A closed loop by wrk over prepared bodies, to choose settings and as a cross-check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.load import wrk
from loadtests.load.open_loop_driver import Arrival


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Requests a second with `concurrency` connections, and latencies in milliseconds."""

    rps: float
    p50_ms: float
    p99_ms: float
    concurrency: int
    bad: str | None


def measure(url: str, path: str, bodies: Sequence[bytes], concurrency: int, seconds: float) -> ClosedLoop:
    """Runs wrk.

    Raises:
        LoadError: If wrk fails or prints something unexpected.
    """
    arrivals = [Arrival(0.0, path, body) for body in bodies]
    found = wrk.run(url, arrivals, connections=concurrency, seconds=seconds)
    return ClosedLoop(found.rate, found.p50_ms, found.p99_ms, concurrency, found.bad)
