"""Opens what guards answers, what places them in arms of experiments, and what runs shadows behind them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor

from service.assembly.opening import Opening
from service.coordination.forced_mode import ForcedMode
from service.experiments.arms import Arms, may_answer
from service.experiments.canary_watch import CanaryWatch
from service.experiments.counts import Counts
from service.experiments.document import Document
from service.experiments.keeper import ExperimentKeeper
from service.guard.breaker import BreakerSettings
from service.guard.error_budgets import BudgetSettings
from service.guard.guard import Guard, GuardSettings
from service.guard.guards import Guards
from service.history.state_keeper import StateKeeper
from service.lifecycle.serving import Serving
from service.policies.policies import PolicyBook
from service.process.background import spawn
from service.process.low_priority import low_priority_thread
from service.recommend.policy_preview import PolicyPreview
from service.recommend.recent_requests import RecentRequests
from service.recommend.shadows import Shadows
from service.settings.service_settings import Settings
from service.store.store import Store

# With a later event loop than this the process has no time to spare.
_LAG_S = 0.01


def open_guards(settings: Settings, mode: ForcedMode) -> Guards:
    """Returns the guards that choose the rung: the breakers and the budgets."""
    budgets = BudgetSettings(
        late_share=settings.latency_budget_share,
        failed_share=settings.error_budget_share,
        below_share=settings.served_budget_share,
        least=settings.breaker_min_attempts,
    )
    breaker = BreakerSettings(
        window_s=settings.breaker_window_s,
        min_attempts=settings.breaker_min_attempts,
        failure_ratio=settings.breaker_failure_ratio,
        open_s=settings.breaker_open_s,
        hold_max_s=settings.breaker_hold_max_s,
        half_open_probes=settings.breaker_half_open_probes,
        budgets=budgets,
    )
    guard = GuardSettings(breaker=breaker, reserve_ms=settings.fallback_reserve_ms)
    return Guards(Guard(guard, time.monotonic, mode.current))


async def open_experiments(
    opening: Opening,
    store: Store,
    keeper: ExperimentKeeper,
    serving: Serving,
    book: PolicyBook,
    guards: Guards,
) -> tuple[Arms, CanaryWatch]:
    """Returns what places requests and what watches their arms. The models of the arms are held before it returns."""
    arms = Arms(serving, book, keeper.held.get)
    canaries = CanaryWatch(keeper, Counts(store), opening.metrics)

    def follow(document: Document) -> None:
        arms.follow(document)
        guards.keep_only(lambda variant: may_answer(document, variant))
        keeper.held.look()

    keeper.subscribe(follow)
    await keeper.held.follow()
    for part in (keeper.held, canaries):
        spawn(opening.stack, part.run)
    return arms, canaries


def open_shadows(
    opening: Opening,
    keeper: ExperimentKeeper,
    arms: Arms,
    canaries: CanaryWatch,
    serving: Serving,
    guards: Guards,
    history_cap: int,
) -> Shadows:
    """Returns what runs requests on candidates behind their answers."""
    thread = _spare_thread(opening, "shadow")
    busy = busy_check(keeper, serving, guards)
    shadows = Shadows(arms, canaries, busy, opening.metrics, thread, history_cap=history_cap)
    keeper.subscribe(shadows.follow)
    spawn(opening.stack, shadows.run)
    return shadows


def open_preview(
    opening: Opening,
    keeper: ExperimentKeeper,
    serving: Serving,
    book: PolicyBook,
    states: StateKeeper,
    guards: Guards,
    recent: RecentRequests,
) -> PolicyPreview:
    """Returns what tries policies on the requests that were answered last."""
    thread = _spare_thread(opening, "preview")
    busy = busy_check(keeper, serving, guards)
    return PolicyPreview(recent, serving, book, states, busy, thread, history_cap=states.history_cap)


def busy_check(keeper: ExperimentKeeper, serving: Serving, guards: Guards) -> Callable[[], bool]:
    """Returns what tells whether an engine has work, or the event loop is late."""

    def busy() -> bool:
        lag = guards.everybody.lag.seconds > _LAG_S
        return lag or any(model.busy for model in (serving.model, *keeper.held.models))

    return busy


def _spare_thread(opening: Opening, name: str) -> Executor:
    thread = low_priority_thread(name)
    opening.stack.callback(thread.shutdown, wait=False, cancel_futures=True)
    return thread
