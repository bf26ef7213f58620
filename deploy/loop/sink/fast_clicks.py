"""Subjects that click faster than people do, found as their clicks come in. Pure.

The rule is that of `model.online.made_traffic`: a subject that exceeds it is no person on that day (UTC).
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict

from model.online.made_traffic import Suspicion

_DAY_MS = 86_400_000


class FastClicks:
    """Knows the days of such subjects. It is bounded by their number; those that clicked the longest ago go first."""

    def __init__(self, *, subjects_most: int, suspicion: Suspicion | None = None) -> None:
        """Creates it without clicks.

        Args:
            subjects_most: Subjects that are known.
            suspicion: What is too fast; None for what reports take.
        """
        rule = suspicion or Suspicion()
        self._most, self._within_ms, self.types = rule.clicks_max, rule.clicks_ms, rule.types
        self._subjects_most = subjects_most
        self._times: OrderedDict[str, list[int]] = OrderedDict()
        self._days: dict[str, set[int]] = {}

    def add(self, subject: str, time_ms: int) -> set[int]:
        """Takes a click, about in the order of their times.

        Returns:
            The days on which the subject turns out to click too fast, and did not before.
        """
        times = self._times.setdefault(subject, [])
        self._times.move_to_end(subject)
        insort(times, time_ms)
        last = bisect_right(times, time_ms)
        days: set[int] = set()
        for first in range(max(0, last - 1 - self._most), min(last, len(times) - self._most)):
            burst = times[first : first + self._most + 1]
            if burst[-1] - burst[0] < self._within_ms:
                days |= {burst[0] // _DAY_MS, burst[-1] // _DAY_MS}
        del times[: -2 * self._most]
        new = days - self._days.get(subject, set())
        if new:
            self._days[subject] = {one for one in self._days.get(subject, ()) if one >= min(new) - 1} | new
        while len(self._times) > self._subjects_most:
            self.forget(next(iter(self._times)))
        return new

    def on(self, subject: str, time_ms: int) -> bool:
        """Returns whether a subject clicked too fast on the day of a moment, as far as its clicks are known."""
        return time_ms // _DAY_MS in self._days.get(subject, ())

    def forget(self, subject: str) -> None:
        """Forgets a subject."""
        self._times.pop(subject, None)
        self._days.pop(subject, None)
