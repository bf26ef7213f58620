"""A stored history as one model sees it: what requests need of it, computed once per version of the log. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import IntArray
from service.artifact.features import EventArrays
from service.engine.jobs import EncodeJob
from service.history import state_blob
from service.history.history import History, merge_events, with_searches
from service.history.state_blob import VersionedState
from service.history.trim_checkpoint import first_after
from service.lifecycle.served_model import ServedModel
from service.policies.segments import FACT_WINDOW, Facts, facts
from service.signals.item_values import NO_VALUES, PackedValues, SignalSums
from service.signals.user_history import SeenBefore, UserHistory
from service.store import log_version
from service.store.records import ARRIVALS, NewEvent, StoredEvent, Subject, UserRecord

# Memory of one event with its strings: 360 bytes by tracemalloc with ids of 8 to 16 characters, rounded up.
_EVENT_BYTES = 400
_PROFILE_BYTES = 2_000
# Memory of the features for each of their packed bytes, with the objects around them.
_FEATURE_BYTES = 8
# A profile keeps what its user's signals add if that takes no more: the values of 16,384 items of a large catalogue,
# more than a full history and tables of the usual sizes give. Otherwise they are computed for each request.
SIGNAL_BYTES_MAX = 128 * 2**10


@dataclass(eq=False)
class Profile:
    """One version of a subject's log, and what was derived from it for one model.

    Attributes:
        subject: Whose log it is, None for an anonymous request.
        model: The model that indices, facts and states belong to.
        record: The log as it was read. It never changes.
        base: The newest encoder state known for the log. It may lack the latest events, and is only ever replaced by a
            newer one.
        kept_signals: What the user's signals add to the scores of items, and for which group of users; None if it was
            not computed yet, or takes too much memory to be kept.
    """

    subject: Subject | None
    model: ServedModel
    record: UserRecord
    base: VersionedState | None = None
    kept_signals: tuple[int, PackedValues] | None = None
    _measured: tuple[Any, ...] = field(default=(), init=False, repr=False)

    @classmethod
    def of(cls, subject: Subject, model: ServedModel, record: UserRecord) -> Profile:
        """Builds the profile of a record that was read from the store, and unpacks its state."""
        base = state_blob.unpack(record.blob, model.engine.state_layout) if record.events else None
        return cls(subject, model, replace(record, blob=None), held(base, record, model))

    def under(self, model: ServedModel) -> Profile:
        """Returns the profile for another model, with the state if the model's encoder would make the same."""
        same = model.encoder_version.name == self.model.encoder_version.name
        return Profile(self.subject, model, self.record, held(self.base, self.record, model) if same else None)

    def encoder_step(self) -> bytes:
        """Returns the first step of the model's encoder that has all items of the log."""
        version = self.model.encoder_version
        step = version.step_of(self.history.item_ids, self.model.vocabulary.item_index)
        step = _marked(step, self.user_rows)
        if self.base is None or not self.model.engine.state_layout.remembers_trimmed:
            return step
        return version.later(step, self.base.step)  # what it remembers may have items of a later step

    @cached_property
    def user_rows(self) -> IntArray | None:
        """[slots] Rows of the stored features, as the encoder reads them; None if it reads none, or none is known."""
        return self.model.user_rows(self.record.features.values)

    @property
    def up_to_date(self) -> bool:
        """Whether the base covers the whole log."""
        return self.base is not None and self.base.version == self.record.version

    @cached_property
    def history(self) -> History:
        """The stored log alone, without events of a request."""
        return merge_events(self.record.events, (), 0)

    @cached_property
    def items_stored(self) -> int:
        """Number of events of items in the log; the others are searches."""
        return sum(bool(event.item_id) for event in self.record.events)

    @property
    def reads_searches(self) -> bool:
        """Whether the model's encoder reads the searches of the log."""
        return self.model.vocabulary.query_buckets > 0

    @cached_property
    def seen(self) -> npt.NDArray[np.int64]:
        """[m] Catalogue indices of all items known to have been seen, also before the log, unique and ascending."""
        return np.unique(self.model.indices([*self.history.item_ids, *self.record.seen.item_ids()]))

    @cached_property
    def _seen_before(self) -> SeenBefore:
        """The items seen before the log, by catalogue index."""
        seen = self.record.seen
        if not seen.count:
            return SeenBefore()
        entries = seen.by_item()
        return SeenBefore.of(self.model.places(entries.item_ids), entries.last_ms, entries.counts)

    def user_history(self, history: History) -> UserHistory:
        """Returns what signals read of a history: the profile's own, or one with the events of a request merged in."""
        times = np.array(history.times_ms, np.int64)
        kept = self.model.engine.receptive_field
        return UserHistory.of(self.model.places(history.item_ids), times, kept, self._seen_before)

    def signals(self, history: History, group: int = 0) -> SignalSums:
        """Returns what the user's signals add to the scores of items; nothing is computed where none has a weight.

        Those of the profile's own history are kept for the next request, and belong to this version of the log alone.

        Args:
            history: The profile's own history, or one with the events of a request merged in.
            group: The group of users whose weights count.
        """
        ranker = self.model.ranker
        if not ranker.uses_history(group):
            return NO_VALUES
        if history is not self.history:
            return ranker.user(self.user_history(history), group)
        if self.kept_signals is not None and self.kept_signals[0] == group:
            return self.kept_signals[1]
        values = ranker.user(self.user_history(history), group)
        packed = PackedValues.of(values)
        if packed.nbytes > SIGNAL_BYTES_MAX:
            self.kept_signals = None
            return values
        self.kept_signals = (group, packed)
        return packed

    @cached_property
    def _facts(self) -> Facts:
        return facts_of(self.history, self.model)

    def facts(self, now_ms: int) -> Facts:
        """Returns the facts that segment rules are evaluated on.

        Args:
            now_ms: The time of the request, in epoch milliseconds.
        """
        return self._facts.at(self.history.last_ms, now_ms)

    def resume_point(self) -> tuple[int, VersionedState | None]:
        """Finds where encoding can resume.

        Returns:
            The position of the first event that the base does not cover, and the base. (0, None) if there is no base,
            or if it cannot be extended to this log.
        """
        if self.base is None:
            return 0, None
        tail = log_version.tail(self.record, self.base.version, self.base.last_score)
        if tail is None:
            return 0, None
        read = tail if self.reads_searches else [event for event in tail if event.item_id]
        if read and self.base.state is None:
            return 0, None
        return self.items_stored - sum(bool(event.item_id) for event in read), self.base

    @cached_property
    def _record_bytes(self) -> int:
        """Estimated memory of the record."""
        seen = len(self.record.seen.entries) + 8 * self.record.seen.count
        texts = 4 * sum(len(event.query) for event in self.record.events)
        features = _FEATURE_BYTES * self.record.features.size
        return _PROFILE_BYTES + _EVENT_BYTES * len(self.record.events) + texts + seen + features

    def has_grown(self) -> bool:
        """Returns whether what it holds has changed since this was asked before."""
        base = self.base
        checkpoint = None if base is None else base.checkpoint
        held = (base, checkpoint, self.kept_signals, self.__dict__.get("_seen_before"))
        before, self._measured = self._measured, held
        return not before or any(one is not other for one, other in zip(held, before, strict=True))

    @property
    def nbytes(self) -> int:
        """Estimated memory of the profile."""
        arrays = 0 if self.base is None else self.base.nbytes
        before: SeenBefore | None = self.__dict__.get("_seen_before")
        arrays += 0 if before is None else before.nbytes
        arrays += 0 if self.kept_signals is None else self.kept_signals[1].nbytes
        return self._record_bytes + arrays


def held(base: VersionedState | None, record: UserRecord, model: ServedModel) -> VersionedState | None:
    """Returns the state, or None if the model's encoder would make another one of the events that it covers.

    Of the events that the log no longer keeps, a state may only remember them: they are as they were when it read them.
    """
    if base is None:
        return None
    covered = (event.item_id for event in record.events if event.item_id and event.score <= base.last_score)
    step = _marked(base.step, model.user_rows(record.features.values))
    return base if model.encoder_version.holds(step, covered, model.vocabulary.item_index) else None


def _marked(step: bytes, rows: IntArray | None) -> bytes:
    """Returns the step of a state that has read these features, or, of such a state, the step of its encoder.

    A state that has read other features then names no step of the encoder, so that it is encoded anew.
    """
    if rows is None:
        return step
    mark = blake2b(rows.tobytes(), digest_size=len(step)).digest()
    return bytes(one ^ other for one, other in zip(step, mark, strict=True))


def facts_of(history: History, model: ServedModel) -> Facts:
    """Returns the facts of a history, without a recency; `Facts.at` adds it for a point in time."""
    recent = model.categories(history.item_ids[-FACT_WINDOW:])
    return facts(history.item_ids, recent, None, 0, model.catalogue.n_categories)


@dataclass(frozen=True, slots=True)
class PendingEncoding:
    """The work left for the encoder to bring a state up to date.

    Attributes:
        base: The state to start from, None for an empty one.
        events: The events to add to it.
        from_start: Whether the learned start token is encoded before the events.
        places: [n] place of each of the events in the history; −1 for a search.
        user: [slots] rows of the features that the encoder reads; None if it reads none, or none is known.
    """

    base: VersionedState | None
    events: EventArrays
    from_start: bool
    places: IntArray
    user: IntArray | None = None

    def job(self) -> EncodeJob:
        """Returns it as the encoder takes it."""
        state = None if self.base is None else self.base.state
        return EncodeJob(state=state, events=self.events, from_start=self.from_start, context=self.user)


def pending_encoding(
    profile: Profile,
    history: History,
    *,
    history_cap: int,
    from_state: bool = True,
    checkpoint: VersionedState | None = None,
) -> PendingEncoding | None:
    """Works out which events of `history` must still be encoded, and from which state.

    Starts from the profile's base if that can be extended to `history`; else from the checkpoint, if there is one; else
    from the raw events, of which only the newest up to the receptive field matter, unless states remember trimmed ones.

    Args:
        profile: The stored log and its base.
        history: The profile's own history, or one with the events and features of a request.
        history_cap: Events that a log keeps. A log of this length may have been trimmed, and then has no start.
        from_state: False ignores the base and encodes the raw events.
        checkpoint: An earlier state that remembers trimmed events.

    Returns:
        None if the base already covers `history`.
    """
    start, base = (0, None)
    if from_state and history.user is None and history.stored == profile.items_stored:
        start, base = profile.resume_point()
    if base is not None and start == len(history):
        return None
    model = profile.model
    full = len(profile.record.events) >= history_cap
    user = profile.user_rows if history.user is None else _known(history.user)
    if history.searches and profile.reads_searches:  # no state can be extended: such encoders do not stream
        read = with_searches(history)
        first = max(0, len(read.places) - model.engine.receptive_field)
        arrays = model.vocabulary.events(
            read.item_ids[first:], read.types[first:], read.times_ms[first:], read.queries[first:]
        )
        return PendingEncoding(None, arrays, not (first or full), np.array(read.places[first:], np.int64), user)
    if base is None or base.state is None:  # events cannot be added to h alone
        start, base = 0, checkpoint
        if checkpoint is not None:
            start = first_after(history, profile.record.events, checkpoint)
        elif not model.engine.state_layout.remembers_trimmed:
            start = max(0, len(history) - model.engine.receptive_field)
    columns = (history.item_ids[start:], history.types[start:], history.times_ms[start:])
    arrays = model.vocabulary.events(*columns, sessions=history.sessions[start:])
    begins = base is None and not (start or (full and len(history)))  # without any event there is the start alone
    return PendingEncoding(base, arrays, begins, np.arange(start, len(history)), user)


def _known(user: tuple[int, ...]) -> IntArray | None:
    return np.array(user, np.int64) if any(user) else None


def extended(
    record: UserRecord, new: Sequence[NewEvent], subject: Subject, cap: int, seen_max: int
) -> UserRecord | None:
    """Predicts the record after an append, so that it need not be read again.

    Repeats what `lua_scripts.APPEND` does with events that are newer than the last one of the log. The caller compares
    the version and the stamp with those that the append returned: if they are equal, so are the records.

    Args:
        record: The log before the append.
        new: The events that were appended.
        subject: Whose log it is.
        cap: Events that a log keeps.
        seen_max: Items remembered beyond the log.

    Returns:
        None if an event is older than the log's last one, so that its place is unknown here, or if Redis had to merge
        what it remembers.
    """
    events, version = list(record.events), record.version
    for event in sorted((e for e in new if e.in_history), key=_time):
        arrival = 0
        if events:
            last = events[-1]
            if event.time_ms < last.time_ms:
                return None
            if event.time_ms == last.time_ms:
                arrival = min(int((last.score - last.time_ms) * ARRIVALS) + 1, ARRIVALS - 1)
        score = event.time_ms + arrival / ARRIVALS
        identity = event.identity(subject)
        stored = StoredEvent(
            event.item_id or "", event.type, event.time_ms, identity, score, event.kept_query, event.session
        )
        version = log_version.link(version, stored)
        events.append(stored)
    left = [(event.item_id, event.time_ms) for event in events[:-cap] if event.item_id]
    seen = record.seen.after(left, seen_max)
    return None if seen is None else UserRecord(version, tuple(events[-cap:]), seen=seen, features=record.features)


def _time(event: NewEvent) -> int:
    return event.time_ms
