"""The one controller of how much traffic the model gets: CLOSED → OPEN → HALF_OPEN → CLOSED. Pure.

    share of the traffic   0      .05    .1    .2    .4    .8     1
    state                 OPEN   ├──────── HALF_OPEN ────────┤  CLOSED

    CLOSED     a rule over the model attempts breaks (half of them bad; a budget that burns too fast)   → 0
    OPEN       the time is over                                                                         → .05
    HALF_OPEN  enough attempts of this step were good                                                   → the next
               too many were bad                                                                        → the one before

A step that fails again and again is tried again four times as late each time: a model that is broken is probed with a
few per cent, one that bears only a part of the traffic keeps that part, and neither makes lists flap.

Late counts like failed: to the caller a list that misses its deadline is no list. The states are resilience4j's,
without its slow-call time (60 s): lateness is judged by each request's own deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from service.guard.error_budgets import BudgetSettings, Cause, ErrorBudgets, Rule, budget_rules, return_share

SHARES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
_CLOSED = len(SHARES) - 1
# At least so often an attempt is let through while half open, however thin the traffic.
_PROBE_S = 0.5
# What a share of the traffic does to the model shows after a while: its queue must have had time to grow.
_STEP_S = 2.0
# How many times longer a step waits when it has failed again: a model that comes and goes is soon left to go.
_PATIENCE = 4.0
# Part of `failure_ratio` up to which attempts, late and failed together, may be bad on the way back.
_RETURN_RATIO = 0.7


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """`half_open_probes` attempts decide a step; a step that failed is tried again after `open_s`, four times as
    long each time, up to its share of `hold_max_s`."""

    window_s: float = 5.0
    min_attempts: int = 50
    failure_ratio: float = 0.5
    open_s: float = 5.0
    hold_max_s: float = 300.0
    half_open_probes: int = 20
    budgets: BudgetSettings = field(default_factory=BudgetSettings)

    def rules(self) -> list[Rule]:
        half_bad = Rule("breaker_open", self.window_s, self.window_s, self.failure_ratio, self.min_attempts)
        return [half_bad, *budget_rules(self.budgets)]


@dataclass(slots=True)
class _Step:
    """Attempts of the present step: let through, under way, and how they ended."""

    since: float
    credit: float = 0.0
    allowed_at: float = -1.0
    under_way: int = 0
    ended: int = 0
    late: int = 0
    failed: int = 0


class Breaker:
    """Ask `allow` before a model attempt; report how it ended with `record`, or `release` it if it says nothing."""

    def __init__(self, settings: BreakerSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._rules = settings.rules()
        self._place = _CLOSED
        self._step = _Step(clock())
        self._holds = [settings.open_s] * len(SHARES)
        self._shut_until = [0.0] * len(SHARES)
        self.budgets = ErrorBudgets(settings.budgets, clock)
        self.cause: Cause = "breaker_open"
        """What the model is, or was last, spared for."""

    @property
    def state(self) -> BreakerState:
        self._advance()
        if self._place == 0:
            return BreakerState.OPEN
        return BreakerState.CLOSED if self._place == _CLOSED else BreakerState.HALF_OPEN

    @property
    def share(self) -> float:
        """The part of the traffic that the model gets."""
        self._advance()
        return SHARES[self._place]

    def allow(self) -> bool:
        """Whether an attempt may be made now."""
        self._advance()
        step, now = self._step, self._clock()
        if 0 < self._place < _CLOSED:
            step.credit = min(1.0 + SHARES[self._place], step.credit + SHARES[self._place])
            # Of the first step no more are on their way than decide it: a model that hangs gets no others.
            if self._place == 1 and step.under_way >= self._settings.half_open_probes:
                return False
            if step.credit < 1.0 and now - step.allowed_at < _PROBE_S:
                return False
            step.credit = max(0.0, step.credit - 1.0)
        elif self._place == 0:
            return False
        step.allowed_at = now
        step.under_way += 1
        return True

    def release(self) -> None:
        """An allowed attempt was not made, or says nothing about the model."""
        self._step.under_way = max(0, self._step.under_way - 1)
        self._step.credit = min(1.0, self._step.credit + 1.0)

    def record(self, *, late: bool, failed: bool, seconds: float = 0.0) -> None:
        """How an allowed attempt ended, so many seconds after it was allowed."""
        self.budgets.attempt(late=late, failed=failed)
        step, now = self._step, self._clock()
        if now - seconds < step.since:
            return  # it belongs to an earlier step, and that has been judged
        step.under_way = max(0, step.under_way - 1)
        step.ended += 1
        step.late += late
        step.failed += failed
        # What is good breaks no rule. Half open they judge too: a share that is held for minutes may turn bad at once.
        if (late or failed) and self._place and self._rule_breaks():
            self._fall(to=0 if self._place == _CLOSED else self._place - 1)
        elif 0 < self._place < _CLOSED:
            self._judge_step(now)

    # -- the transitions

    def _advance(self) -> None:
        """What time alone changes: an open breaker begins to probe, and old failures are forgotten."""
        now = self._clock()
        if self._place == 0 and now - self._step.since >= self._settings.open_s and now >= self._shut_until[1]:
            self._enter(1)
        elif self._place == _CLOSED and now - self._step.since >= self._settings.hold_max_s:
            self._holds = [self._settings.open_s] * len(SHARES)

    def _rule_breaks(self) -> bool:
        """Whether one does, in this step; it is the cause then."""
        broken = next((r for r in self._rules if r.broken(lambda s: self.budgets.counts(s, self._step.since))), None)
        if broken is not None:
            self.cause = broken.cause
        return broken is not None

    def _judge_step(self, now: float) -> None:
        step, budgets, probes = self._step, self._settings.budgets, self._settings.half_open_probes
        # One more than the share makes of so few attempts: a single bad one is no verdict.
        judged = max(probes, step.ended)
        if step.late > 1.0 + return_share(budgets.late_share) * judged:
            self.cause = "latency_budget"
        elif step.failed > 1.0 + return_share(budgets.failed_share) * judged:
            self.cause = "error_budget"
        elif step.late + step.failed > 1.0 + _RETURN_RATIO * self._settings.failure_ratio * judged:
            self.cause = "breaker_open"  # loose objectives would let back what opens the breaker
        else:
            in_time = now - step.since >= _STEP_S and now >= self._shut_until[self._place + 1]
            if step.ended >= probes and in_time:
                self._enter(self._place + 1)
            return
        self._fall(to=self._place - 1)

    def _fall(self, *, to: int) -> None:
        """The present step has failed. The more traffic it took along, the longer it may have to wait."""
        place = self._place
        hold = min(self._holds[place], self._settings.hold_max_s * SHARES[place])
        self._shut_until[place] = self._clock() + hold
        self._holds[place] = hold * _PATIENCE
        self._enter(to)

    def _enter(self, place: int) -> None:
        self._place = place
        self._step = _Step(self._clock())
