"""Error budgets: what may go wrong in the long run, how fast it does, and when that is a breach. Pure.

Three objectives, each with the share that may miss it:

    latency   model attempts that are late: the answer came, or would have come, after its deadline
    errors    model attempts that fail
    served    answers that come from below the model; nothing is switched by it, people are told

HTTP statuses would never burn: the ladder hides every failure. The burn rate is the share that missed within a window
divided by the allowed one: at 1 the budget lasts as long as planned, at 14.4 it is gone in a fourteenth of that
(Beyer et al., The Site Reliability Workbook, 2018, chapter 5).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Objective = Literal["latency", "errors", "served"]
Cause = Literal["breaker_open", "latency_budget", "error_budget"]

# Of the gauges; `deploy/prometheus` has the workbook's windows, of hours and days, for people.
WINDOWS_S: dict[str, float] = {"1m": 60.0, "5m": 300.0, "1h": 3600.0}
# (window, the short one in which it must still burn, factor): the workbook's pairs, in seconds instead of hours.
_FAST = (20.0, 2.0, 14.4)
_SLOW = (300.0, 30.0, 6.0)
# A slow burn is judged by more attempts: fewer of them would be chance.
_SLOW_VOLUME = 4
_SLICE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSettings:
    """Allowed shares, each in (0, 1]; `least` attempts must lie in a window before it is judged."""

    late_share: float = 0.01
    failed_share: float = 0.01
    below_share: float = 0.05
    least: int = 50


@dataclass(frozen=True, slots=True)
class Counts:
    """Model attempts that ended, how many of them late or failed; answers given, how many from below the model."""

    attempts: int = 0
    late: int = 0
    failed: int = 0
    answers: int = 0
    below: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """Broken where, in `window_s` and still in the last `short_s`, at least `share` of the attempts were bad."""

    cause: Cause
    window_s: float
    short_s: float
    share: float
    least: int

    def broken(self, counts: Callable[[float], Counts]) -> bool:
        long = counts(self.window_s)
        if long.attempts < self.least or self._bad(long) < self.share * long.attempts:
            return False
        short = counts(self.short_s)
        return 0 < self.share * short.attempts <= self._bad(short)

    def _bad(self, counts: Counts) -> int:
        late = counts.late if self.cause != "error_budget" else 0
        return late + (counts.failed if self.cause != "latency_budget" else 0)


def breach_share(allowed: float, factor: float) -> float:
    """The bad share at which a budget burns too fast.

    `factor` times the allowed share; for loose objectives that would be more than everything and never fire, so it
    ends half-way between what is allowed and everything.
    """
    return min(factor * allowed, (1.0 + allowed) / 2.0)


def return_share(allowed: float) -> float:
    """The bad share up to which traffic comes back: well below what the slow rule sends away, so that it can stay."""
    return (allowed + breach_share(allowed, _SLOW[2])) / 2.0


def budget_rules(settings: BudgetSettings) -> list[Rule]:
    """When the model is spared for its budgets: fast burns within seconds, slow ones within minutes."""
    allowed: dict[Cause, float] = {"error_budget": settings.failed_share, "latency_budget": settings.late_share}
    return [
        Rule(cause, window, short, breach_share(share, factor), settings.least * volume)
        for (window, short, factor), volume in ((_FAST, 1), (_SLOW, _SLOW_VOLUME))
        for cause, share in allowed.items()
    ]


@dataclass(slots=True)
class _Slice:
    began: float
    attempts: int = 0
    late: int = 0
    failed: int = 0
    answers: int = 0
    below: int = 0


class ErrorBudgets:
    """Counts attempts and answers for as long as the longest window, half a second at a time."""

    def __init__(self, settings: BudgetSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._slices: deque[_Slice] = deque()

    def attempt(self, *, late: bool, failed: bool) -> None:
        """A model attempt ended."""
        now = self._slice()
        now.attempts += 1
        now.late += late
        now.failed += failed

    def answered(self, *, below: bool) -> None:
        """An answer was given; `below` where it is not the model's."""
        now = self._slice()
        now.answers += 1
        now.below += below

    def counts(self, window_s: float, since: float = 0.0) -> Counts:
        """Of the last `window_s`, but of nothing before `since`."""
        horizon = max(self._clock() - window_s, since)
        attempts = late = failed = answers = below = 0
        for one in reversed(self._slices):
            if one.began < horizon:
                break
            attempts += one.attempts
            late += one.late
            failed += one.failed
            answers += one.answers
            below += one.below
        return Counts(attempts, late, failed, answers, below)

    def burn_rates(self) -> dict[Objective, dict[str, float]]:
        """By objective and window; `WINDOWS_S` names the windows. Where nothing happened nothing burns."""
        rates: dict[Objective, dict[str, float]] = {"latency": {}, "errors": {}, "served": {}}
        for name, length in WINDOWS_S.items():
            seen = self.counts(length)
            attempts, answers = max(1, seen.attempts), max(1, seen.answers)
            rates["latency"][name] = seen.late / attempts / self._settings.late_share
            rates["errors"][name] = seen.failed / attempts / self._settings.failed_share
            rates["served"][name] = seen.below / answers / self._settings.below_share
        return rates

    def _slice(self) -> _Slice:
        now = self._clock()
        if not self._slices or now - self._slices[-1].began >= _SLICE_S:
            self._slices.append(_Slice(now))
            while now - self._slices[0].began > max(WINDOWS_S.values()):
                self._slices.popleft()
        return self._slices[-1]
