"""Counters and histograms of prometheus-client with less work for each count.

Its own check at each call whether there are labels, hold a lock for each bucket, and look at one bound after the other,
which takes a microsecond or two. What they show is the same.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from threading import Lock
from typing import Any, Self

from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.samples import Exemplar, Sample
from prometheus_client.utils import floatToGoString

# Whether the times at which series began are shown: prometheus-client has a switch for them.
_SHOWS_CREATED = len(next(iter(Counter("probe", "", registry=None).collect())).samples) > 1


class _Labelled(MetricWrapperBase):
    """A family whose children are looked up first: they are made once, and used for every request."""

    _metrics: dict[Sequence[str], Any]

    def labels(self, *values: Any, **named: Any) -> Self:
        """Returns the child with these labels."""
        child: Self | None = (
            self._metrics.get(values) if values and self._labelnames and not self._labelvalues else None
        )
        return super().labels(*values, **named) if child is None else child


class PlainCounter(_Labelled, Counter):
    """A counter. Safe to use from several threads."""

    def _metric_init(self) -> None:
        self._n, self._one, self._created = 0.0, Lock(), time.time()

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:  # noqa: ARG002 - none are shown
        """Counts.

        Raises:
            ValueError: The amount is negative.
        """
        if amount < 0:
            raise ValueError("counters only ever grow")
        with self._one:
            self._n += amount

    def reset(self) -> None:
        """Starts from 0 again."""
        self._metric_init()

    def _child_samples(self) -> Iterable[Sample]:
        return (Sample("_total", {}, self._n, None, None), *_created(self._created))


class PlainHistogram(_Labelled, Histogram):
    """A histogram. Safe to use from several threads."""

    def _metric_init(self) -> None:
        self._counts = [0] * len(self._upper_bounds)
        self._total, self._one, self._created = 0.0, Lock(), time.time()
        # The latest of each bucket.
        self._exemplars: dict[int, Exemplar] = {}

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Counts a value; an exemplar is shown with the bucket of the value, in the OpenMetrics format."""
        place = bisect_left(self._upper_bounds, amount)
        with self._one:
            self._counts[place] += 1
            self._total += amount
            if exemplar is not None:
                self._exemplars[place] = Exemplar(exemplar, amount, time.time())

    def _child_samples(self) -> Iterable[Sample]:
        with self._one:
            counts, total, exemplars = list(accumulate(self._counts)), self._total, dict(self._exemplars)
        return (
            *(
                Sample("_bucket", {"le": floatToGoString(bound)}, float(count), None, exemplars.get(place))  # type: ignore[no-untyped-call]
                for place, (bound, count) in enumerate(zip(self._upper_bounds, counts, strict=True))
            ),
            Sample("_count", {}, float(counts[-1]), None, None),
            Sample("_sum", {}, total, None, None),
            *_created(self._created),
        )


def _created(at_s: float) -> Iterable[Sample]:
    return (Sample("_created", {}, at_s, None, None),) if _SHOWS_CREATED else ()
