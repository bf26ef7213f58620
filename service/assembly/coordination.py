"""Opens what operators set, and the policies that hold until they set others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.common.errors import StartupError, StoreUnavailable
from service.common.watched_file import WatchedFile
from service.coordination.audit import Audit
from service.coordination.clock import SharedClock
from service.coordination.exchange import Exchange
from service.coordination.forced_mode import ForcedMode
from service.coordination.shared_choice import SharedChoice
from service.experiments import document
from service.lifecycle import model_choice
from service.policies import policies, policy_keeper
from service.policies.policies import Policies
from service.process.disk_lane import DiskLane, HungFileError
from service.settings.space import Space
from service.store.store import Store


@dataclass(frozen=True, slots=True)
class SharedValues:
    """The values that operators set and all replicas share."""

    clock: SharedClock
    audit: Audit
    mode: ForcedMode
    model: SharedChoice
    policies: SharedChoice
    experiments: SharedChoice
    exchange: Exchange


async def first_policies(file: WatchedFile, lane: DiskLane) -> Policies:
    """Reads the policies file. Raises StartupError if it is not valid, or hangs."""

    def read() -> Policies:
        file.changed()  # before the file is read, so that no later change of it is missed
        return policies.load(file.path)

    try:
        first = await lane.run(read)
    except HungFileError:
        raise StartupError(f"{file.path}: the policies file does not answer; does its disk hang?") from None
    file.accept()
    return first


async def open_coordination(space: Space, store: Store) -> SharedValues:
    """Returns the shared values after a first exchange, so that the first answer already follows them."""
    clock = SharedClock()
    audit = Audit(store, clock)

    def choice(name: str, usable: Callable[[dict[str, Any]], bool]) -> SharedChoice:
        return SharedChoice(store, name, clock, audit, usable=usable, copy=space.copy_of(name))

    mode = ForcedMode(store, clock, audit, copy=space.copy_of("mode"))
    model, policies = choice("model", model_choice.usable), choice("policies", policy_keeper.usable)
    experiments = choice("experiments", document.usable)
    exchange = Exchange(store, (mode, model, policies, experiments), audit, poll_s=space.settings.mode_poll_ms / 1000.0)
    with contextlib.suppress(StoreUnavailable):
        await exchange.once()
    return SharedValues(clock, audit, mode, model, policies, experiments, exchange)
