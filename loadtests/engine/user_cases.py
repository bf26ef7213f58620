"""Users of an artefact with fused weights: what the host computes for their lists, and the rung below the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from loadtests.engine.decoder_cases import STATES, K
from service.artifact.array_types import Float64Array
from service.batching.batcher import Batcher, BatchLimits
from service.engine.engine import Engine
from service.engine.fallback import Constraints, RecommendationList
from service.history.profile import Profile
from service.lifecycle.filter_builds import FilterBuilds
from service.lifecycle.filter_ration import FilterRation
from service.lifecycle.served_model import ServedModel
from service.metrics.service_metrics import Metrics
from service.process.low_priority import low_priority_thread
from service.store.records import StoredEvent, UserRecord
from service.store.seen_items import NOTHING_SEEN

# Events in the log: as many as the longest signal reads. Items seen before it.
EVENTS, SEEN = 50, 200
_START_MS, _DAY_MS = 1_700_000_000_000, 86_400_000


class Users:
    """Users with full histories at random items, whose signals therefore speak for as many items as they can.

    Attributes:
        profiles: What the service keeps of each user; those of one version of the log, with their signals.
    """

    def __init__(self, engine: Engine, seed: int = 0) -> None:
        self._model = _served(engine)
        rng, ids = np.random.default_rng(seed), engine.artifact.catalogue.item_ids
        self._records = [_record(rng, ids) for _ in range(STATES)]
        self.profiles = [self.after_an_event(number) for number in range(STATES)]
        for profile in self.profiles:
            profile.signals(profile.history)

    def after_an_event(self, number: int) -> Profile:
        """Returns a user's profile of a new version of the log: nothing is computed but the history itself."""
        profile = Profile(None, self._model, self._records[number % STATES])
        assert len(profile.history) == EVENTS  # noqa: S101 - a cached property, read here
        return profile

    def rung(self, number: int) -> RecommendationList:
        """Returns the list of the rung below the model for a user."""
        profile = self.profiles[number % STATES]
        limits = Constraints(None, profile.seen)
        return self._model.fallback.by_history(profile.user_history(profile.history), K, limits)


def processor_ms(call: Callable[[int], object], runs: int) -> Float64Array:
    """Returns the processor milliseconds of this thread for each call but those that warm up."""
    taken = []
    for number in range(STATES + runs):
        began = time.thread_time()
        call(number)
        taken.append(1000 * (time.thread_time() - began))
    return np.array(taken[STATES:])


def _served(engine: Engine) -> ServedModel:
    """The model as the service has it, with batchers that run nothing."""
    metrics, limits = Metrics(), BatchLimits()
    encoder, decoder = Batcher(engine.encode, metrics, limits), Batcher(engine.decode, metrics, limits)
    filters = FilterBuilds(lambda: engine.filters, FilterRation(1.0), metrics, low_priority_thread("filters"))
    return ServedModel.of(engine, encoder, decoder, np.zeros(engine.artifact.network["d_model"], np.float32), filters)


def _record(rng: np.random.Generator, ids: Sequence[str]) -> UserRecord:
    times = [_START_MS + _DAY_MS * day for day in range(SEEN + EVENTS)]
    items = [ids[item] for item in rng.integers(0, len(ids), SEEN + EVENTS).tolist()]
    seen = NOTHING_SEEN.after(list(zip(items[:SEEN], times[:SEEN], strict=True)), SEEN)
    assert seen is not None  # noqa: S101 - as many as are remembered
    later = zip(items[SEEN:], times[SEEN:], strict=True)
    events = (StoredEvent(item, "view", time_ms, f"event-{time_ms}", float(time_ms)) for item, time_ms in later)
    return UserRecord("0" * 16, tuple(events), seen=seen)
