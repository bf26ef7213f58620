"""Error budgets: how much may go wrong in the long run, how fast it does, and when that is a breach. Pure.

There are three objectives. Each allows a share of

    latency   model attempts that are late: the result came, or would have come, after the deadline
    errors    model attempts that fail
    served    answers from below the model, but for what an operator forced or a new filter caused; it switches
              nothing and is there for alerts

Budgets on HTTP statuses would never burn, because the ladder hides every failure. The burn rate is the share that
missed the objective within a window, divided by the allowed share: at 1 the budget lasts as long as planned, at 14.4 it
is gone in a fourteenth of that time (Beyer et al., The Site Reliability Workbook, 2018, chapter 5).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Objective = Literal["latency", "errors", "served"]
Cause = Literal["breaker_open", "latency_budget", "error_budget"]

# Windows of the gauges. Alerts use the workbook's windows of hours and days (`deploy/prometheus`).
WINDOWS_S: dict[str, float] = {"1m": 60.0, "5m": 300.0, "1h": 3600.0}
# (window, short window in which it must still burn, factor): the workbook's pairs, in seconds instead of hours.
_FAST = (20.0, 2.0, 14.4)
_SLOW = (300.0, 30.0, 6.0)
# Factor of the attempts that judge a slow burn: with fewer, chance would decide.
_SLOW_VOLUME = 4
_SLICE_S = 0.5
# Window of the log lines about budgets.
_NOW_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSettings:
    """The budgets, as allowed shares in (0, 1].

    Attributes:
        late_share: Model attempts that may be late.
        failed_share: Model attempts that may fail.
        below_share: Answers that may come from below the model.
        least: Attempts that a window must hold before it is judged.
    """

    late_share: float = 0.01
    failed_share: float = 0.01
    below_share: float = 0.05
    least: int = 50


@dataclass(frozen=True, slots=True)
class Counts:
    """What happened in a window.

    Attributes:
        attempts: Model attempts that ended.
        late: Those that were late.
        failed: Those that failed.
        answers: Answers given.
        below: Those from below the model.
    """

    attempts: int = 0
    late: int = 0
    failed: int = 0
    answers: int = 0
    below: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """A limit on bad attempts. It is broken if the share is reached in the window and still in its last seconds.

    Attributes:
        cause: Why the model's traffic is reduced then; it decides which attempts are bad.
        window_s: Length of the window in seconds.
        short_s: Length of its end in which the share must still be reached.
        share: Share of bad attempts, 0 … 1.
        least: Attempts that the window must hold.
    """

    cause: Cause
    window_s: float
    short_s: float
    share: float
    least: int

    def broken(self, counts: Callable[[float], Counts]) -> bool:
        """Returns whether the rule is broken; `counts` gives the counts of the last seconds."""
        long = counts(self.window_s)
        if long.attempts < self.least or self._bad(long) < self.share * long.attempts:
            return False
        short = counts(self.short_s)
        return 0 < self.share * short.attempts <= self._bad(short)

    def _bad(self, counts: Counts) -> int:
        late = counts.late if self.cause != "error_budget" else 0
        return late + (counts.failed if self.cause != "latency_budget" else 0)


def breach_share(allowed: float, factor: float) -> float:
    """Returns the bad share at which a budget burns too fast.

    It is `factor` times the allowed share, but at most half-way between the allowed share and 1: for loose objectives
    the product would exceed 1 and never be reached.
    """
    return min(factor * allowed, (1.0 + allowed) / 2.0)


def return_share(allowed: float) -> float:
    """Returns the bad share up to which traffic comes back: well below the slow rule's limit, so that it can stay."""
    return (allowed + breach_share(allowed, _SLOW[2])) / 2.0


def budget_rules(settings: BudgetSettings) -> list[Rule]:
    """Returns the rules of the budgets: fast burns show within seconds, slow ones within minutes."""
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
    """Counts attempts and answers over the longest window, in slices of half a second."""

    def __init__(self, settings: BudgetSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._slices: deque[_Slice] = deque()

    def attempt(self, *, late: bool, failed: bool) -> None:
        """Counts a model attempt that has ended."""
        now = self._slice()
        now.attempts += 1
        now.late += late
        now.failed += failed

    def answered(self, *, below: bool) -> None:
        """Counts an answer; `below` if it comes from below the model."""
        now = self._slice()
        now.answers += 1
        now.below += below

    def counts(self, window_s: float, since: float = 0.0) -> Counts:
        """Returns the counts of the last `window_s` seconds, but of nothing before the clock time `since`."""
        horizon = max(self._clock() - window_s, since)
        attempts = late = failed = answers = below = 0
        for past in reversed(self._slices):
            if past.began < horizon:
                break
            attempts += past.attempts
            late += past.late
            failed += past.failed
            answers += past.answers
            below += past.below
        return Counts(attempts, late, failed, answers, below)

    def burn_rates(self) -> dict[Objective, dict[str, float]]:
        """Returns the burn rates by objective and window (`WINDOWS_S`); 0 if nothing happened in a window."""
        rates: dict[Objective, dict[str, float]] = {"latency": {}, "errors": {}, "served": {}}
        for name, length in WINDOWS_S.items():
            seen = self.counts(length)
            attempts, answers = max(1, seen.attempts), max(1, seen.answers)
            rates["latency"][name] = seen.late / attempts / self._settings.late_share
            rates["errors"][name] = seen.failed / attempts / self._settings.failed_share
            rates["served"][name] = seen.below / answers / self._settings.below_share
        return rates

    def burn_now(self) -> dict[Objective, float]:
        """Returns the burn rates of the last minute; 0 while there are too few attempts or answers to judge."""
        seen, settings = self.counts(_NOW_S), self._settings
        shares: dict[Objective, tuple[int, int, float]] = {
            "latency": (seen.late, seen.attempts, settings.late_share),
            "errors": (seen.failed, seen.attempts, settings.failed_share),
            "served": (seen.below, seen.answers, settings.below_share),
        }
        return {
            name: bad / total / allowed if total >= settings.least else 0.0
            for name, (bad, total, allowed) in shares.items()
        }

    def too_fast(self, objective: Objective, rate: float) -> bool:
        """Returns whether a budget that burns at this rate is about to be gone (the workbook's fast burn)."""
        settings = self._settings
        allowed = {
            "latency": settings.late_share, "errors": settings.failed_share, "served": settings.below_share,
        }[objective]  # fmt: skip
        return rate * allowed >= breach_share(allowed, _FAST[2])

    def _slice(self) -> _Slice:
        now = self._clock()
        if not self._slices or now - self._slices[-1].began >= _SLICE_S:
            self._slices.append(_Slice(now))
            while now - self._slices[0].began > max(WINDOWS_S.values()):
                self._slices.popleft()
        return self._slices[-1]
