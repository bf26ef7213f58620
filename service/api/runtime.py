"""The parts of a running service, as the routes use them. Only `service.assembly` builds them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.access.key_owners import KeyOwners
from service.access.keys import Access
from service.access.rate_limits import Rates
from service.answers.kept_lists import KeptLists
from service.catalogue.items import Items
from service.common.deadline import Clock
from service.coordination.audit import Audit
from service.coordination.forced_mode import ForcedMode
from service.experiments.arms import Arms
from service.experiments.canary_watch import CanaryWatch
from service.experiments.document import Experiment
from service.experiments.keeper import ExperimentKeeper
from service.exposures.recorder import Recorder
from service.guard.guard import Guard
from service.guard.guards import Guards
from service.guard.in_flight import InFlight
from service.history.features import Features
from service.history.ingest import Ingest
from service.history.state_keeper import StateKeeper
from service.history.write_behind import WriteBehind
from service.lifecycle.model_switch import ModelSwitch
from service.lifecycle.served_model import ServedModel
from service.lifecycle.serving import Serving
from service.metrics.service_metrics import BREAKER_STATES, MODES, Metrics
from service.metrics.text_formats import TextFormat
from service.ops import space_metrics
from service.ops.console import Console, versions
from service.ops.worker_peers import Peers
from service.playground.explorer import Explorer
from service.policies.policies import PolicyBook
from service.policies.policy_keeper import PolicyKeeper
from service.process import output
from service.process.process_state import ProcessState
from service.recommend.baskets import Baskets
from service.recommend.policy_preview import PolicyPreview
from service.recommend.recommender import Recommender
from service.recommend.shadows import Shadows
from service.settings.service_settings import Settings
from service.settings.space import DEFAULT, Space
from service.store.health import RedisCheck
from service.store.store import Store
from service.watch.traffic_watch import TrafficWatch


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceRuntime:
    """The parts of one space."""

    space: Space
    serving: Serving
    store: Store
    policies: PolicyBook
    policy_keeper: PolicyKeeper
    models: ModelSwitch
    experiments: ExperimentKeeper
    arms: Arms
    canaries: CanaryWatch
    guards: Guards
    mode: ForcedMode
    audit: Audit
    states: StateKeeper
    write_behind: WriteBehind
    recorder: Recorder
    preview: PolicyPreview
    kept: KeptLists
    recommender: Recommender
    baskets: Baskets
    ingest: Ingest
    features: Features
    items: Items
    redis: RedisCheck
    rates: Rates | None
    watch: TrafficWatch
    shadows: Shadows
    explorer: Explorer | None

    @property
    def model(self) -> ServedModel:
        """The model in service."""
        return self.serving.model

    @property
    def guard(self) -> Guard:
        """The guard of what answers everybody."""
        return self.guards.everybody

    def breakers(self, experiment: Experiment) -> dict[str, dict[str, Any]]:
        """Returns the breaker and the budgets of each arm in this process."""
        return {arm.name: self.guards.status(self.arms.variant(arm)) for arm in experiment.arms}

    def fallback_status(self) -> dict[str, Any]:
        """Returns the answer of /ops/fallback: the mode, the breaker and the budgets."""
        return {**self.mode.to_json(), **self.guard.status()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The service as one space has it: what the process has once, and the parts of that space.

    A request gets the one of its space (`service.api.request.runtime`), so that no route can reach another space.

    Attributes:
        settings: In the scope of the space.
        access: Who may call in the space.
        metrics: Of the space; those of the default space are those of the process too.
        process_state: Of the process.
        space: The parts of the space.
        console: Shows the space.
        peers: Calls to the other workers.
        spaces: Every space by its name, this one among them. With one space, only the default.
        owners: Which space a key belongs to.
        several: Whether the deployment has a file of spaces.
        in_flight: Counts the requests of the space that are in progress.
        unspaced: Counts the requests that mean no space; they have an empty label.
        wall_clock: The wall clock, in epoch seconds.
    """

    settings: Settings
    access: Access
    metrics: Metrics
    process_state: ProcessState
    space: SpaceRuntime
    console: Console
    peers: Peers
    spaces: Mapping[str, Runtime]
    owners: KeyOwners
    several: bool
    in_flight: InFlight
    unspaced: Metrics
    wall_clock: Clock = field(default=time.time)

    @property
    def name(self) -> str:
        """The name of the space."""
        return self.space.space.name

    def choices(self, presented: str | None) -> list[str]:
        """Returns the names of the spaces that a caller with this secret may choose from."""
        owner = self.owners.owner(presented)
        if owner is not None:
            return [owner]
        every = self.access.acts_in_all(presented)
        return [name for name, one in self.spaces.items() if every or name == DEFAULT or not one.access.api_keys]

    def latest_ms(self) -> int:
        """Returns the latest timestamp that an event may have now, in epoch milliseconds."""
        return int((self.wall_clock() + self.settings.future_tolerance_s) * 1000.0)

    def now_ms(self) -> int:
        """Returns the wall clock, in epoch milliseconds."""
        return int(self.wall_clock() * 1000.0)

    def versions(self) -> dict[str, Any]:
        """Returns the answer of /version."""
        found = versions(self.settings, self.space.models)
        return {**found, "space": self.name} if self.several else found

    def readiness(self) -> dict[str, bool]:
        """Returns the checks of /readyz that must all hold. A fault of one space takes no other out of service."""
        return {
            "started": self.process_state.started,
            "engine": self.space.model.healthy,
            "not_draining": not self.process_state.draining,
        }

    async def metrics_text(self, form: TextFormat) -> bytes:
        """Returns the metrics as text: those of the process in the default space, otherwise those of the space."""
        if not self.several:
            self.mirror_states()
            return self.metrics.render(form)
        shown = {self.name: self} if self.name != DEFAULT else self.spaces
        for runtime in shown.values():
            runtime.mirror_states()
        counted = {name: runtime.metrics for name, runtime in shown.items()}
        if self.name == DEFAULT:
            counted[""] = self.unspaced
        return await space_metrics.rendered(self.metrics, counted, form)

    def mirror_states(self) -> None:
        """Sets the gauges that mirror a state."""
        m, space = self.metrics, self.space
        m.count_up_to(m.log_lines_dropped, output.dropped())
        m.one_hot(m.breaker_state, BREAKER_STATES, space.guard.breaker.state.value)
        m.one_hot(m.fallback_mode, MODES, space.mode.current())
        m.recording.waiting.labels("exposures").set(space.recorder.lists_waiting)
        m.recording.waiting.labels("events").set(space.recorder.events_waiting)
        m.queue_depth.set(space.model.encoder.depth + space.model.decoder.depth)
        m.experiments.withheld.clear()
        for experiment in space.experiments.document.running:
            for arm, breaker in space.breakers(experiment).items():
                m.experiments.withheld.labels(experiment.name, arm).set(1.0 - breaker["model_share"])
        for objective, rates in space.guard.budgets.burn_rates().items():
            for window, rate in rates.items():
                m.burn_rate.labels(objective, window).set(rate)
