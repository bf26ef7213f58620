"""A closed loop by wrk over prepared bodies, as a cross-check and for choosing settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.load import wrk
from loadtests.load.open_loop_driver import Arrival


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Requests a second with `concurrency` connections, and its latencies in milliseconds."""

    rps: float
    p50_ms: float
    p99_ms: float
    concurrency: int
    bad: str | None


def measure(url: str, path: str, bodies: Sequence[bytes], concurrency: int, seconds: float) -> ClosedLoop:
    """Raises LoadError where wrk fails, or what it prints is not understood."""
    arrivals = [Arrival(0.0, path, body) for body in bodies]
    found = wrk.run(url, arrivals, connections=concurrency, seconds=seconds)
    return ClosedLoop(found.rate, found.p50_ms, found.p99_ms, concurrency, found.bad)
