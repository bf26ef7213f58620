"""Stores who a user or session is, for lists whose requests do not say it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service.common.answer_warnings import Warnings
from service.common.errors import StoreUnavailable
from service.common.request_errors import NotFound
from service.history.event_warnings import slot_warnings
from service.history.pseudonyms import Pseudonyms
from service.history.write_behind import WriteBehind
from service.lifecycle.served_model import ServedModel
from service.metrics.service_metrics import Metrics
from service.store.records import Kind, Subject
from service.store.store import Store
from service.store.user_features import UserFeatures, Values


class Features:
    """Writes, shows and deletes stored features on behalf of a frontend.

    Every method raises StoreUnavailable. A write may then have happened or not; repeating it is safe.
    """

    def __init__(
        self,
        store: Store,
        model: Callable[[Subject], ServedModel],
        write_behind: WriteBehind,
        metrics: Metrics,
        ids: Pseudonyms,
    ) -> None:
        """Uses `model` to find the model that answers a subject."""
        self._store, self._model, self._write_behind = store, model, write_behind
        self._metrics, self._ids = metrics, ids

    async def put(self, kind: Kind, caller_id: str, values: Values) -> dict[str, Any]:
        """Stores features in place of those before.

        Args:
            kind: Whether it is a user or a session.
            caller_id: The id that the caller uses.
            values: The features by name; none deletes them.

        Returns:
            The body of the answer. It names what the model does not know, which is stored all the same.
        """
        subject = self._ids.named(kind, caller_id)
        await self._write(subject, values)
        warnings = Warnings()
        slot_warnings(warnings, "features", values, self._model(subject).vocabulary.context)
        return {**_whose(kind, caller_id), "features": dict(values), "warnings": warnings.texts}

    async def show(self, kind: Kind, caller_id: str) -> dict[str, Any]:
        """Returns the stored features; arguments as of `put`.

        Raises:
            NotFound: None are stored.
        """
        subject = self._ids.named(kind, caller_id)
        try:
            stored: UserFeatures = await self._store.read_features(subject)
        except StoreUnavailable:
            self._metrics.redis_errors.labels("read").inc()
            raise
        if not stored.values:
            raise NotFound(f"no features are stored for this {kind}")
        return {**_whose(kind, caller_id), "features": dict(stored.values), "warnings": []}

    async def delete(self, kind: Kind, caller_id: str) -> dict[str, Any]:
        """Deletes the stored features and nothing else; arguments as of `put`."""
        subjects = self._ids.traces(caller_id) if kind == "user" else [self._ids.named(kind, caller_id)]
        deleted = [await self._write(subject, {}) for subject in subjects]
        return {**_whose(kind, caller_id), "deleted": any(deleted)}

    async def _write(self, subject: Subject, values: Values) -> bool:
        try:
            written = await self._store.write_features(subject, values)
        except StoreUnavailable:
            self._metrics.redis_errors.labels("write_features").inc()
            raise
        self._write_behind.features_changed(subject, self._model(subject))
        return written


def _whose(kind: Kind, caller_id: str) -> dict[str, str | None]:
    return {"user_id": caller_id if kind == "user" else None, "session_id": caller_id if kind == "session" else None}
