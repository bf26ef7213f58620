"""Writes events to the store. An acknowledged event is written, as durably as the settings ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service.artifact.features import known_type
from service.artifact.query_text import kept_query
from service.common.answer_warnings import Warnings
from service.common.errors import StoreUnavailable
from service.common.request_errors import NotFound, RequestError
from service.exposures.erasure import StreamErasure
from service.exposures.exposure import subject_name
from service.exposures.recorder import Recorder
from service.history.profile import Profile
from service.history.pseudonyms import Pseudonyms
from service.history.write_behind import WriteBehind
from service.lifecycle.served_model import ServedModel
from service.metrics.service_metrics import Metrics
from service.policies.policies import Policies
from service.schemas.parsing import B, parse
from service.schemas.user_requests import Event, EventsRequest, MergeRequest
from service.store.records import NewEvent, Subject
from service.store.store import Store
from service.tracing import tracing
from service.watch.counting import SeenEvent, place_of
from service.watch.traffic_watch import TrafficWatch

# The model and the policies that answer a subject.
Answers = Callable[[Subject], tuple[ServedModel, Policies]]


class Ingest:
    """Appends, merges, shows and erases histories on behalf of a frontend.

    Every method that talks to the store raises StoreUnavailable. The write may then have happened or not; repeating it
    is safe.
    """

    def __init__(
        self,
        store: Store,
        model: Callable[[], ServedModel],
        answers: Answers,
        write_behind: WriteBehind,
        metrics: Metrics,
        ids: Pseudonyms,
        recorder: Recorder,
        stream_erasure: StreamErasure,
        watch: TrafficWatch,
        *,
        keep_searches: bool = False,
        keep_sessions: bool = False,
    ) -> None:
        self._ids, self._keep_searches, self._keep_sessions = ids, keep_searches, keep_sessions
        self._recorder, self._stream_erasure = recorder, stream_erasure
        self._watch = watch
        self._store = store
        self._write_behind = write_behind
        self._model, self._answers = model, answers
        self._metrics = metrics

    def parse(self, raw: bytes, latest_ms: int) -> EventsRequest:
        """Parses a batch of events, all or nothing.

        Args:
            raw: The JSON body.
            latest_ms: The latest timestamp that is accepted, in epoch milliseconds.

        Raises:
            BadRequest: The body is not JSON.
            InvalidRequest: At least one event is invalid; every such event is listed.
        """
        return self._parsed(EventsRequest, raw, latest_ms)

    def parse_event(self, raw: bytes, latest_ms: int) -> Event:
        """Parses a single event, as a stream carries it; arguments and errors as of `parse`."""
        return self._parsed(Event, raw, latest_ms)

    def _parsed(self, body: type[B], raw: bytes, latest_ms: int) -> B:
        try:
            return parse(body, raw, latest_ms=latest_ms)
        except RequestError:
            self._metrics.events.labels("rejected").inc()
            raise

    async def append(self, request: EventsRequest) -> dict[str, Any]:
        """Stores a batch of events, in one round trip for every 64 subjects.

        Events of unknown items are stored too, because a later model may know them.

        Returns:
            The body of the answer.

        Raises:
            StoreUnavailable: The batch was not acknowledged; some of it may be stored.
        """
        batch: dict[Subject, list[NewEvent]] = {}
        for event in request.events:
            subject = self._ids.subject(event.user_id, event.session_id)
            assert subject is not None  # noqa: S101 - the schema requires one of the two ids
            batch.setdefault(subject, []).append(self._new_event(event))
        epoch = self._write_behind.erasure_epoch
        try:
            with tracing.span("store", None, "append"):
                results = await self._store.append_many(list(batch.items()))
        except StoreUnavailable:
            self._metrics.events.labels("failed").inc(len(request.events))
            self._metrics.redis_errors.labels("append").inc()
            raise
        self._recorder.happened(batch)
        self._watch.happened(
            SeenEvent(place_of(subject.tag), event.type, event.item_id, event.list_id)
            for subject, events in batch.items()
            for event in events
        )
        model = self._model()
        for (subject, events), result in zip(batch.items(), results, strict=True):
            model, _ = self._answers(subject)
            self._write_behind.appended(subject, model, events, result, epoch)
        accepted, duplicates = sum(r.accepted for r in results), sum(r.duplicates for r in results)
        self._metrics.events.labels("accepted").inc(accepted)
        self._metrics.events.labels("duplicate").inc(duplicates)
        self._late(sum(r.late for r in results))
        return {
            "accepted": accepted,
            "duplicates": duplicates,
            "unknown_items": self._unknown(request),
            "warnings": self._warnings(request, [name for result in results for name in result.reused]),
        }

    async def merge(self, request: MergeRequest) -> dict[str, Any]:
        """Moves the history of an anonymous session to the user who logged in.

        The merge is recorded first: an erasure of the user finds what was recorded of the session by that record, so
        there must be no merge without it.
        """
        session, user = self._ids.named("session", request.session_id), self._ids.named("user", request.user_id)
        try:
            await self._recorder.merged(session, user)
            moved = await self._store.merge(session, user, self._late)
        except StoreUnavailable:
            self._metrics.redis_errors.labels("merge").inc()
            raise
        finally:
            self._write_behind.forget(session)
        return {"merged": moved}

    async def show(self, user_id: str, now_ms: int) -> dict[str, Any]:
        """Returns a user's stored history, newest event last, and features.

        Args:
            user_id: The id that the caller uses.
            now_ms: The time at which the user's segment is evaluated, in epoch milliseconds.

        Raises:
            NotFound: Nothing is stored for this user.
            StoreUnavailable: Redis did not answer.
        """
        subject = self._ids.named("user", user_id)
        model, policies = self._answers(subject)
        try:
            record = await self._store.read(subject, model.encoder_version.name)
        except StoreUnavailable:
            self._metrics.redis_errors.labels("read").inc()
            raise
        if record.missing is not None:
            self._metrics.histories_missing.labels(record.missing).inc()
        if not record.version and not record.events and not record.features.values:
            raise NotFound("nothing is stored for this user")
        segment = policies.choose(Profile(None, model, record).facts(now_ms))
        history = [
            {
                "item_id": e.item_id or None,
                "type": e.type,
                "timestamp_ms": e.time_ms,
                "event_id": e.event_id,
                "query": e.query or None,
            }
            for e in record.events
        ]
        return {
            "user_id": user_id,
            "history": history,
            "seen_before": list(dict.fromkeys(record.seen.item_ids())),
            "segment": segment.name,
            "version": record.version,
            "features": dict(record.features.values),
        }

    async def erase(self, user_id: str) -> dict[str, Any]:
        """Deletes a user from Redis and from the memory of every replica.

        Returns:
            The body of the answer, with the number of Redis keys, and of entries of the streams, deleted.
        """
        traces = self._ids.traces(user_id)
        try:
            for subject in traces:
                await self._store.pages.erased(subject_name(subject))
            deleted = sum([await self._store.erase(subject) for subject in traces])
            entries = sum([await self._store.encoding.erase(subject) for subject in traces])
            entries += await self._stream_erasure.erase(traces)
            return {"user_id": user_id, "deleted": deleted, "entries": entries}
        except StoreUnavailable:
            self._metrics.redis_errors.labels("erase").inc()
            raise
        finally:
            for subject in traces:
                self._write_behind.forget(subject)

    def _late(self, events: int) -> None:
        """Counts events that came too late for a state that remembers what the log no longer keeps."""
        if events:
            self._metrics.events.labels("before_checkpoint").inc(events)

    def _unknown(self, request: EventsRequest) -> list[str]:
        known = self._model().known
        ids = {event.item_id: None for event in request.events if event.item_id is not None}
        return [item_id for item_id in ids if not known(item_id)]

    def _warnings(self, request: EventsRequest, reused: list[str]) -> list[str]:
        """The warnings of the answer.

        Args:
            request: The batch.
            reused: Stored ids of the duplicates that came before with another item or type.
        """
        warnings = Warnings()
        warnings.unless_empty(
            'stored, but the model reads these event types as "other"',
            (event.type for event in request.events if not known_type(event.type)),
        )
        if reused:
            given = {self._ids.event_id(event.event_id): event.event_id for event in request.events if event.event_id}
            warnings.unless_empty(
                "not stored, because these event ids came before with another item or type; give each event its own id",
                (given.get(name) or name for name in reused),
            )
        return warnings.texts

    def _kept_query(self, event: Event) -> str:
        """The text of a search without an item, where the history keeps searches."""
        search = self._keep_searches and event.type == "search" and event.item_id is None
        return kept_query(event.query or "") if search else ""

    def _new_event(self, event: Event) -> NewEvent:
        return NewEvent(
            item_id=event.item_id,
            type=event.type,
            time_ms=event.timestamp,
            event_id=self._ids.event_id(event.event_id),
            value=event.value,
            query=event.query,
            kept_query=self._kept_query(event),
            request_id=event.request_id,
            list_id=event.list_id,
            session=self._ids.session_mark(event.session_id) if self._keep_sessions else "",
        )
