"""Which rung of the ladder a request starts on. Pure: no I/O, the clock is passed in.

    forced by an operator?     `fallback` → below the model          `model` → full
    would it be done in time?  forecast of full, then of narrow, against what is left   no → below, overload | deadline
    is the model to be asked?  the breaker's share of the traffic                       no → below, the breaker's cause

A forecast asks what runs typically take (`service.batching.run_costs`), and refuses what cannot be done. The breaker counts what
then came of the attempts (`service.guard.breaker`), and refuses what should not be tried. Nothing else decides.
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
    "state_unavailable", "state_stale", "not_enough_items",
]  # fmt: skip
ModelRung = Literal["full", "narrow"]
Forecasts = Callable[[ModelRung], Forecast]

MODEL_RUNGS: tuple[ModelRung, ...] = ("full", "narrow")

# Latest lags of the event loop that count as its present one; and those of which the tail is kept back, up to a part of
# the time that is left: what follows a model run waits for the loop, for the machine and for the network as they are.
_LAGS = 5
_TAIL_SHARE, _TAIL_LAGS, _TAIL_MOST = 0.995, 500, 0.4
# What forecasts fell short of lately, up to a part of the time that is left: more than that is not a busy machine but a
# model that is slow now and then, and the breaker's business.
_SHORT_SHARE, _SHORT_ATTEMPTS, _SHORT_MOST = 0.95, 60, 0.25
# Trials of a slow engine are never further apart.
_TRIAL_MOST_S = 15.0


class Outcome(StrEnum):
    """How a model attempt ended."""

    OK = "ok"
    LATE = "late"  # the answer came, or would have come, after its deadline
    FAILED = "failed"
    WAITED = "waited"  # what was ahead took its time: the forecast was short, and the model is not to blame
    UNUSED = "unused"  # never made, or its caller went away: says nothing about the model


class TimeLeft(Protocol):
    def remaining(self) -> float:
        """Seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """Where to start, and why not higher (None on "full"); and when the model was forecast to be done, which a `trial`
    doubts."""

    rung: Rung
    reason: Reason | None = None
    forecast_s: float = field(default=0.0, compare=False)
    trial: bool = field(default=False, compare=False)

    @property
    def asks_the_model(self) -> bool:
        return self.rung in MODEL_RUNGS


_UNDOUBTED = Decision("full")


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """`reserve_ms` is the least that is kept for what follows the model run, a fall to the next rung included; an idle
    engine that is
    forecast to be too slow is tried after `trial_s`, and half as often after each trial that is late."""

    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    reserve_ms: float = 5.0
    item_cf_ms: float = 2.0
    trial_s: float = 0.25


class Guard:
    """`decide` before a request, `observe` after each model attempt."""

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
        """`forecast` says when a job of a rung would be done, if it were submitted now.

        A decision that asks the model must be answered by one `observe`.
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
        """How a model attempt ended, and how long it took from the decision to the answer. Whether it counts."""
        if decision.forecast_s and outcome is not Outcome.UNUSED:
            self._short.add(seconds - with_headroom(decision.forecast_s), self._clock())
        # A trial that is late was forecast to be.
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
        """Another model is served: what came of the attempts at the one before says nothing about it."""
        self.breaker = Breaker(self._settings.breaker, self._clock)
        self._typical, self._short = RunningQuantile(), RunningQuantile(_SHORT_SHARE, _SHORT_ATTEMPTS)
        self._tried, self._trial_s = -math.inf, self._settings.trial_s

    def answered(self, source: str) -> None:
        """An answer was given, by the model or from below it."""
        self.breaker.budgets.answered(below=source != "gpt4rec")

    def reserve_s(self, remaining: float) -> float:
        """What of the time that remains is kept for what follows the model run: on a machine that is late more often,
        more."""
        return max(self._settings.reserve_ms / 1000.0, min(self._tail.value, _TAIL_MOST * remaining))

    def fits(self, seconds: float, deadline: TimeLeft) -> bool:
        """Whether work of so long can still be begun; what follows it is already taken off `deadline`.

        Asked after `decide`, where it shows only later how much there is to do.
        """
        return self._mode() == "model" or self._in_time(seconds, deadline.remaining() - self._lag_s)

    def lagged(self, seconds: float) -> None:
        """The event loop ran a timer so much too late.

        The median of the latest times counts: a loop that is late again and again is seen soon, and one long stall,
        which is over, takes no time from the requests after it. Stalls that come again and again, each of them short,
        show in the tail, which `reserve_s` keeps.
        """
        self._lags.append(max(0.0, seconds))
        self._tail.add(self._lags[-1], self._clock())
        self._lag_s = median(self._lags)

    def status(self) -> dict[str, Any]:
        """What operators see: the breaker, its attempts, and the budgets it judges by."""
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
                    "typical_ms": round(self._typical.value * 1000, 3) if seen.attempts else None,
                },
                "burn_rate": self.breaker.budgets.burn_rates(),
            },
        }

    def _admit(self, left: float, full: Forecast, forecast: Forecasts) -> Decision:
        """The first rung that would be done in time, and why not a higher one."""
        if self._in_time(full.seconds, left):
            return Decision("full", None, full.seconds)
        # Would it be if nobody were ahead? Then the queue is the cause.
        reason: Reason = "overload" if self._in_time(full.alone, left) else "deadline"
        narrow = forecast("narrow").seconds
        return Decision("narrow" if self._in_time(narrow, left) else "item_cf", reason, narrow)

    def _in_time(self, forecast_s: float, left: float) -> bool:
        short = min(max(0.0, self._short.value), _SHORT_MOST * left)
        return with_headroom(forecast_s) + short <= left

    def _trial_due(self, full: Forecast) -> bool:
        """What was slow must not be refused for good: an idle engine that was not asked lately is asked again."""
        latest = max(self._tried, full.measured)
        return full.idle and self._clock() - latest >= self._trial_s
