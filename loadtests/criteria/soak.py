"""Criterion 8: real sessions for minutes, at a share of the capacity."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from loadtests.common import limit_criteria
from loadtests.common.meanwhile import meanwhile
from loadtests.harness.bench import Bench
from loadtests.harness.served_process import Served, serve
from loadtests.load.capacity import Capacity, Step, capacity
from loadtests.load.open_loop_driver import Arrival, drive_now
from loadtests.load.replay import RECOMMEND, Replay, read

SHARE = 0.7
MINUTES = 5.0
SAMPLE_S = 2.0
# Arenas and caches breathe; a leak of one list a request would be more than this in half of the run.
GROWTH_SHARE = 0.02
# What an answer is worth: a service that falls back under load has not borne it.
FULL_SHARE = 0.99


def run(bench: Bench, minutes: float = MINUTES) -> None:
    """Records errors, latencies, the share of each rung and the growth of memory under the replay."""
    if bench.data is None:
        raise ValueError("criterion soak needs --data")
    minutes = 0.2 if bench.quick else minutes
    replay = Replay(read(bench.data))
    with serve(bench.artifact) as service:
        found = measure_capacity(bench, service, replay)
        rate = found.rate * SHARE
        if rate <= 0.0:
            raise RuntimeError("the service sustains no load: no rate of the search holds")
        seconds = minutes * 60.0
        bench.console.print(
            f"  capacity {found.rate:.0f} requests/s; {minutes:g} minutes at {rate:.0f}", highlight=False
        )
        warmup_s = min(20.0, seconds / 4)
        _prepare(bench, service, replay, rate * (seconds + warmup_s))
        arrivals = replay.arrivals(rate, seconds + warmup_s, 0)
        with sampled(service) as memory:
            report = drive_now(service.url, arrivals, warmup_s=warmup_s)
    errors = sum(report.errors.values())
    bench.row("8 soak errors", errors, f"of {report.requests} requests", at_most=0)
    for label, latencies in report.routes.items():
        bench.row(f"8 soak {label} p50", latencies.at(50) or 0.0, "ms")
        bench.row(f"8 soak {label} p99", latencies.at(99) or 0.0, "ms")
    for rung in report.rungs:
        bench.row(f"8 soak rung {rung}", report.share(rung) * 100.0, "% of lists")
    bench.row("8 soak growth", growth(memory) * 100.0, "% of memory in the second half", at_most=GROWTH_SHARE * 100)
    bench.limit(limit_criteria.SOAK_ERRORS, errors)
    bench.limit(limit_criteria.SOAK_GROWTH, growth(memory) * 100.0)
    bench.limit(limit_criteria.SOAK_P99, report.routes[RECOMMEND].at(99) or 0.0)
    bench.save(
        "soak",
        {
            "minutes": minutes,
            "share_of_capacity": SHARE,
            "capacity": found.json(),
            "run": report.json(),
            "resident_mib": memory,
            "sample_s": SAMPLE_S,
            "recommends_per_event": replay.recommends,
            "sessions_at_once": replay.active,
            "users": len(replay.names()),
        },
    )


def measure_capacity(bench: Bench, service: Served, replay: Replay, *, low: float = 100.0) -> Capacity:
    """Finds the highest rate of the replay with p99 ≤ 50 ms, no errors and full lists; prints every step."""

    def make(rate: float, seconds: float, seed: int) -> Sequence[Arrival]:
        _prepare(bench, service, replay, rate * seconds)
        return replay.arrivals(rate, seconds, seed)

    def show(step: Step) -> None:
        bench.console.print(f"  {step.rate:8.1f} requests/s: {step.fault or 'holds'}", highlight=False)

    seconds = 1.0 if bench.quick else 4.0
    return capacity(
        service.url, make, low=low, seconds=seconds, confirm_s=2 * seconds, full_share=FULL_SHARE,
        precision=0.3 if bench.quick else 0.05, on_step=show,
    )  # fmt: skip


def _prepare(bench: Bench, service: Served, replay: Replay, requests: float) -> None:
    steps = math.ceil(requests * 1.1 + 200)
    with bench.console.status("  earlier histories"):
        replay.prepare(service.url, steps)


@contextmanager
def sampled(service: Served) -> Iterator[list[float]]:
    """Samples resident memory in MiB while the body runs."""
    samples: list[float] = []

    def watch(stop: threading.Event) -> None:
        while not stop.is_set() and service.alive():
            samples.append(round(service.rss_mib(), 2))
            stop.wait(SAMPLE_S)

    with meanwhile(watch):
        yield samples


def growth(samples: Sequence[float]) -> float:
    """Returns the rise of a straight line through the second half of the samples, relative to its beginning."""
    half = np.asarray(samples[len(samples) // 2 :], np.float64)
    if len(half) < 3:
        return 0.0
    slope, start = np.polyfit(np.arange(len(half)), half, 1)
    return float(slope * (len(half) - 1) / start)
