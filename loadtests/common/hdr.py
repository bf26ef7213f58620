"""HDR histograms of latencies: microseconds from 1 µs to 10 minutes, three significant digits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hdrh.histogram import HdrHistogram

PERCENTILES = (("p50", 50.0), ("p95", 95.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0))
_LONGEST_US = 600_000_000


class Latencies:
    """Latencies in milliseconds as an HDR histogram; can be merged and encoded in the format of HdrHistogram."""

    def __init__(self, milliseconds: Iterable[float] = ()) -> None:
        self._histogram = HdrHistogram(1, _LONGEST_US, 3)
        for value in milliseconds:
            self._histogram.record_value(min(_LONGEST_US, max(1, round(value * 1000.0))))

    def __len__(self) -> int:
        return int(self._histogram.get_total_count())

    def at(self, percentile: float) -> float | None:
        """Returns the milliseconds at a percentile (0–100); None if nothing was recorded."""
        if not len(self):
            return None
        return float(round(self._histogram.get_value_at_percentile(percentile) / 1000.0, 3))

    def share_above(self, milliseconds: float) -> float:
        """Returns the share of values above a limit, 0 if nothing was recorded."""
        n, limit_us = len(self), round(milliseconds * 1000.0)
        above = sum(
            item.count_at_value_iterated_to
            for item in self._histogram.get_recorded_iterator()
            if item.value_iterated_to > limit_us
        )
        return float(above / n) if n else 0.0

    def add(self, other: Latencies) -> None:
        """Merges another histogram into this one."""
        self._histogram.add(other._histogram)

    def figures(self) -> dict[str, float | None]:
        """Returns p50, p95, p99, p99.9 and max in milliseconds, None if nothing was recorded."""
        return {name: self.at(percentile) for name, percentile in PERCENTILES}

    def report(self) -> dict[str, Any]:
        """Returns the figures, the count, and the whole histogram (`hdr`: base64, in microseconds)."""
        return {"count": len(self), **self.figures(), "hdr": self._histogram.encode().decode()}
