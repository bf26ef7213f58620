"""Blocks of the same requests to services that differ in one thing, in turn: what they took, and how they differ."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtests.harness.bench import history, settle
from loadtests.harness.served_process import Process, Served
from loadtests.load.open_loop_driver import Arrival, closed_now
from loadtests.load.replay import RECOMMEND
from service.artifact.artifact import Artifact

USERS = 64
_LONGEST = 40
_RESAMPLES = 5000
# Lists are written within a quarter of a second: processes that are idle until then have not done that work yet.
_BEHIND_S = 0.4


@dataclass(frozen=True, slots=True)
class Block:
    """What a block of requests took.

    Attributes:
        cpu_us: Processor time of a request, microseconds.
        median_ms: Median latency.
        p99_ms: 99th percentile of the latency.
    """

    cpu_us: float
    median_ms: float
    p99_ms: float


Pair = tuple[Block, Block]


def more_of(pairs: Sequence[Pair], figure: str, seed: int = 0) -> tuple[float, float, float]:
    """Returns by how many per cent a figure of `Block` is more with recording, and the ends of its 95 % interval.

    The value is the geometric mean over the pairs; the interval is that of a bootstrap over them.
    """
    ratios = np.log([getattr(on, figure) / getattr(off, figure) for on, off in pairs])
    drawn = np.random.default_rng(seed).choice(ratios, (_RESAMPLES, len(ratios))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    mean, low, high = (100.0 * (np.exp(value) - 1.0) for value in (ratios.mean(), low, high))
    return float(mean), float(low), float(high)


def events(artifact: Path) -> Iterator[dict[str, object]]:
    """Histories of all lengths, so that all segments occur."""
    ids = Artifact.open(artifact).catalogue.item_ids
    for user in range(USERS):
        n = 1 + user * _LONGEST // USERS
        yield from history(f"u{user}", [ids[(7 * user + 3 * i) % len(ids)] for i in range(n)])


def block(served: Served, bodies: Sequence[Arrival], at_once: int, settle_s: float = 10.0) -> Block:
    """Sends a block of requests, and returns what it took.

    Args:
        served: The service.
        bodies: The requests.
        at_once: How many are in flight.
        settle_s: Longest wait for the work behind the answers.
    """
    processes: list[Process] = [served, *([served.valkey] if served.valkey is not None else [])]
    settle(*processes, within_s=settle_s)
    before = sum(process.cpu_s() for process in processes)
    report = closed_now(served.url, bodies, concurrency=at_once)
    time.sleep(_BEHIND_S)
    settle(*processes, within_s=settle_s)
    if report.errors:
        raise RuntimeError(f"requests failed: {report.errors}")
    took_s = sum(process.cpu_s() for process in processes) - before
    latencies = report.routes[RECOMMEND]
    return Block(1e6 * took_s / len(bodies), latencies.at(50) or 0.0, latencies.at(99) or 0.0)
