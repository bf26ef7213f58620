"""Decides the rung of the ladder that a request starts on. Pure: no I/O, the clock is passed in.

    forced by an operator?     `fallback` → below the model          `model` → full
    done in time?              forecast of full, then of narrow, against the time left  no → below, overload | deadline
    let through?               the breaker's share of the traffic                       no → below, the breaker's cause

A forecast knows what runs typically take (`service.batching.run_costs`) and refuses what cannot be done in time. The
breaker counts the outcomes of the attempts (`service.guard.breaker`) and refuses what should not be tried. Nothing else
decides.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any, Literal, Protocol

from service.batching.run_costs import Forecast, RunningQuantile, with_headroom
from service.guard.breaker import Breaker, BreakerSettings

ModeName = Literal["auto", "fallback", "model"]
Rung = Literal["full", "narrow", "item_cf", "popular"]
Reason = Literal[
    "forced", "breaker_open", "latency_budget", "error_budget", "overload", "deadline", "model_error",
    "state_unavailable", "state_stale", "filter_not_ready", "not_enough_items",
]  # fmt: skip
ModelRung = Literal["full", "narrow"]
Forecasts = Callable[[ModelRung], Forecast]

MODEL_RUNGS: tuple[ModelRung, ...] = ("full", "narrow")

# Number of latest lags whose median is the present lag of the event loop.
_LAGS = 5
# Time kept back for what follows a model run, which waits for the loop, the machine and the network as they are: this
# quantile of this many latest lags, up to a part of the time left.
_TAIL_SHARE, _TAIL_LAGS, _TAIL_MOST = 0.995, 500, 0.4
# By how much forecasts were too low lately: a quantile over the latest attempts, up to a part of the time left.
# More than that is not a busy machine but a model that is slow now and then, which is the breaker's to judge.
_SHORT_SHARE, _SHORT_ATTEMPTS, _SHORT_MOST = 0.95, 60, 0.25
# Longest time between trials of a slow engine.
_TRIAL_MOST_S = 15.0


class Outcome(StrEnum):
    """How a model attempt ended."""

    OK = "ok"
    LATE = "late"  # the result came, or would have come, after the deadline
    FAILED = "failed"
    WAITED = "waited"  # the jobs ahead took too long: the forecast was too low, and the model is not to blame
    UNUSED = "unused"  # never made, or its caller went away: it says nothing about the model


class TimeLeft(Protocol):
    """A deadline."""

    def remaining(self) -> float:
        """Returns the seconds left."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a request starts on the ladder.

    Attributes:
        rung: The rung.
        reason: Why it is not a higher one; None for "full".
        forecast_s: Forecast of the model run in seconds; 0 if there was none.
        trial: Whether the attempt tests a forecast that would have refused it.
    """

    rung: Rung
    reason: Reason | None = None
    forecast_s: float = field(default=0.0, compare=False)
    trial: bool = field(default=False, compare=False)

    @property
    def asks_the_model(self) -> bool:
        """Whether the model is attempted."""
        return self.rung in MODEL_RUNGS


_UNDOUBTED = Decision("full")
# Reasons that lie with an operator, or with a caller who chooses the filters.
_OUTSIDE_BUDGETS = frozenset({"forced", "filter_not_ready"})


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """Settings of the guard.

    Attributes:
        breaker: The breaker's.
        reserve_ms: Least time kept for what follows the model run, a fall to the next rung included.
        item_cf_ms: Time that item-CF needs; with less, a request starts on the popular items.
        trial_s: Time until an idle engine that is forecast to be too slow is tried; doubled by each late trial.
    """

    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    reserve_ms: float = 5.0
    item_cf_ms: float = 2.0
    trial_s: float = 0.25


class Guard:
    """Call `decide` before a request and `observe` after each model attempt.

    Attributes:
        breaker: The breaker of the served model.
    """

    def __init__(
        self,
        settings: GuardSettings,
        clock: Callable[[], float],
        mode: Callable[[], ModeName] = lambda: "auto",
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._mode = mode
        self._lags: deque[float] = deque([0.0] * _LAGS, maxlen=_LAGS)
        self._lag_s = 0.0
        self._tail = RunningQuantile(_TAIL_SHARE, _TAIL_LAGS, [0.0] * _TAIL_LAGS)
        self._typical = RunningQuantile()
        self._short = RunningQuantile(_SHORT_SHARE, _SHORT_ATTEMPTS)
        self._tried = -math.inf
        self._trial_s = settings.trial_s
        self.breaker = Breaker(settings.breaker, clock)

    def decide(self, deadline: TimeLeft, forecast: Forecasts) -> Decision:
        """Decides where a request starts. A decision that asks the model must be followed by one `observe`.

        Args:
            deadline: The request's deadline.
            forecast: Forecasts when a job of a rung would be done if it were submitted now.
        """
        mode = self._mode()
        remaining = deadline.remaining()
        least = self._settings.reserve_ms / 1000.0
        left = remaining - max(self.reserve_s(remaining), least + self._lag_s)
        below: Rung = "item_cf" if remaining > self._settings.item_cf_ms / 1000 else "popular"
        if mode == "fallback":
            return Decision(below, "forced")
        if left <= 0:
            return Decision(below, "deadline")
        if mode == "model":
            return Decision("full")
        full = forecast("full")
        chosen = self._admit(left, full, forecast)
        trial = chosen.rung != "full" and self._trial_due(full)
        if not chosen.asks_the_model and not trial:
            return Decision(below, chosen.reason)
        if not self.breaker.allow():
            return Decision(below, self.breaker.cause)
        if trial:
            self._tried = self._clock()
            return Decision("full", None, full.seconds, trial=True)
        return chosen

    def observe(self, outcome: Outcome, seconds: float = 0.0, decision: Decision = _UNDOUBTED) -> bool:
        """Reports the outcome of a model attempt.

        Args:
            outcome: How it ended.
            seconds: Time from the decision to the result.
            decision: The decision that led to it.

        Returns:
            Whether the attempt counts for the breaker.
        """
        if decision.forecast_s and outcome is not Outcome.UNUSED:
            self._short.add(seconds - with_headroom(decision.forecast_s), self._clock())
        # A late trial was forecast to be late.
        late_trial = decision.trial and outcome is Outcome.LATE
        if decision.trial:
            self._trial_s = min(2.0 * self._trial_s, _TRIAL_MOST_S) if late_trial else self._settings.trial_s
        if late_trial or outcome in (Outcome.UNUSED, Outcome.WAITED):
            self.breaker.release()
            return False
        self._typical.add(seconds, self._clock())
        self.breaker.record(late=outcome is Outcome.LATE, failed=outcome is Outcome.FAILED, seconds=seconds)
        return True

    def model_changed(self) -> None:
        """Judges another model afresh: the attempts at the former one say nothing about it.

        The windows of the budgets stay: they count what callers got, whichever model it came from.
        """
        self.breaker = Breaker(self._settings.breaker, self._clock, self.breaker.budgets)
        self._typical, self._short = RunningQuantile(), RunningQuantile(_SHORT_SHARE, _SHORT_ATTEMPTS)
        self._tried, self._trial_s = -math.inf, self._settings.trial_s

    def answered(self, rung: Rung, reason: Reason | None = None) -> None:
        """Counts an answer. One that an operator forced, or whose filter was not ready, counts against no budget.

        Args:
            rung: Where the list was made.
            reason: Why it does not come from a higher rung.
        """
        if reason not in _OUTSIDE_BUDGETS:
            self.breaker.budgets.answered(below=rung not in MODEL_RUNGS)

    def reserve_s(self, remaining: float) -> float:
        """Returns the seconds kept for what follows the model run: more on a machine that is late more often.

        Args:
            remaining: Seconds left of the request.
        """
        return max(self._settings.reserve_ms / 1000.0, min(self._tail.value, _TAIL_MOST * remaining))

    def fits(self, seconds: float, deadline: TimeLeft) -> bool:
        """Returns whether work of this many seconds can still be begun.

        For work that becomes known after `decide`.

        Args:
            seconds: Forecast of the work.
            deadline: The deadline, less the time for what follows the work.
        """
        return self._mode() == "model" or self._in_time(seconds, deadline.remaining() - self._lag_s)

    def lagged(self, seconds: float) -> None:
        """Reports that the event loop ran a timer this many seconds late.

        The present lag is the median of the latest ones: a loop that is late repeatedly shows soon, and one long stall
        that is over takes no time from the requests after it. Short stalls that recur show in the tail, which
        `reserve_s` keeps back.
        """
        self._lags.append(max(0.0, seconds))
        self._tail.add(self._lags[-1], self._clock())
        self._lag_s = median(self._lags)

    def status(self) -> dict[str, Any]:
        """Returns what operators see: the breaker, its attempts, and its budgets."""
        settings = self._settings.breaker
        seen = self.breaker.budgets.counts(settings.window_s)
        state = self.breaker.state
        return {
            "breaker": state.value,
            "budgets": {
                "model_share": self.breaker.share,
                "cause": None if state == "closed" else self.breaker.cause,
                "attempts": {
                    "window_s": settings.window_s,
                    "total": seen.attempts,
                    "late_or_failed": seen.late + seen.failed,
                    "limit": settings.failure_ratio,
                    "typical_ms": round(self._typical.value * 1000, 3) if self._typical.value else None,
                },
                "burn_rate": self.breaker.budgets.burn_rates(),
            },
        }

    def _admit(self, left: float, full: Forecast, forecast: Forecasts) -> Decision:
        """The first rung that would be done in time, and why it is not a higher one."""
        if self._in_time(full.seconds, left):
            return Decision("full", None, full.seconds)
        # If it would be in time with no job ahead, the queue is the cause.
        reason: Reason = "overload" if self._in_time(full.alone, left) else "deadline"
        narrow = forecast("narrow").seconds
        return Decision("narrow" if self._in_time(narrow, left) else "item_cf", reason, narrow)

    def _in_time(self, forecast_s: float, left: float) -> bool:
        short = min(max(0.0, self._short.value), _SHORT_MOST * left)
        return with_headroom(forecast_s) + short <= left

    def _trial_due(self, full: Forecast) -> bool:
        """A slow model must not be refused for good: an idle engine is tried again after a while."""
        latest = max(self._tried, full.measured)
        return full.idle and self._clock() - latest >= self._trial_s
