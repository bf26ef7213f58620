"""Events into the store: acknowledged means written, as durably as the settings ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service.common.errors import NotFound, RequestError, StoreUnavailable
from service.common.metrics import Metrics
from service.history.profile import Profile
from service.history.pseudonyms import Pseudonyms
from service.history.write_behind import WriteBehind
from service.lifecycle.served_model import ServedModel
from service.policies.policies import PolicyBook
from service.schemas.requests import Event, EventsRequest, MergeRequest, parse
from service.store.records import NewEvent, Subject
from service.store.store import Store


class Ingest:
    """What a frontend may do to histories. Every method raises StoreUnavailable and then promises nothing."""

    def __init__(
        self,
        store: Store,
        model: Callable[[], ServedModel],
        behind: WriteBehind,
        policies: PolicyBook,
        metrics: Metrics,
        ids: Pseudonyms,
    ) -> None:
        self._ids = ids
        self._store = store
        self._behind = behind
        self._model = model
        self._policies = policies
        self._metrics = metrics

    def parse(self, raw: bytes, latest_ms: int) -> EventsRequest:
        """A batch that is valid as a whole. Raises BadRequest or InvalidRequest with every bad event."""
        try:
            return parse(EventsRequest, raw, latest_ms=latest_ms)
        except RequestError:
            self._metrics.events.labels("rejected").inc()
            raise

    async def append(self, request: EventsRequest) -> dict[str, Any]:
        """Stores a batch in one round trip; unknown items are kept, because a later model may know them."""
        batch: dict[Subject, list[NewEvent]] = {}
        for event in request.events:
            who = self._ids.subject(event.user_id, event.session_id)
            assert who is not None  # noqa: S101 - the schema asks for one of them
            batch.setdefault(who, []).append(self._new_event(event))
        erasures = self._behind.erasures
        try:
            results = await self._store.append_many(list(batch.items()))
        except StoreUnavailable:
            self._metrics.events.labels("failed").inc(len(request.events))
            self._metrics.redis_errors.labels("append").inc()
            raise
        model = self._model()
        for (who, events), result in zip(batch.items(), results, strict=True):
            self._behind.appended(who, model, events, result, erasures)
        accepted, duplicates = sum(r.accepted for r in results), sum(r.duplicates for r in results)
        self._metrics.events.labels("accepted").inc(accepted)
        self._metrics.events.labels("duplicate").inc(duplicates)
        return {"accepted": accepted, "duplicates": duplicates, "unknown_items": self._unknown(request)}

    async def merge(self, request: MergeRequest) -> dict[str, Any]:
        """Moves an anonymous history to the user who logged in."""
        session, user = self._ids.named("session", request.session_id), self._ids.named("user", request.user_id)
        try:
            return {"merged": await self._store.merge(session, user)}
        except StoreUnavailable:
            self._metrics.redis_errors.labels("merge").inc()
            raise
        finally:
            self._behind.forget(session)

    async def show(self, user_id: str, now_ms: int) -> dict[str, Any]:
        """A user's kept history, newest last.

        Raises:
            NotFound: nothing is stored of this user.
        """
        model = self._model()
        try:
            record = await self._store.read(self._ids.named("user", user_id), model.version)
        except StoreUnavailable:
            self._metrics.redis_errors.labels("read").inc()
            raise
        if not record.version:
            raise NotFound("nothing is stored of this user")
        segment = self._policies.current.choose(Profile(None, model, record).facts(now_ms))
        history = [
            {"item_id": e.item_id, "type": e.type, "timestamp_ms": e.time_ms, "event_id": e.event_id}
            for e in record.events
        ]
        return {"user_id": user_id, "history": history, "segment": segment.name, "version": record.version}

    async def erase(self, user_id: str) -> dict[str, Any]:
        """Deletes every key of the user, here and in the memory of every replica, and says how many there were."""
        traces = self._ids.traces(user_id)
        try:
            return {"user_id": user_id, "deleted": sum([await self._store.erase(subject) for subject in traces])}
        except StoreUnavailable:
            self._metrics.redis_errors.labels("erase").inc()
            raise
        finally:
            for subject in traces:
                self._behind.forget(subject)

    def _unknown(self, request: EventsRequest) -> list[str]:
        known = self._model().known
        ids = {event.item_id: None for event in request.events if event.item_id is not None}
        return [item_id for item_id in ids if not known(item_id)]

    def _new_event(self, event: Event) -> NewEvent:
        return NewEvent(
            item_id=event.item_id,
            type=event.type,
            time_ms=event.timestamp,
            event_id=self._ids.event_id(event.event_id),
            value=event.value,
            query=event.query,
            request_id=event.request_id,
        )
