"""A value that operators set and every replica goes by: the model in service, the decoding policies.

It is kept as the mode is (`service.coordination.forced_mode`): in Redis, with its audit entry written in the same step; published, and
polled behind that; in a file of this process for restarts while Redis is away. Changes can be made without Redis, and
when it is back the newest wins: the higher version, then the later time. What the value says, its owner knows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from service.common.atomic_files import write_aside
from service.common.errors import StoreUnavailable
from service.coordination.clock import iso

# Changes that others make at the same moment take a version first; more than this is no coincidence.
_TRIES = 16


class SharedStore(Protocol):
    """The part of `service.store.store.Store` that a shared value needs."""

    async def read_shared(self, name: str) -> tuple[float, tuple[int, int, bytes] | None]: ...
    async def write_shared(
        self, name: str, version: int, changed_at_ms: int, body: bytes, *, audit: bytes = b""
    ) -> tuple[float, tuple[int, int, bytes]]: ...


class Audit(Protocol):
    """The part of `service.coordination.forced_mode.ModeKeeper` that a shared value needs: the clock and the audit."""

    def now(self) -> float: ...
    def entry(self, actor: str, action: str, details: dict[str, Any]) -> bytes: ...
    def keep_for_later(self, entry: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Choice:
    """`fields` is what was chosen; `version` counts the changes, 0 where nobody ever made one."""

    fields: dict[str, Any]
    actor: str | None = None
    reason: str | None = None
    version: int = 0
    changed_at_ms: int = 0

    @property
    def age(self) -> tuple[int, int]:
        """Of two choices the one with the greater age key is the newer."""
        return self.version, self.changed_at_ms

    def stored(self) -> tuple[int, int, bytes]:
        body = {"fields": self.fields, "actor": self.actor, "reason": self.reason}
        return self.version, self.changed_at_ms, orjson.dumps(body)

    @classmethod
    def parse(cls, stored: tuple[int, int, bytes]) -> Choice | None:
        """None where the stored body is damaged."""
        version, changed_at_ms, text = stored
        try:
            body = orjson.loads(text)
            fields, actor, reason = body["fields"], body["actor"], body["reason"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return None
        named = all(said is None or isinstance(said, str) for said in (actor, reason))
        return cls(fields, actor, reason, version, changed_at_ms) if isinstance(fields, dict) and named else None

    def to_json(self) -> dict[str, Any]:
        return {
            "actor": self.actor,
            "reason": self.reason,
            "changed_at": iso(self.changed_at_ms / 1000) if self.version else None,
            "version": self.version,
        }


class Shared:
    """This replica's copy of one shared value. `service.coordination.forced_mode.ModeKeeper` calls `refresh`, or `away`, at every exchange.

    `usable(fields)` says whether a value can be gone by: what another release wrote may not be. `adopted()` is called
    after every change of `choice`.
    """

    def __init__(
        self,
        store: SharedStore,
        name: str,
        audit: Audit,
        *,
        usable: Callable[[dict[str, Any]], bool],
        copy: Path | None,
    ) -> None:
        self._store, self._name, self._audit, self._copy = store, name, audit, copy
        self._usable = usable
        self.adopted: Callable[[], None] = lambda: None
        self._stored: tuple[int, int, bytes] | None = None
        self._in_sync = False
        self.choice = self._load() or Choice({})

    @property
    def shared(self) -> bool:
        """Whether Redis has what holds here. If not, other replicas may go by another value, and this one is shared
        when Redis is back."""
        return self._in_sync and (not self.choice.version or self._stored == self.choice.stored())

    async def set(self, fields: dict[str, Any], *, actor: str, reason: str | None, details: dict[str, Any]) -> Choice:
        """Change the value everywhere. With Redis away it holds here, and is shared when Redis is back. `details` are
        for the audit."""
        known = self.choice.version
        for _ in range(_TRIES):
            choice = self._choice(fields, actor, reason, known + 1)
            entry = self._audit.entry(actor, self._name, {**details, **choice.to_json()})
            try:
                _, stored = await self._store.write_shared(self._name, *choice.stored(), audit=entry)
            except StoreUnavailable:
                break
            self._in_sync, self._stored = True, stored
            if stored == choice.stored():
                self._adopt_newer(choice)
                return choice
            known = max(stored[0], self.choice.version)
        choice = self._choice(fields, actor, reason, self.choice.version + 1)
        self._in_sync = False
        self._adopt(choice)
        self._audit.keep_for_later(self._audit.entry(actor, self._name, {**details, **choice.to_json()}))
        return choice

    async def refresh(self) -> None:
        """One exchange with Redis: adopt what is newer there, share what is newer here. Raises StoreUnavailable."""
        _, stored = await self._store.read_shared(self._name)
        theirs = Choice({}) if stored is None else Choice.parse(stored)
        if theirs is not None and theirs.age < self.choice.age:
            _, stored = await self._store.write_shared(self._name, *self.choice.stored())
            theirs = Choice.parse(stored)
        self._in_sync, self._stored = True, stored
        if theirs is not None:
            self._adopt_newer(theirs)

    def away(self) -> None:
        """Redis does not answer: another worker of this data folder may have been told meanwhile."""
        self._in_sync = False
        theirs = self._load()
        if theirs is not None and theirs.age > self.choice.age:
            self.choice = theirs
            self.adopted()

    def _choice(self, fields: dict[str, Any], actor: str, reason: str | None, version: int) -> Choice:
        return Choice(fields, actor, reason, version, int(self._audit.now() * 1000))

    def _adopt_newer(self, choice: Choice) -> None:
        """At the same age Redis's is taken: two changes of one millisecond must not divide the replicas."""
        if choice.age >= self.choice.age and choice != self.choice and self._usable(choice.fields):
            self._adopt(choice)

    def _adopt(self, choice: Choice) -> None:
        self.choice = choice
        self._save()
        self.adopted()

    def _save(self) -> None:
        """Best effort: a full disk must not keep an operator from changing something."""
        if self._copy is None:
            return
        version, changed_at_ms, body = self.choice.stored()
        with contextlib.suppress(OSError):
            self._copy.parent.mkdir(parents=True, exist_ok=True)
            write_aside(self._copy, orjson.dumps([version, changed_at_ms, body.decode()]))

    def _load(self) -> Choice | None:
        if self._copy is None:
            return None
        try:
            version, changed_at_ms, body = orjson.loads(self._copy.read_bytes())
            choice = Choice.parse((int(version), int(changed_at_ms), body.encode()))
        except (OSError, ValueError, TypeError, AttributeError):
            return None
        return choice if choice is not None and self._usable(choice.fields) else None
