"""What this process did in each of the last seconds, for the console.

A second holds values that can be summed over workers: counts, and the counts of the latency buckets. Rates and
quantiles are computed from sums (`row`, `traffic`), never averaged.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from service.metrics.families import LATENCY_BUCKETS
from service.metrics.service_metrics import Metrics, MetricsSnapshot

# Seconds that are kept, and the window of the present figures.
KEPT_S, RECENT_S = 600, 60
QUANTILES = {"p50_ms": 0.50, "p95_ms": 0.95, "p99_ms": 0.99}
_SLOTS = len(LATENCY_BUCKETS) + 1
# Latencies above the last bound are shown as that bound.
_BOUNDS_MS = [0.0, *(1000.0 * bound for bound in (*LATENCY_BUCKETS, LATENCY_BUCKETS[-1]))]

Buckets = dict[int, int]


@dataclass(slots=True)
class Second:
    """The counts of one second.

    Attributes:
        t: The second, in epoch seconds.
        answers: Answers to /recommend, by (source, rung, reason).
        latency: Answers by source and index of the latency bucket, without empty buckets.
        late: Answers after their deadline.
        failed: Answers with a 5xx status.
        events: Accepted events.
        cache: Cache lookups by `level:outcome`.
        segments: Answers to /recommend, by segment.
    """

    t: int
    answers: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    latency: dict[str, Buckets] = field(default_factory=dict)
    late: int = 0
    failed: int = 0
    events: int = 0
    cache: Counter[str] = field(default_factory=Counter)
    segments: Counter[str] = field(default_factory=Counter)

    def add(self, other: Second) -> None:
        """Adds the counts of another second, or of another worker."""
        self.answers.update(other.answers)
        for source, buckets in other.latency.items():
            mine = self.latency.setdefault(source, {})
            for place, count in buckets.items():
                mine[place] = mine.get(place, 0) + count
        self.late += other.late
        self.failed += other.failed
        self.events += other.events
        self.cache.update(other.cache)
        self.segments.update(other.segments)

    def to_json(self) -> list[Any]:
        """Returns the form in which one worker sends it to another; `parse` reads it."""
        answers = [[*made, count] for made, count in self.answers.items()]
        latency = {source: list(buckets.items()) for source, buckets in self.latency.items()}
        rest = [self.late, self.failed, self.events, dict(self.cache), dict(self.segments)]
        return [self.t, answers, latency, *rest]

    @classmethod
    def parse(cls, fields: Sequence[Any]) -> Second:
        """Reads what `to_json` returned."""
        t, answers, latency, late, failed, events, cache, *segments = fields  # a worker of before sends no segments
        return cls(
            t,
            Counter({(source, rung, reason): count for source, rung, reason, count in answers}),
            {source: {int(place): count for place, count in buckets} for source, buckets in latency.items()},
            late,
            failed,
            events,
            Counter(cache),
            Counter(*segments),
        )


class RecentTraffic:
    """The last seconds of this process. `run` must run in the background."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.time) -> None:
        self._metrics = metrics
        self._clock = clock
        self._seconds: deque[Second] = deque(maxlen=KEPT_S)
        self._before = metrics.snapshot()

    async def run(self) -> None:
        """Notes each second as it ends, until cancelled."""
        while True:
            await asyncio.sleep(1.0 - self._clock() % 1.0)
            self.note()

    def note(self) -> None:
        """Notes what happened since the last note, as the second that just ended or ends now."""
        t = int(self._clock() - 0.5)
        now, before = self._metrics.snapshot(), self._before
        self._before = now
        second = _difference(t, now, before)
        if self._seconds and self._seconds[-1].t >= t:  # the clock was set back, or the timer came early
            self._seconds[-1].add(second)
        else:
            self._seconds.append(second)

    def seconds(self, since: int = 0) -> list[Second]:
        """Returns the seconds after `since` (epoch seconds), oldest first."""
        return [second for second in self._seconds if second.t > since]


def _difference(t: int, now: MetricsSnapshot, before: MetricsSnapshot) -> Second:
    latency: dict[str, Buckets] = {}
    for source, counts in now.latency.items():
        known = before.latency.get(source) or [0] * _SLOTS
        if buckets := {place: n - k for place, (n, k) in enumerate(zip(counts, known, strict=True)) if n > k}:
            latency[source] = buckets
    return Second(
        t,
        now.answers - before.answers,
        latency,
        now.late - before.late,
        now.failed - before.failed,
        now.events - before.events,
        now.cache - before.cache,
        now.segments - before.segments,
    )


def together(workers: Iterable[Iterable[Second]]) -> list[Second]:
    """Returns the seconds of several workers, summed and in order of time."""
    by_time: dict[int, Second] = {}
    for seconds in workers:
        for second in seconds:
            by_time.setdefault(second.t, Second(second.t)).add(second)
    return [by_time[t] for t in sorted(by_time)]


def summed(seconds: Iterable[Second]) -> Second:
    """Returns the sum of some seconds; its time is 0."""
    total = Second(0)
    for second in seconds:
        total.add(second)
    return total


def quantile_ms(buckets: Mapping[int, int], share: float) -> float | None:
    """Returns a quantile of the latency in ms, interpolated inside its bucket as Prometheus does.

    Args:
        buckets: Answers by index of their bucket in `LATENCY_BUCKETS`.
        share: The quantile, e.g. 0.95.

    Returns:
        The latency that this share of the answers does not exceed; None without answers.
    """
    if not buckets:
        return None
    places = sorted(buckets)
    upto = list(accumulate(buckets[place] for place in places))
    rank = share * upto[-1]
    index = min(bisect_left(upto, rank), len(places) - 1)
    place = places[index]
    inside = (rank - (upto[index] - buckets[place])) / buckets[place]
    low, high = _BOUNDS_MS[place], _BOUNDS_MS[place + 1]
    return round(low + (high - low) * inside, 3)


def row(second: Second) -> dict[str, Any]:
    """Returns a second as the charts of the console draw it."""
    buckets = _all_buckets(second)
    return {
        "t": second.t,
        "answers": second.answers.total(),
        "late": second.late,
        **{name: quantile_ms(buckets, share) for name, share in QUANTILES.items()},
        **_mixes(second),
    }


def traffic(seconds: Sequence[Second], window_s: int = RECENT_S) -> dict[str, Any]:
    """Returns the figures of the last `window_s` seconds: rates, shares, and quantiles by source."""
    total = summed(seconds[-window_s:])
    answers = total.answers.total()
    latency = {"all": _all_buckets(total), **dict(sorted(total.latency.items()))}
    hits, lookups = total.cache["memory:hit"], sum(n for name, n in total.cache.items() if name.startswith("memory:"))
    return {
        "window_s": window_s,
        "answers": answers,
        "answers_per_s": round(answers / window_s, 2),
        "late": total.late,
        "failed": total.failed,
        "events_per_s": round(total.events / window_s, 2),
        "latency": {
            source: {
                "answers": sum(buckets.values()),
                **{name: quantile_ms(buckets, share) for name, share in QUANTILES.items()},
            }
            for source, buckets in latency.items()
        },
        **_mixes(total),
        "cache": {
            "hit_share": round(hits / lookups, 4) if lookups else None,
            "outcomes": dict(sorted(total.cache.items())),
        },
    }


def _all_buckets(second: Second) -> Buckets:
    total: Counter[int] = Counter()
    for buckets in second.latency.values():
        total.update(buckets)
    return dict(total)


def _mixes(second: Second) -> dict[str, dict[str, int]]:
    """Returns the answers by source, by rung, by reason and by segment."""
    sources: Counter[str] = Counter()
    rungs: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for (source, rung, reason), count in second.answers.items():
        sources[source] += count
        rungs[rung] += count
        if reason:
            reasons[reason] += count
    return {"source": dict(sources), "rung": dict(rungs), "reason": dict(reasons), "segment": dict(second.segments)}
