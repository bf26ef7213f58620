"""A circuit breaker over model attempts: CLOSED → OPEN → HALF_OPEN → CLOSED.

Late counts like failed: to the caller a list that misses its deadline is no list. Pure: no I/O, the clock is
passed in. The names follow resilience4j; its slow-call default (60 s) is useless at milliseconds, so lateness
is judged by each request's own deadline.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    window_s: float = 10.0
    min_attempts: int = 50
    failure_ratio: float = 0.5
    open_s: float = 5.0
    half_open_probes: int = 10


@dataclass(slots=True)
class _Slice:
    """Attempts that ended in one slice of the window."""

    began: float
    ok: int = 0
    bad: int = 0


_SLICES = 10


class Breaker:
    """Ask `allow` before an attempt; report how it ended with `record`, or `release` it if it never ran.

    While half open, `half_open_probes` attempts are let through. When they have ended the breaker closes, or
    opens again if `failure_ratio` of them were bad. A probe that never reports is given up after `open_s`.
    """

    def __init__(self, settings: BreakerSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._slices: deque[_Slice] = deque()
        self._state = BreakerState.CLOSED
        self._since = clock()
        self._probes_out: deque[float] = deque()
        self._probes = _Slice(self._since)

    @property
    def state(self) -> BreakerState:
        if self._state is BreakerState.OPEN and self._clock() - self._since >= self._settings.open_s:
            self._enter(BreakerState.HALF_OPEN)
        return self._state

    def allow(self) -> bool:
        """Whether an attempt may be made now; half open, it takes one of the probes."""
        state = self.state
        if state is not BreakerState.HALF_OPEN:
            return state is BreakerState.CLOSED
        now = self._clock()
        while self._probes_out and now - self._probes_out[0] >= self._settings.open_s:
            self._probes_out.popleft()
        if len(self._probes_out) + self._probes.ok + self._probes.bad >= self._settings.half_open_probes:
            return False
        self._probes_out.append(now)
        return True

    def release(self) -> None:
        """An allowed attempt was not made, or says nothing about the model."""
        if self.state is BreakerState.HALF_OPEN and self._probes_out:
            self._probes_out.popleft()

    def record(self, ok: bool) -> None:
        """How an allowed attempt ended."""
        state = self.state
        if state is BreakerState.CLOSED:
            self._count(ok)
            total, bad = self.counts()
            if total >= self._settings.min_attempts and bad >= self._settings.failure_ratio * total:
                self._enter(BreakerState.OPEN)
        elif state is BreakerState.HALF_OPEN and self._probes_out:
            # Attempts from before the breaker opened may still come in: without a probe out they are no news.
            self._probes_out.popleft()
            self._judge(ok)

    def counts(self) -> tuple[int, int]:
        """Attempts that ended within the window, and how many of them were late or failed."""
        horizon = self._clock() - self._settings.window_s
        while self._slices and self._slices[0].began <= horizon:
            self._slices.popleft()
        bad = sum(s.bad for s in self._slices)
        return bad + sum(s.ok for s in self._slices), bad

    def _judge(self, ok: bool) -> None:
        probes, wanted = self._probes, self._settings.half_open_probes
        if ok:
            probes.ok += 1
        else:
            probes.bad += 1
        if probes.bad >= self._settings.failure_ratio * wanted:
            self._enter(BreakerState.OPEN)
        elif probes.ok + probes.bad >= wanted:
            self._enter(BreakerState.CLOSED)

    def _count(self, ok: bool) -> None:
        now = self._clock()
        if not self._slices or now - self._slices[-1].began >= self._settings.window_s / _SLICES:
            self._slices.append(_Slice(now))
        if ok:
            self._slices[-1].ok += 1
        else:
            self._slices[-1].bad += 1

    def _enter(self, state: BreakerState) -> None:
        self._state = state
        self._since = self._clock()
        self._slices.clear()
        self._probes_out.clear()
        self._probes = _Slice(self._since)
