"""Which rung of the ladder a request starts on. Pure: no I/O, the clock is passed in.

A rung that cannot fit into what is left of a request's time is skipped before it is started. What a run will
take is predicted from measured batch times, the jobs that are ahead, and how late the event loop runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any, Literal, Protocol

from service.breaker import Breaker, BreakerSettings
from service.budgets import BudgetSettings, ErrorBudgets

ModeName = Literal["auto", "fallback", "model"]
Rung = Literal["full", "narrow", "item_cf", "popular"]
Reason = Literal[
    "forced", "breaker_open", "latency_budget", "error_budget", "overload", "deadline", "model_error",
    "state_unavailable", "state_stale", "not_enough_items",
]  # fmt: skip
ModelRung = Literal["full", "narrow"]

MODEL_RUNGS: tuple[ModelRung, ...] = ("full", "narrow")

# Latest lags of the event loop that count.
_LAGS = 5
# Up to so many events an encoder run costs about what one event costs; beyond, their number counts.
_FEW_EVENTS = 8


class Outcome(StrEnum):
    """How a model attempt ended."""

    OK = "ok"
    LATE = "late"  # the answer came, or would have come, after its deadline
    FAILED = "failed"
    UNUSED = "unused"  # never made, or its caller went away: says nothing about the model


class TimeLeft(Protocol):
    def remaining(self) -> float:
        """Seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """Where to start, and why not higher (None on "full")."""

    rung: Rung
    reason: Reason | None = None

    @property
    def asks_the_model(self) -> bool:
        return self.rung in MODEL_RUNGS


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """`reserve_ms` is kept for what follows the model run, a fall to the next rung included."""

    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    budgets: BudgetSettings = field(default_factory=BudgetSettings)
    max_batch: int = 32
    reserve_ms: float = 5.0
    item_cf_ms: float = 2.0
    smoothing: float = 0.2
    retry_s: float = 0.25


@dataclass(slots=True)
class _Estimate:
    """Smoothed run time of a rung; None until the first run, which is then let through."""

    seconds: float | None = None
    updated: float = 0.0


class Guard:
    """`decide` before a request, `observe` after each model attempt, `measured` after each engine run."""

    def __init__(
        self,
        settings: GuardSettings,
        clock: Callable[[], float],
        mode: Callable[[], ModeName] = lambda: "auto",
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._mode = mode
        self._estimates: dict[ModelRung, _Estimate] = {rung: _Estimate() for rung in MODEL_RUNGS}
        self._lags: deque[float] = deque([0.0] * _LAGS, maxlen=_LAGS)
        self._lag_s = 0.0
        self._attempt_s: float | None = None
        self._event_s: float | None = None
        self.breaker = Breaker(settings.breaker, clock)
        self.budgets = ErrorBudgets(settings.budgets, clock)

    def decide(self, deadline: TimeLeft, queue_depth: int) -> Decision:
        """`queue_depth` is the number of jobs waiting or running.

        A decision that asks the model must be answered by one `observe`.
        """
        mode = self._mode()
        remaining = deadline.remaining()
        left = remaining - self._settings.reserve_ms / 1000 - self._lag_s
        below: Rung = "item_cf" if remaining > self._settings.item_cf_ms / 1000 else "popular"
        if mode == "fallback":
            return Decision(below, "forced")
        if left <= 0:
            return Decision(below, "deadline")
        if mode == "model":
            return Decision("full")
        rung, reason = self._admit(left, queue_depth)
        if rung is None:
            return Decision(below, reason)
        if not self.breaker.allow():
            return Decision(below, "breaker_open")
        return Decision(rung, reason)

    def observe(self, outcome: Outcome, seconds: float | None = None) -> None:
        """How a model attempt ended, and how long it took from the decision to the answer."""
        if outcome is Outcome.UNUSED:
            self.breaker.release()
            return
        self.breaker.record(outcome is Outcome.OK)
        self.budgets.record(late=outcome is Outcome.LATE, failed=outcome is Outcome.FAILED)
        if seconds is not None:
            self._attempt_s = self._smooth(self._attempt_s, seconds)

    def measured(self, rung: ModelRung, seconds: float, events: int = 0) -> None:
        """An engine run of this rung took so long, whatever came of it; `events` is the longest history it encoded.

        A run with a long history says what an event costs, and nothing of a run with none.
        """
        estimate = self._estimates[rung]
        if events > _FEW_EVENTS:
            self.encoded(seconds - (estimate.seconds or 0.0), events)
            return
        estimate.seconds = self._smooth(estimate.seconds, seconds)
        estimate.updated = self._clock()

    def encoded(self, seconds: float, events: int) -> None:
        """Encoding a history of `events` took so long."""
        if events > _FEW_EVENTS:
            self._event_s = self._smooth(self._event_s, max(0.0, seconds) / events)

    def encoding_s(self, events: int) -> float:
        """Predicted time to encode so many events; 0 for a few, whose cost is part of any run."""
        return events * (self._event_s or 0.0) if events > _FEW_EVENTS else 0.0

    def encoding_fits(self, rung: ModelRung, deadline: TimeLeft, queue_depth: int, events: int) -> bool:
        """Whether so many new events can still be encoded; asked after `decide`, which knows nothing of them.

        What follows the run is already taken off `deadline`.
        """
        encoding = self.encoding_s(events)
        if encoding == 0.0 or self._mode() == "model":
            return True
        return self.predicted_s(rung, queue_depth) + encoding + self._lag_s <= deadline.remaining()

    def lagged(self, seconds: float) -> None:
        """The event loop ran a timer so much too late.

        The median of the latest times counts: a loop that is late again and again is seen soon, and one long stall,
        which is over, takes no time from the requests after it.
        """
        self._lags.append(max(0.0, seconds))
        self._lag_s = median(self._lags)

    def predicted_s(self, rung: ModelRung, queue_depth: int) -> float:
        """Wait behind the jobs ahead plus the run itself; 0 before anything was measured."""
        seconds = self._estimates[rung].seconds or 0.0
        batches_ahead = -(-queue_depth // self._settings.max_batch)
        return (batches_ahead + 1) * seconds

    def status(self) -> dict[str, Any]:
        """What operators see: the breaker, its attempts, and the estimates decisions are made by."""
        attempts, bad = self.breaker.counts()
        return {
            "breaker": self.breaker.state.value,
            "budgets": {
                "attempts": {
                    "window_s": self._settings.breaker.window_s,
                    "total": attempts,
                    "late_or_failed": bad,
                    "limit": self._settings.breaker.failure_ratio,
                    "typical_ms": None if self._attempt_s is None else round(self._attempt_s * 1000, 3),
                },
                "burn_rate": self.budgets.burn_rates(),
            },
        }

    def _smooth(self, old: float | None, new: float) -> float:
        return new if old is None else old + self._settings.smoothing * (new - old)

    def _admit(self, left: float, queue_depth: int) -> tuple[ModelRung | None, Reason | None]:
        """The first model rung that fits, and why not a higher one."""
        if self._fits("full", left, queue_depth):
            return "full", None
        # Would it fit if nobody were ahead? Then the queue is the cause.
        reason: Reason = "overload" if self.predicted_s("full", 0) <= left else "deadline"
        if self._fits("narrow", left, queue_depth):
            return "narrow", reason
        return None, reason

    def _fits(self, rung: ModelRung, left: float, queue_depth: int) -> bool:
        if self.predicted_s(rung, queue_depth) <= left:
            return True
        # One slow run must not shut a rung for good: now and then an idle engine is asked again.
        estimate, now = self._estimates[rung], self._clock()
        if queue_depth == 0 and now - estimate.updated >= self._settings.retry_s:
            estimate.updated = now
            return True
        return False
