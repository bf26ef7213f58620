"""Which cycle is due. Pure.

Times of increments are the multiples of the interval since midnight (UTC); the full training is due at one time of
day. Only the newest time of each kind counts: what was missed is not caught up twice. A full cycle stands for the
increments that were due before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.loop.run.journal import Cycle, Kind, seconds_of

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """When cycles are due.

    Attributes:
        interval_s: Seconds between increments.
        full_at_s: Seconds from midnight to the full training; None for none.
    """

    interval_s: float
    full_at_s: float | None

    @classmethod
    def of(cls, minutes: float, full_at: str) -> Schedule:
        """Returns the schedule of the settings: minutes between increments, and `HH:MM` or `never`."""
        if full_at == "never":
            return cls(minutes * 60.0, None)
        hours, _, rest = full_at.partition(":")
        return cls(minutes * 60.0, int(hours) * 3600.0 + int(rest) * 60.0)

    def due(self, cycles: Sequence[Cycle], now: float) -> tuple[Kind, float] | None:
        """Returns which cycle is due, and since when; None if none is.

        Without any cycle yet, an increment is due at once.

        Args:
            cycles: Those that were begun, the newest last.
            now: Unix seconds.
        """
        if not cycles:
            return "increment", now
        newest = _began(cycles[-1])
        full = max((_began(one) for one in cycles if one.kind == "full"), default=_began(cycles[0]))
        if (slot := self._full_before(now)) is not None and slot > full:
            return "full", slot
        slot = self._increment_before(now)
        return ("increment", slot) if slot > newest else None

    def next(self, now: float) -> float:
        """Returns the next time of either kind."""
        times = [self._increment_before(now) + self.interval_s]
        midnight = now - now % _DAY_S
        times[0] = min(times[0], midnight + _DAY_S)
        if (full := self._full_before(now)) is not None:
            times.append(full + _DAY_S)
        return min(times)

    def _increment_before(self, now: float) -> float:
        midnight = now - now % _DAY_S
        if self.interval_s >= _DAY_S:
            return now - now % self.interval_s
        return midnight + (now - midnight) // self.interval_s * self.interval_s

    def _full_before(self, now: float) -> float | None:
        if self.full_at_s is None:
            return None
        today = now - now % _DAY_S + self.full_at_s
        return today if today <= now else today - _DAY_S


def _began(cycle: Cycle) -> float:
    return seconds_of(cycle.started_at)
