"""Reads the checkpoints of states that remember trimmed events, and makes the next ones."""

from __future__ import annotations

from dataclasses import replace

from service.common.deadline import Deadline
from service.common.errors import StoreUnavailable
from service.engine.jobs import EncodeJob
from service.history import state_blob
from service.history.history import History
from service.history.profile import PendingEncoding, Profile, held, pending_encoding
from service.history.state_blob import NO_CHECKPOINT, VersionedState
from service.history.trim_checkpoint import (
    Advance,
    advance,
    as_checkpoint,
    has_gap,
    is_due,
    left_out,
    needs_checkpoint,
)
from service.metrics.service_metrics import Metrics
from service.store.store import Store


class CheckpointKeeper:
    """Does nothing for encoders whose states can be rebuilt from the log."""

    def __init__(self, store: Store, metrics: Metrics, *, history_cap: int) -> None:
        """Prepares for logs that keep `history_cap` events."""
        self._store, self._metrics, self._cap = store, metrics, history_cap

    def may_remember(self, profile: Profile) -> bool:
        """Returns whether a checkpoint may remember more than the log has, even if that has no event of an item."""
        return _remembers(profile) and needs_checkpoint(profile.record, self._cap)

    async def resumed(
        self, profile: Profile, history: History, pending: PendingEncoding, deadline: Deadline
    ) -> PendingEncoding:
        """Returns the work from the checkpoint on, where a state must be rebuilt that remembers trimmed events.

        Args:
            profile: The log, and the newest state known.
            history: The profile's own history, or one with the events of a request merged in.
            pending: The work without a checkpoint.
            deadline: How long to wait for the checkpoint.

        Raises:
            StoreUnavailable: The checkpoint cannot be read. Without it the state would forget.
        """
        record = profile.record
        if pending.base is not None or not self.may_remember(profile):
            return pending
        # One that is not stored yet may lack a late event, which the log took in the meantime.
        checkpoint = await self._stored(profile, deadline)
        if checkpoint is None:
            return pending
        self._metrics.state_cache.labels("state", "resumed").inc()
        if has_gap(record, checkpoint, self._cap):
            self._metrics.state_cache.labels("state", "gap").inc()
        resumed = pending_encoding(profile, history, history_cap=self._cap, from_state=False, checkpoint=checkpoint)
        if resumed is None:
            return pending
        if late := left_out(history, record.events, checkpoint):
            self._metrics.events.labels("inline_before_checkpoint").inc(late)
        return resumed

    async def advanced(self, profile: Profile, made: VersionedState, deadline: Deadline) -> VersionedState | None:
        """Returns the next checkpoint of a log, to be stored with its state; None if none is due.

        Args:
            profile: The log.
            made: The state after its newest event.
            deadline: How long it may take.

        Raises:
            ModelAttemptFailed: The encoder failed or is overloaded.
            StoreUnavailable: The present checkpoint cannot be read.
        """
        record = profile.record
        if not _remembers(profile) or made.version != record.version or not record.events:
            return None
        if not is_due(record, made.since, self._cap):
            return None
        before = made.checkpoint or await self._stored(profile, deadline)
        if before is not None and not is_due(record, before.last_score, self._cap):
            return before  # another replica has made it
        part = advance(record, made, before, self._cap)
        if part is not None:
            return await self._encoded(profile, made, before, part, deadline)
        return None if made.state is None else as_checkpoint(made)

    async def _stored(self, profile: Profile, deadline: Deadline) -> VersionedState | None:
        """The stored checkpoint of a log, if it can be used."""
        if profile.subject is None:
            return None
        model, limit_s = profile.model, deadline.remaining()
        try:
            blob = await self._store.read_checkpoint(profile.subject, model.encoder_version.name, limit_s)
        except StoreUnavailable:
            self._metrics.redis_errors.labels("read").inc()
            raise
        checkpoint = held(state_blob.unpack(blob, model.engine.state_layout), profile.record, model)
        return None if checkpoint is None or checkpoint.state is None else checkpoint

    async def _encoded(
        self, profile: Profile, made: VersionedState, before: VersionedState | None, part: Advance, deadline: Deadline
    ) -> VersionedState | None:
        """The checkpoint after a part of the log; None where that is nothing yet."""
        model, record = profile.model, profile.record
        last, began = record.events[part.end - 1].score, made.began if before is None else before.began
        covered = [event for event in record.events[part.start : part.end] if event.item_id]
        if not covered:  # searches alone, which the encoder does not read
            return None if before is None else replace(before, version=record.version, last_score=last, since=last)
        job = EncodeJob(
            state=None if before is None else before.state,
            events=model.vocabulary.events(
                [event.item_id for event in covered],
                [event.type for event in covered],
                [event.time_ms for event in covered],
                sessions=[event.session for event in covered],
            ),
            from_start=before is None and made.began == NO_CHECKPOINT,
        )
        state = await model.encoder.submit(job, deadline)
        return VersionedState(state.h, state, record.version, last, made.step, since=last, began=began)


def _remembers(profile: Profile) -> bool:
    return profile.model.engine.state_layout.remembers_trimmed
