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
from service.guard.guard import Guard
from service.lifecycle.served_model import Serving

_EVERY_S = 0.5


class StateChanges:
    """Compares the states with those of the look before.

    Args:
        guard: Has the breaker and the budgets.
        mode: The mode that operators force.
        serving: Has the model in service.
    """

    def __init__(self, guard: Guard, mode: ForcedMode, serving: Serving) -> None:
        self._guard, self._mode, self._serving = guard, mode, serving
        self._breaker, self._forced = StateLog("breaker", "closed"), StateLog("mode", "auto")
        self._engine = StateLog("engine", "healthy")
        self._budgets: dict[Objective, StateLog] = {
            name: StateLog("budget", "kept", objective=name) for name in get_args(Objective)
        }

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_EVERY_S)

    def look(self) -> None:
        """Logs each state that has changed."""
        breaker, mode, model = self._guard.breaker, self._mode.mode, self._serving.model
        state = breaker.state.value
        self._breaker.saw(state, cause=None if state == "closed" else breaker.cause, model_share=breaker.share)
        self._forced.saw(mode.mode, actor=mode.actor, expires_at=mode.to_json()["expires_at"])
        self._engine.saw("healthy" if model.healthy else "stalled", model_version=model.version)
        for name, rate in breaker.budgets.burn_now().items():
            one = self._budgets[name]
            burns = breaker.budgets.too_fast(name, rate) or (one.state == "burning" and rate > 1.0)
            one.saw("burning" if burns else "kept", burn_rate=round(rate, 2))
