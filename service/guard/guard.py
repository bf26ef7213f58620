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
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol, Self

from service.batching.run_costs import Forecast, RunningQuantile, with_headroom
from service.guard.breaker import Breaker, BreakerSettings
from service.guard.error_budgets import ErrorBudgets
from service.guard.loop_lag import LoopLag

ModeName = Literal["auto", "fallback", "model"]
Rung = Literal["full", "narrow", "item_cf", "popular"]
Reason = Literal[
    "forced", "breaker_open", "latency_budget", "error_budget", "overload", "deadline", "model_error",
    "state_unavailable", "state_stale", "filter_not_ready", "model_evicted", "not_enough_items",
]  # fmt: skip
ModelRung = Literal["full", "narrow"]
LowerRung = Literal["item_cf", "popular"]
Forecasts = Callable[[ModelRung], Forecast]

MODEL_RUNGS: tuple[ModelRung, ...] = ("full", "narrow")

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
        breaker: The breaker of what it guards.
        budgets: The error budgets of what it guards; those of everybody's guard are of the whole service.
        lag: The lag of the event loop, one for all guards.
    """

    def __init__(
        self,
        settings: GuardSettings,
        clock: Callable[[], float],
        mode: Callable[[], ModeName] = lambda: "auto",
        *,
        everybody: Guard | None = None,
    ) -> None:
        """Starts with a closed breaker.

        Args:
            settings: Of the guard.
            clock: Monotonic seconds.
            mode: Returns the mode in force.
            everybody: The guard beside which this one stands; None for everybody's.
        """
        self._settings = settings
        self._clock = clock
        self._mode = mode
        self.lag: LoopLag = LoopLag(clock) if everybody is None else everybody.lag
        self._typical = RunningQuantile()
        self._short = RunningQuantile(_SHORT_SHARE, _SHORT_ATTEMPTS)
        self._tried = -math.inf
        self._trial_s = settings.trial_s
        self.breaker = Breaker(settings.breaker, clock)
        of_service: ErrorBudgets = (
            ErrorBudgets(settings.breaker.budgets, clock) if everybody is None else everybody.budgets
        )
        self._of_service = of_service
        self.budgets: ErrorBudgets = of_service if everybody is None else self.breaker.budgets

    def beside(self) -> Self:
        """Returns a guard of something else that answers in this process.

        It judges by its own attempts. The mode and the lag of the event loop are the same, and what it counts is
        counted in these budgets as well.
        """
        return type(self)(self._settings, self._clock, self._mode, everybody=self)

    @property
    def mode(self) -> ModeName:
        """The mode in force."""
        return self._mode()

    def decide(self, deadline: TimeLeft, forecast: Forecasts) -> Decision:
        """Decides where a request starts. A decision that asks the model must be followed by one `observe`.

        Args:
            deadline: The request's deadline.
            forecast: Forecasts when a job of a rung would be done if it were submitted now.
        """
        mode = self._mode()
        remaining = deadline.remaining()
        least = self._settings.reserve_ms / 1000.0
        left = remaining - max(self.reserve_s(remaining), least + self.lag.seconds)
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
        late, failed = outcome is Outcome.LATE, outcome is Outcome.FAILED
        self.breaker.record(late=late, failed=failed, seconds=seconds)
        self._of_service.attempt(late=late, failed=failed)
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
        if reason in _OUTSIDE_BUDGETS:
            return
        below = rung not in MODEL_RUNGS
        self.breaker.budgets.answered(below=below)
        self._of_service.answered(below=below)

    def reserve_s(self, remaining: float) -> float:
        """Returns the seconds kept for what follows the model run: more on a machine that is late more often.

        Args:
            remaining: Seconds left of the request.
        """
        return max(self._settings.reserve_ms / 1000.0, self.lag.tail_s(remaining))

    def fits(self, seconds: float, deadline: TimeLeft) -> bool:
        """Returns whether work of this many seconds can still be begun.

        For work that becomes known after `decide`.

        Args:
            seconds: Forecast of the work.
            deadline: The deadline, less the time for what follows the work.
        """
        return self._mode() == "model" or self._in_time(seconds, deadline.remaining() - self.lag.seconds)

    def lagged(self, seconds: float) -> None:
        """Reports that the event loop ran a timer this many seconds late."""
        self.lag.add(seconds)

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
                "burn_rate": self.budgets.burn_rates(),
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
