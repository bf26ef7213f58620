"""The forced mode (`auto`, `fallback`, `model`), shared by every replica.

The mode lives in Redis. A change is published, and a poll behind the subscription finds what was missed.
While Redis is away each replica goes on with its copy, in which changes can still be made; when Redis is
back, the newest change wins: the higher version, then the later time. The copy may be kept in a file as well,
so that a forced mode outlives a restart during an outage.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, get_args

import orjson

from service.errors import StoreUnavailable
from service.guard import ModeName

_PENDING_AUDIT_MAX = 100


class ModeStore(Protocol):
    """The part of `service.store.Store` that a mode needs."""

    async def read_mode(self) -> tuple[int, int, bytes] | None: ...
    async def write_mode(
        self, version: int, changed_at_ms: int, body: bytes, *, force: bool, audit: bytes = b""
    ) -> tuple[int, int, bytes]: ...
    def mode_changes(self) -> AsyncGenerator[bytes, None]: ...
    async def append_audit(self, entry: bytes) -> None: ...
    async def read_audit(self, limit: int) -> list[bytes]: ...


@dataclass(frozen=True, slots=True)
class Mode:
    """`expires_at` in epoch seconds; `version` counts the changes, 0 where nobody ever made one."""

    mode: ModeName = "auto"
    reason: str | None = None
    actor: str | None = None
    expires_at: float | None = None
    version: int = 0
    changed_at_ms: int = 0

    @property
    def age(self) -> tuple[int, int]:
        """Of two modes the one with the greater age key is the newer."""
        return self.version, self.changed_at_ms

    def body(self) -> bytes:
        return orjson.dumps(
            {"mode": self.mode, "reason": self.reason, "actor": self.actor, "expires_at": self.expires_at}
        )

    @classmethod
    def parse(cls, stored: tuple[int, int, bytes]) -> Mode | None:
        """None where the stored body is damaged or of a mode this release does not know."""
        version, changed_at_ms, body = stored
        try:
            fields = orjson.loads(body)
            mode = cls(version=version, changed_at_ms=changed_at_ms, **fields)
        except (orjson.JSONDecodeError, TypeError):
            return None
        expires_at = mode.expires_at
        usable = expires_at is None or (isinstance(expires_at, int | float) and not isinstance(expires_at, bool))
        return mode if usable and mode.mode in get_args(ModeName) else None

    def to_json(self) -> dict[str, Any]:
        return {
            "mode": self.mode, "reason": self.reason, "actor": self.actor, "version": self.version,
            "expires_at": _iso(self.expires_at),
            "changed_at": _iso(self.changed_at_ms / 1000) if self.version else None,
        }  # fmt: skip


class ModeKeeper:
    """This replica's copy of the mode. Run `run` beside the service; `current` is read for every request."""

    def __init__(
        self,
        store: ModeStore,
        *,
        poll_s: float = 0.5,
        copy: Path | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._poll_s = poll_s
        self._copy = copy
        self._now = wall_clock
        self._mode = _load(copy) or Mode()
        self._pending_audit: list[bytes] = []
        self._wake = asyncio.Event()
        self.in_sync = False
        """Whether the last exchange with Redis worked."""

    @property
    def mode(self) -> Mode:
        """What holds now: an expired mode is `auto`."""
        mode = self._mode
        if mode.expires_at is not None and self._now() >= mode.expires_at:
            return Mode(version=mode.version, changed_at_ms=mode.changed_at_ms)
        return mode

    def current(self) -> ModeName:
        return self.mode.mode

    async def set(self, mode: ModeName, *, reason: str | None, actor: str, expires_in_s: float | None = None) -> Mode:
        """Change the mode everywhere. With Redis away it holds here, and is shared when Redis is back."""
        now = self._now()
        expires_at = None if expires_in_s is None else now + expires_in_s
        change = Mode(mode, reason, actor, expires_at, self._mode.version + 1, int(now * 1000))
        entry = self._entry(actor, "fallback", change.to_json())
        try:
            stored = await self._store.write_mode(
                change.version, change.changed_at_ms, change.body(), force=True, audit=entry
            )
            self.in_sync = True
            self._adopt(Mode.parse(stored) or change)
        except StoreUnavailable:
            self.in_sync = False
            self._adopt(change)
            self._keep_for_later(entry)
        return self.mode

    async def refresh(self) -> None:
        """One exchange with Redis: adopt what is newer there, share what is newer here.

        Raises StoreUnavailable.
        """
        try:
            stored = await self._store.read_mode()
            theirs = Mode.parse(stored) if stored is not None else Mode()
            if theirs is not None and theirs.age < self._mode.age:
                ours = self._mode
                stored = await self._store.write_mode(ours.version, ours.changed_at_ms, ours.body(), force=False)
                theirs = Mode.parse(stored)
            if theirs is not None and theirs.age > self._mode.age:
                self._adopt(theirs)
            while self._pending_audit:
                await self._store.append_audit(self._pending_audit[0])
                self._pending_audit.pop(0)
        except StoreUnavailable:
            self.in_sync = False
            raise
        self.in_sync = True

    async def run(self) -> None:
        """Follow the shared mode until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poll())
            group.create_task(self._listen())

    async def record(self, actor: str, action: str, details: dict[str, Any]) -> None:
        """Audit a change other than of the mode; kept here while Redis is away."""
        entry = self._entry(actor, action, details)
        try:
            await self._store.append_audit(entry)
        except StoreUnavailable:
            self._keep_for_later(entry)

    async def audit(self, limit: int = 100) -> list[dict[str, Any]]:
        """The latest changes, newest first. With Redis away: those that wait to be shared."""
        pending = self._pending_audit[::-1]
        try:
            shared = await self._store.read_audit(limit)
        except StoreUnavailable:
            shared = []
        # An entry whose first write was not acknowledged may be there twice; what is no entry is left out.
        entries: dict[str, dict[str, Any]] = {}
        for text in (*pending, *shared):
            with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
                entry = orjson.loads(text)
                entries[entry["id"]] = entry
        return list(entries.values())[:limit]

    async def _poll(self) -> None:
        while True:
            self._wake.clear()
            with contextlib.suppress(StoreUnavailable):
                await self.refresh()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._wake.wait()

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(StoreUnavailable):
                async with contextlib.aclosing(self._store.mode_changes()) as changes:
                    async for _ in changes:
                        self._wake.set()
            await asyncio.sleep(self._poll_s)

    def _adopt(self, mode: Mode) -> None:
        self._mode = mode
        if self._copy is not None:
            _save(self._copy, mode)

    def _entry(self, actor: str, action: str, details: dict[str, Any]) -> bytes:
        return orjson.dumps(
            {"id": uuid.uuid4().hex, "at": _iso(self._now()), "actor": actor, "action": action, **details}
        )

    def _keep_for_later(self, entry: bytes) -> None:
        self._pending_audit.append(entry)
        del self._pending_audit[:-_PENDING_AUDIT_MAX]


def _iso(epoch_s: float | None) -> str | None:
    return None if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds")


def _save(path: Path, mode: Mode) -> None:
    """Best effort: a full disk must not keep an operator from forcing the fallback."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Several workers may share the file: each writes aside under a name of its own.
        aside = path.with_name(f"{path.name}.{os.getpid()}")
        aside.write_bytes(orjson.dumps([mode.version, mode.changed_at_ms, mode.body().decode()]))
        aside.replace(path)


def _load(path: Path | None) -> Mode | None:
    if path is None:
        return None
    try:
        version, changed_at_ms, body = orjson.loads(path.read_bytes())
        return Mode.parse((int(version), int(changed_at_ms), body.encode()))
    except (OSError, ValueError, TypeError, AttributeError):
        return None
