"""The one controller of the model's share of the traffic: CLOSED → OPEN → HALF_OPEN → CLOSED. Pure.

    share of the traffic   0      .05    .1    .2    .4    .8     1
    state                 OPEN   ├──────── HALF_OPEN ────────┤  CLOSED

    CLOSED     a rule over the model attempts is broken (half are bad, or a budget burns too fast)      → 0
    OPEN       the waiting time is over                                                                 → .05
    HALF_OPEN  enough attempts of this step were good                                                   → next step
               too many were bad                                                                        → step before

Each time a step fails, the wait before its next trial grows fourfold. So a broken model is probed with a few per cent
of the traffic, a model that can carry only a part of it keeps that part, and neither makes lists flap.

Late attempts count like failed ones: to the caller, a list that misses its deadline is no list. The states are those of
resilience4j, without its slow-call time (60 s): lateness is judged by each request's own deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from service.guard.error_budgets import BudgetSettings, Cause, ErrorBudgets, Rule, budget_rules, return_share

SHARES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
_CLOSED = len(SHARES) - 1
# Longest time between two attempts while half open, however thin the traffic.
_PROBE_S = 0.5
# Shortest step: the effect of a share of the traffic shows only after the queue has had time to grow.
_STEP_S = 2.0
# Factor of a step's wait each time it fails again: a model that comes and goes is soon left alone.
_PATIENCE = 4.0
# Part of `failure_ratio` up to which attempts (late and failed together) may be bad on the way back.
_RETURN_RATIO = 0.7


class BreakerState(StrEnum):
    """The states of the breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """Settings of the breaker.

    Attributes:
        window_s: Window of the rule on bad attempts.
        min_attempts: Attempts that the window must hold before the rule applies.
        failure_ratio: Share of bad attempts that opens the breaker.
        open_s: Time until a step that failed is tried again; four times as long each further time.
        hold_max_s: Limit of that time, multiplied by the step's share of the traffic.
        half_open_probes: Attempts that decide a step.
        budgets: The error budgets.
    """

    window_s: float = 5.0
    min_attempts: int = 50
    failure_ratio: float = 0.5
    open_s: float = 5.0
    hold_max_s: float = 300.0
    half_open_probes: int = 20
    budgets: BudgetSettings = field(default_factory=BudgetSettings)

    def rules(self) -> list[Rule]:
        """Returns the rules that open the breaker."""
        half_bad = Rule("breaker_open", self.window_s, self.window_s, self.failure_ratio, self.min_attempts)
        return [half_bad, *budget_rules(self.budgets)]


@dataclass(slots=True)
class _Step:
    """The attempts of the present step."""

    since: float
    credit: float = 0.0
    allowed_at: float = -1.0
    under_way: int = 0
    ended: int = 0
    late: int = 0
    failed: int = 0


class Breaker:
    """Decides which model attempts may be made.

    Call `allow` before an attempt, and `record` with its outcome afterwards; or `release` if the outcome says nothing
    about the model.

    Args:
        settings: The rules and the times.
        clock: Monotonic seconds.
        budgets: The error budgets of an earlier breaker, whose windows go on; None for new ones. What they counted
            before now breaks no rule.

    Attributes:
        budgets: The error budgets.
        cause: Why the model's traffic is, or was last, reduced.
    """

    def __init__(
        self, settings: BreakerSettings, clock: Callable[[], float], budgets: ErrorBudgets | None = None
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._rules = settings.rules()
        self._place = _CLOSED
        self._step = _Step(clock())
        self._holds = [settings.open_s] * len(SHARES)
        self._shut_until = [0.0] * len(SHARES)
        self.budgets = budgets or ErrorBudgets(settings.budgets, clock)
        self.cause: Cause = "breaker_open"

    @property
    def state(self) -> BreakerState:
        """The present state."""
        self._advance()
        if self._place == 0:
            return BreakerState.OPEN
        return BreakerState.CLOSED if self._place == _CLOSED else BreakerState.HALF_OPEN

    @property
    def share(self) -> float:
        """The model's share of the traffic, 0 … 1."""
        self._advance()
        return SHARES[self._place]

    def allow(self) -> bool:
        """Returns whether an attempt may be made now, and counts it if so."""
        self._advance()
        step, now = self._step, self._clock()
        if 0 < self._place < _CLOSED:
            step.credit = min(1.0 + SHARES[self._place], step.credit + SHARES[self._place])
            # The first step has no more attempts under way than decide it: a model that hangs gets no others.
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
        """Takes back an allowed attempt that was not made, or that says nothing about the model."""
        self._step.under_way = max(0, self._step.under_way - 1)
        self._step.credit = min(1.0, self._step.credit + 1.0)

    def record(self, *, late: bool, failed: bool, seconds: float = 0.0) -> None:
        """Records the outcome of an allowed attempt.

        Args:
            late: Whether its result missed the deadline.
            failed: Whether it failed.
            seconds: How long ago it was allowed.
        """
        self.budgets.attempt(late=late, failed=failed)
        step, now = self._step, self._clock()
        if now - seconds < step.since:
            return  # it belongs to an earlier step, which has been judged
        step.under_way = max(0, step.under_way - 1)
        step.ended += 1
        step.late += late
        step.failed += failed
        # A good attempt breaks no rule. Rules apply half open as well: a share held for minutes may turn bad at once.
        if (late or failed) and self._place and self._rule_breaks():
            self._fall(to=0 if self._place == _CLOSED else self._place - 1)
        elif 0 < self._place < _CLOSED:
            self._judge_step(now)

    # -- transitions

    def _advance(self) -> None:
        """Makes the transitions that time alone causes: an open breaker begins to probe, old failures are forgotten."""
        now = self._clock()
        if self._place == 0 and now - self._step.since >= self._settings.open_s and now >= self._shut_until[1]:
            self._enter(1)
        elif self._place == _CLOSED and now - self._step.since >= self._settings.hold_max_s:
            self._holds = [self._settings.open_s] * len(SHARES)

    def _rule_breaks(self) -> bool:
        """Whether a rule is broken in this step; sets the cause."""
        broken = next((r for r in self._rules if r.broken(lambda s: self.budgets.counts(s, self._step.since))), None)
        if broken is not None:
            self.cause = broken.cause
        return broken is not None

    def _judge_step(self, now: float) -> None:
        step, budgets, probes = self._step, self._settings.budgets, self._settings.half_open_probes
        # One more than the share of so few attempts: a single bad one proves nothing.
        judged = max(probes, step.ended)
        if step.late > 1.0 + return_share(budgets.late_share) * judged:
            self.cause = "latency_budget"
        elif step.failed > 1.0 + return_share(budgets.failed_share) * judged:
            self.cause = "error_budget"
        elif step.late + step.failed > 1.0 + _RETURN_RATIO * self._settings.failure_ratio * judged:
            self.cause = "breaker_open"  # loose objectives would let traffic back that opens the breaker
        else:
            in_time = now - step.since >= _STEP_S and now >= self._shut_until[self._place + 1]
            if step.ended >= probes and in_time:
                self._enter(self._place + 1)
            return
        self._fall(to=self._place - 1)

    def _fall(self, *, to: int) -> None:
        """Ends a failed step. The larger its share of the traffic, the longer its next trial may have to wait."""
        place = self._place
        hold = min(self._holds[place], self._settings.hold_max_s * SHARES[place])
        self._shut_until[place] = self._clock() + hold
        self._holds[place] = hold * _PATIENCE
        self._enter(to)

    def _enter(self, place: int) -> None:
        self._place = place
        self._step = _Step(self._clock())
