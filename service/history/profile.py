"""A stored history as one model sees it: what a request needs of it, worked out once a version of the log. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from service.artifact.features import EventArrays, is_history_event
from service.history import state_blob
from service.history.past import Past, past
from service.history.state_blob import Base
from service.lifecycle.served_model import ServedModel
from service.policies.segments import FACT_WINDOW, Facts, facts
from service.store import log_version
from service.store.records import ARRIVALS, NewEvent, StoredEvent, Subject, UserRecord

# What an event takes in memory with its strings: 360 bytes by tracemalloc at ids of 8 to 16 characters, rounded up.
_EVENT_BYTES = 400
_PROFILE_BYTES = 2_000


@dataclass(eq=False)
class Profile:
    """`base` is the newest state known of the record; it may lie some events behind. Replaced by newer ones, never
    by older ones: the record stays as it is."""

    subject: Subject | None
    model: ServedModel
    record: UserRecord
    base: Base | None = None

    @classmethod
    def of(cls, subject: Subject, model: ServedModel, record: UserRecord) -> Profile:
        """From a record as it was read, its blob unpacked."""
        base = state_blob.unpack(record.blob, model.engine.state_shape) if record.events else None
        return cls(subject, model, UserRecord(record.version, record.events), base)

    @property
    def current(self) -> bool:
        """Whether the base has seen the whole log."""
        return self.base is not None and self.base.version == self.record.version

    @cached_property
    def past(self) -> Past:
        return past(self.record.events, (), 0)

    @cached_property
    def seen(self) -> npt.NDArray[np.int64]:
        """[m] different catalogue indices of the history, ascending."""
        return np.unique(self.model.indices(self.past.item_ids))

    @cached_property
    def _facts(self) -> Facts:
        return facts_of(self.past, self.model)

    def facts(self, now_ms: int) -> Facts:
        """What the segment rules ask about."""
        return self._facts.at(self.past.last_ms, now_ms)

    def pending(self) -> tuple[int, Base | None]:
        """Position of the first event that the base has not seen, and the base; (0, None) where it is none."""
        if self.base is None:
            return 0, None
        tail = log_version.tail(self.record, self.base.version, self.base.last_score)
        if tail is None or (tail and self.base.state is None):
            return 0, None
        return len(self.record.events) - len(tail), self.base

    @property
    def nbytes(self) -> int:
        """Estimate of the memory it holds."""
        state = None if self.base is None else self.base.state
        arrays = 0 if state is None else state.kv.nbytes + state.scale.nbytes + state.time_ms.nbytes + state.h.nbytes
        return _PROFILE_BYTES + _EVENT_BYTES * len(self.record.events) + arrays


def facts_of(events: Past, model: ServedModel) -> Facts:
    """Facts without a recency."""
    recent = model.categories(events.item_ids[-FACT_WINDOW:])
    return facts(events.item_ids, recent, None, 0, model.catalogue.n_categories)


@dataclass(frozen=True, slots=True)
class Encoding:
    """What the encoder must do: the state to start from, None for an empty one, and what comes after it.

    from_start: the learned start token goes first.
    """

    base: Base | None
    events: EventArrays
    from_start: bool


def encoding(profile: Profile, events: Past, *, history_cap: int, from_state: bool = True) -> Encoding | None:
    """What is left to encode of `events`, the profile's own past or a longer one; None where nothing is.

    Starts from the base where that is one and `from_state` trusts it, else from the raw events, of which the newest
    up to the receptive field count.
    """
    start, base = (0, None)
    if from_state and events.stored == len(profile.record.events):
        start, base = profile.pending()
    if base is not None and start == len(events):
        return None
    model = profile.model
    if base is None or base.state is None:  # from h alone nothing can be added
        start, base = max(0, len(events) - model.engine.receptive_field), None
    trimmed = start > 0 or len(profile.record.events) >= history_cap
    arrays = model.vocabulary.events(events.item_ids[start:], events.types[start:], events.times_ms[start:])
    return Encoding(base, arrays, from_start=base is None and not trimmed)


def extended(record: UserRecord, new: Sequence[NewEvent], subject: Subject, cap: int) -> UserRecord | None:
    """The record after an append, without reading it again; None where that cannot be told.

    Repeats what `store_scripts.APPEND` does with events that are newer than the log's last one. The caller compares
    the version with the one the append returned: equal versions mean equal logs.
    """
    events, version = list(record.events), record.version
    for event in sorted((e for e in new if is_history_event(e.type, e.item_id)), key=_time):
        assert event.item_id is not None  # noqa: S101 - a history event has an item
        arrival = 0
        if events:
            last = events[-1]
            if event.time_ms < last.time_ms:
                return None
            if event.time_ms == last.time_ms:
                arrival = min(int((last.score - last.time_ms) * ARRIVALS) + 1, ARRIVALS - 1)
        score = event.time_ms + arrival / ARRIVALS
        stored = StoredEvent(event.item_id, event.type, event.time_ms, event.identity(subject), score)
        version = log_version.link(version, stored)
        events.append(stored)
    return UserRecord(version, tuple(events[-cap:]))


def _time(event: NewEvent) -> int:
    return event.time_ms
