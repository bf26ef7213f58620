"""A value that operators set and every replica follows.

The value lives in Redis as a body, a version and the time of the change. A change is a compare-and-set on the version,
and its audit entry is written in the same step. It is published, and a poll finds what the subscription missed
(`service.coordination.exchange`).

While Redis is away, every replica uses its own copy, which can still be changed. When Redis is back, the newest change
wins: the higher version, then the later time. The copy may also be kept in a file, so that the value survives a restart
during an outage, and so that workers which share the file agree in the meantime.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import orjson

from service.common.atomic_files import write_aside
from service.common.errors import StoreUnavailable
from service.coordination.audit import Audit
from service.coordination.clock import SharedClock
from service.process.disk_lane import DiskLane

# Concurrent changes may take a version first. Losing more often than this is not a coincidence.
_ATTEMPTS = 16

Stored = tuple[int, int, bytes]
"""A value as Redis has it: version, time of the change in epoch milliseconds, body."""


class Versioned(Protocol):
    """What a shared value's type must offer. `version` counts the changes; it is 0 if there was none."""

    @property
    def version(self) -> int:
        """Number of changes so far."""
        ...

    @property
    def changed_at_ms(self) -> int:
        """Time of the last change, epoch milliseconds."""
        ...

    def body(self) -> bytes:
        """Returns the value without its version, as Redis has it."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Returns the value for its audit entry."""
        ...


class SharedStore(Protocol):
    """The part of `service.store.store.Store` that a shared value needs."""

    async def read_shared(self, name: str) -> tuple[float, Stored | None]:
        """Returns Redis's clock, epoch seconds, and the stored value. Raises StoreUnavailable."""
        ...

    async def write_shared(
        self, name: str, version: int, changed_at_ms: int, body: bytes, *, audit: bytes = b""
    ) -> tuple[float, Stored]:
        """Stores a value if it is newer, with its audit entry; returns Redis's clock and what is stored afterwards.

        Raises StoreUnavailable.
        """
        ...


V = TypeVar("V", bound=Versioned)

# The event loop waits for the disk of the copies, but no longer than this, and not again while it hangs.
_COPY_PATIENCE_S = 0.25


def age_of(value: Versioned) -> tuple[int, int]:
    """Returns the sort key by which the newer of two values is the greater."""
    return value.version, value.changed_at_ms


def stored_form(value: Versioned) -> Stored:
    """Returns a value as Redis has it."""
    return value.version, value.changed_at_ms, value.body()


class SharedValue(Generic[V]):
    """This replica's copy of one shared value.

    Args:
        store: Redis.
        name: Name of the value in Redis.
        clock: The clock that the replicas share.
        audit: Where changes are recorded.
        action: Name of a change in the audit.
        initial: The value before the first change.
        parse: Reads a stored value; None if it is damaged.
        usable: Whether this release can use a value: another release may have written it.
        copy: File for the copy; None for no file.
    """

    def __init__(
        self,
        store: SharedStore,
        name: str,
        clock: SharedClock,
        audit: Audit,
        *,
        action: str,
        initial: V,
        parse: Callable[[Stored], V | None],
        usable: Callable[[V], bool] = lambda _: True,
        copy: Path | None = None,
    ) -> None:
        self._store, self._name, self._clock, self._audit = store, name, clock, audit
        self._action, self._initial, self._parse, self._usable = action, initial, parse, usable
        self._copy, self._lane = copy, DiskLane(f"copy of {name}", patience_s=_COPY_PATIENCE_S)
        self._observers: list[Callable[[], None]] = []
        self._in_redis: V | None = None  # at the last exchange; None if it was damaged
        self.in_sync = False
        """Whether the last exchange with Redis succeeded."""
        self._value = self._load() or initial

    @property
    def shared(self) -> bool:
        """Whether Redis has this replica's value.

        If not, other replicas may use another one, and this one is written when Redis is back.
        """
        return self.in_sync and (not self._value.version or self._in_redis == self._value)

    def subscribe(self, observer: Callable[[], None]) -> None:
        """Calls `observer` after every change of the value, on this replica or another."""
        self._observers.append(observer)

    async def refresh(self) -> None:
        """Exchanges the value with Redis: adopts a newer one from there, writes a newer one from here.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        try:
            theirs = await self._read()
            if theirs is not None and age_of(theirs) < age_of(self._value):
                theirs = self._parse(await self._write(self._value))
        except StoreUnavailable:
            self.away()
            raise
        self.in_sync = True
        if theirs is not None:
            self._adopt_newer(theirs)

    def away(self) -> None:
        """Redis does not answer: adopts what another worker with the same copy file may have been given meanwhile."""
        self.in_sync = False
        theirs = self._load()
        if theirs is not None and age_of(theirs) > age_of(self._value):
            self._value = theirs
            self._notify()

    async def _change(self, make: Callable[[int, float], V], *, actor: str, details: dict[str, Any]) -> V:
        """Changes the value everywhere. While Redis is away, the change holds here and is written later.

        Args:
            make: Makes the new value from its version and the time, in epoch seconds of the shared clock.
            actor: Name of the operator, for the audit.
            details: More fields of the audit entry.
        """
        entry_id = uuid.uuid4().hex
        if not self._clock.heard_once:
            with contextlib.suppress(StoreUnavailable):
                await self.refresh()
        known = self._value.version
        for _ in range(_ATTEMPTS if self._clock.heard_once else 0):
            value = make(known + 1, self._clock())
            try:
                stored = await self._write(value, self._entry(value, actor, details, entry_id))
            except StoreUnavailable:
                break
            self.in_sync = True
            if stored == stored_form(value):
                self._adopt_newer(value)
                return value
            known = max(stored[0], self._value.version)
            if self._in_redis is not None:
                self._adopt_newer(self._in_redis)  # so that `make` builds on what won
        # Newer than anything that was adopted in the meantime.
        value = make(self._value.version + 1, self._clock())
        self._hold(value)
        self._audit.keep(self._entry(value, actor, details, entry_id))
        return value

    async def _read(self) -> V | None:
        asked_s = self._clock.stamp()
        server_s, stored = await self._store.read_shared(self._name)
        self._heard(server_s, asked_s)
        self._in_redis = self._initial if stored is None else self._parse(stored)
        return self._in_redis

    async def _write(self, value: V, audit: bytes = b"") -> Stored:
        asked_s = self._clock.stamp()
        server_s, stored = await self._store.write_shared(self._name, *stored_form(value), audit=audit)
        self._heard(server_s, asked_s)
        self._in_redis = self._parse(stored)
        return stored

    def _heard(self, server_s: float, asked_s: float) -> None:
        self._clock.heard(server_s, asked_s)

    def _hold(self, value: V) -> None:
        """Adopts a change that Redis did not accept."""
        self.in_sync = False
        self._adopt(value)

    def _entry(self, value: V, actor: str, details: dict[str, Any], entry_id: str) -> bytes:
        return self._audit.entry(actor, self._action, {**details, **value.to_json()}, entry_id)

    def _adopt_newer(self, value: V) -> None:
        """Adopts Redis's value at the same age too: two changes of one millisecond must not divide the replicas."""
        if age_of(value) >= age_of(self._value) and value != self._value and self._usable(value):
            self._adopt(value)

    def _adopt(self, value: V) -> None:
        self._value = value
        self._save()
        self._notify()

    def _notify(self) -> None:
        for observer in self._observers:
            observer()

    def _copy_fields(self) -> list[Any]:
        version, changed_at_ms, body = stored_form(self._value)
        return [version, changed_at_ms, body.decode()]

    def _save(self) -> None:
        """Best effort: a full disk must not keep an operator from changing something."""
        if self._copy is not None:
            with contextlib.suppress(OSError):
                self._lane.run_now(partial(_written, self._copy, orjson.dumps(self._copy_fields())))

    def _load(self) -> V | None:
        try:
            version, changed_at_ms, body, *_ = self._read_copy()
            value = self._parse((int(version), int(changed_at_ms), body.encode()))
        except (ValueError, TypeError, AttributeError):
            return None
        return value if value is not None and self._usable(value) else None

    def _read_copy(self) -> list[Any]:
        """Returns the fields of the copy file; empty if there is no such file, or it cannot be read."""
        try:
            fields = None if self._copy is None else orjson.loads(self._lane.run_now(self._copy.read_bytes))
        except (OSError, ValueError):
            return []
        return fields if isinstance(fields, list) else []


def _written(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, content)
