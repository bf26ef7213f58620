"""Encoder states: which part of a history must still be encoded, and what is stored of the result.

A stored state is a base when the version chain says so; then only the events after it are encoded, else the
newest events up to the receptive field. New states are written behind the answer, compare-and-set.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from export.features import GAP_UNKNOWN, EventArrays
from service import blob, versions
from service.background import Background, Work
from service.deadline import Clock, Deadline
from service.decoding import Decoding
from service.engine import Job
from service.errors import StoreUnavailable
from service.history import Past, past
from service.metrics import Metrics
from service.records import Subject, UserRecord
from service.served import ServedModel
from service.state import EncoderState
from service.store import Store


@dataclass(frozen=True, slots=True)
class Encoding:
    """What the engine must do before it can decode.

    base: the state to start from, None for an empty one. events: what comes after it. from_start: the learned
    start token goes first. stale: the stored state, if any, does not cover the stored history.
    """

    base: EncoderState | None
    events: EventArrays
    from_start: bool
    stale: bool


class StateKeeper:
    """Reads records with their states, and writes states back."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        background: Background,
        *,
        history_cap: int,
        catch_up_s: float,
        clock: Clock = time.monotonic,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._background = background
        self._history_cap = history_cap
        self._catch_up_s = catch_up_s
        self._clock = clock

    async def read(self, subject: Subject, model: ServedModel, deadline: Deadline) -> UserRecord:
        """One round trip, bounded by the deadline and by the store's own read time-out.

        Raises:
            StoreUnavailable: away, or too slow for this request.
        """
        try:
            with self._metrics.stage("state"):
                return await self._store.read(subject, model.version, deadline.remaining())
        except StoreUnavailable:
            self._metrics.redis_errors.labels("read").inc()
            raise

    def encoding(self, model: ServedModel, record: UserRecord, events: Past, *, from_state: bool = True) -> Encoding:
        """From the stored state where that is a base and `from_state` trusts it, else from the raw events."""
        start, state = self._base(model, record, events) if from_state else (0, None)
        if state is None:
            start = max(0, len(events) - model.engine.receptive_field)
        trimmed = start > 0 or len(record.events) >= self._history_cap
        stale = bool(record.events) and (state is None or start < events.stored)
        if record.events:
            outcome = "rebuilt" if state is None else "extended" if stale else "hit"
            self._metrics.state_cache.labels("redis", outcome).inc()
        arrays = model.vocabulary.events(events.item_ids[start:], events.types[start:], events.times_ms[start:])
        return Encoding(state, arrays, from_start=state is None and not trimmed, stale=stale)

    def keep(self, subject: Subject, model: ServedModel, record: UserRecord, state: EncoderState) -> None:
        """Stores the state after the record's last event, behind the answer."""

        async def write() -> None:
            await self._write(subject, model, record, state)

        self._start(subject, write)

    def catch_up(self, subject: Subject, model: ServedModel, record: UserRecord) -> None:
        """Encodes the stored history and stores the state, behind the answer."""

        async def encode() -> None:
            encoding = self.encoding(model, record, past(record.events, (), 0))
            if not encoding.stale:
                return
            deadline = Deadline.after(self._catch_up_s, self._clock)
            ranking = await model.batcher.submit(_encode_only(model, encoding), deadline)
            await self._write(subject, model, record, ranking.state)

        self._start(subject, encode)

    def _base(self, model: ServedModel, record: UserRecord, events: Past) -> tuple[int, EncoderState | None]:
        """Position of the first event the stored state has not seen, and that state if it is a base."""
        if not record.events or events.stored != len(record.events):
            return 0, None
        base = blob.unpack(record.blob, model.engine.state_shape)
        tail = None if base is None else versions.tail(record, base.version, base.last_score)
        if base is None or tail is None:
            return 0, None
        return events.stored - len(tail), base.state

    async def _write(self, subject: Subject, model: ServedModel, record: UserRecord, state: EncoderState) -> None:
        packed = blob.pack(blob.Base(state, record.version, record.events[-1].score))
        try:
            stored = await self._store.write_state(subject, model.version, record.version, packed)
        except StoreUnavailable:
            self._metrics.redis_errors.labels("write_state").inc()
            raise
        self._metrics.state_cache.labels("redis", "stored" if stored else "lost").inc()

    def _start(self, subject: Subject, work: Work) -> None:
        if not self._background.start(subject, work):
            self._metrics.state_cache.labels("redis", "dropped").inc()


def _encode_only(model: ServedModel, encoding: Encoding) -> Job:
    """A job for zero items: encoded, not decoded."""
    return Job(
        state=encoding.base,
        item=encoding.events.item,
        type=encoding.events.type,
        time_ms=encoding.events.time_ms,
        from_start=encoding.from_start,
        context=model.vocabulary.context.encode({}),
        gap_ms=GAP_UNKNOWN,
        decoding=Decoding("greedy"),
        k=0,
        allowed=0,
        excluded=np.zeros(0, np.int64),
        seed=0,
    )
