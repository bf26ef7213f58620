"""Logs when a state changes that operators ask about: the mode, the breaker, the budgets, the engine.

States are looked at twice a second, because some of them change by time alone: a mode expires, a breaker begins to
probe. Models and policies change by an act, which logs it (`service.lifecycle.model_switch`,
`service.policies.policy_keeper`).
"""

from __future__ import annotations

import asyncio
from typing import get_args

from service.common.state_log import StateLog
from service.coordination.forced_mode import ForcedMode
from service.guard.error_budgets import Objective
from service.guard.guards import Guards, Variant
from service.lifecycle.serving import Serving

_EVERY_S = 0.5


class StateChanges:
    """Compares the states with those of the look before.

    Args:
        guards: Have the breakers and the budgets.
        mode: The mode that operators force.
        serving: Has the model in service.
    """

    def __init__(self, guards: Guards, mode: ForcedMode, serving: Serving) -> None:
        self._guards, self._mode, self._serving = guards, mode, serving
        self._breaker, self._forced = StateLog("breaker", "closed"), StateLog("mode", "auto")
        self._engine = StateLog("engine", "healthy")
        self._budgets: dict[Objective, StateLog] = {
            name: StateLog("budget", "kept", objective=name) for name in get_args(Objective)
        }
        self._beside: dict[Variant, StateLog] = {}

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_EVERY_S)

    def look(self) -> None:
        """Logs each state that has changed."""
        guard, mode, model = self._guards.everybody, self._mode.mode, self._serving.model
        breaker = guard.breaker
        state = breaker.state.value
        self._breaker.saw(state, cause=None if state == "closed" else breaker.cause, model_share=breaker.share)
        self._forced.saw(mode.mode, actor=mode.actor, expires_at=mode.to_json()["expires_at"])
        self._engine.saw("healthy" if model.healthy else "stalled", model_version=model.version)
        for name, rate in guard.budgets.burn_now().items():
            one = self._budgets[name]
            burns = guard.budgets.too_fast(name, rate) or (one.state == "burning" and rate > 1.0)
            one.saw("burning" if burns else "kept", burn_rate=round(rate, 2))
        self._look_beside()

    def _look_beside(self) -> None:
        """The breakers of what answers arms of experiments."""
        beside = dict(self._guards.beside())
        self._beside = {
            variant: self._beside.get(variant) or StateLog("arm_breaker", "closed", **variant.named())
            for variant in beside
        }
        for variant, log in self._beside.items():
            breaker = beside[variant].breaker
            state = breaker.state.value
            log.saw(state, cause=None if state == "closed" else breaker.cause, model_share=breaker.share)
