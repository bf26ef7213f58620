"""The audit of what operators changed: who, when, what and why. A capped list in Redis.

Entries that Redis did not accept are kept here and written once it is back.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import orjson

from service.common.errors import StoreUnavailable
from service.coordination.clock import SharedClock, iso

_PENDING_MAX = 100


class AuditStore(Protocol):
    """The part of `service.store.store.Store` that the audit needs."""

    async def append_audit(self, entry: bytes) -> None:
        """Appends an entry. Raises StoreUnavailable."""
        ...

    async def read_audit(self, limit: int) -> list[bytes]:
        """Returns the entries that were appended last, newest first. Raises StoreUnavailable."""
        ...


class Audit:
    """Writes and reads the audit. `pending` are the entries that wait for Redis, oldest first."""

    def __init__(self, store: AuditStore, clock: SharedClock) -> None:
        self._store, self._clock = store, clock
        self._observers: list[Callable[[], None]] = []
        self.pending: list[bytes] = []

    def subscribe(self, observer: Callable[[], None]) -> None:
        """Calls `observer` after every change of `pending`, so that it can be saved."""
        self._observers.append(observer)

    def entry(self, actor: str, action: str, details: dict[str, Any], entry_id: str = "") -> bytes:
        """Makes an entry, to be written together with a change or kept for later.

        Args:
            actor: Name of the operator.
            action: What kind of thing was changed.
            details: More fields of the entry.
            entry_id: Identity of the entry. When a write has to be repeated, the same one must be given, because the
                first attempt may have reached Redis.
        """
        head = {"id": entry_id or uuid.uuid4().hex, "at": iso(self._clock()), "actor": actor, "action": action}
        return orjson.dumps({**head, **details})

    async def record(self, actor: str, action: str, details: dict[str, Any]) -> None:
        """Adds an entry for something that is not a shared value; keeps it while Redis is away."""
        entry = self.entry(actor, action, details)
        try:
            await self._store.append_audit(entry)
        except StoreUnavailable:
            self.keep(entry)

    async def read(self, limit: int = 100) -> list[dict[str, Any]]:
        """Returns the latest entries, newest first; while Redis is away, only those that wait for it."""
        try:
            written = await self._store.read_audit(limit)
        except StoreUnavailable:
            written = []
        # An entry whose first write was not acknowledged may be there twice; malformed entries are left out.
        entries: dict[str, dict[str, Any]] = {}
        for text in (*self.pending[::-1], *written):
            with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
                entry = orjson.loads(text)
                entries[entry["id"]] = {**entry, "at": str(entry["at"])}
        # Sorted, because an entry that waited for Redis was written later than it happened. The clock does not run
        # backwards and the sort is stable, so entries of one replica stay in the order in which they were made.
        return sorted(entries.values(), key=lambda entry: entry["at"], reverse=True)[:limit]

    def keep(self, entry: bytes) -> None:
        """Keeps an entry that Redis did not accept; it is written when Redis is back."""
        self.pending.append(entry)
        del self.pending[:-_PENDING_MAX]
        self._notify()

    def restore(self, pending: Sequence[bytes]) -> None:
        """Takes over the entries that were pending when the process last ended, oldest first."""
        self.pending = list(pending)

    async def write_pending(self) -> None:
        """Writes the pending entries to Redis. Raises StoreUnavailable."""
        if not self.pending:
            return
        while self.pending:
            entry = self.pending[0]
            await self._store.append_audit(entry)
            if self.pending and self.pending[0] is entry:
                self.pending.pop(0)
        self._notify()

    def _notify(self) -> None:
        for observer in self._observers:
            observer()
