"""The forced mode (`auto`, `fallback`, `model`), shared by every replica.

The mode lives in Redis. A change is published, and a poll behind the subscription finds what was missed.
While Redis is away each replica goes on with its copy, in which changes can still be made; when Redis is
back, the newest change wins: the higher version, then the later time. The copy may be kept in a file as well,
so that a forced mode outlives a restart during an outage, and workers that share the file agree in one.

A mode expires by Redis's clock (`service.coordination.clock`), so it ends everywhere at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, get_args

import orjson

from service.common.atomic_files import write_aside
from service.common.errors import StoreUnavailable
from service.coordination.clock import SharedClock, iso
from service.guard.guard import ModeName

_PENDING_AUDIT_MAX = 100
# Changes that others make at the same moment take a version first; more than this is no coincidence.
_TRIES = 16
# After a failed exchange the next one comes sooner, by this part of the pause.
_RETRY_SHARE = 0.25


class ModeStore(Protocol):
    """The part of `service.store.store.Store` that a mode needs."""

    async def read_mode(self) -> tuple[float, tuple[int, int, bytes] | None]: ...
    async def write_mode(
        self, version: int, changed_at_ms: int, body: bytes, *, audit: bytes = b""
    ) -> tuple[float, tuple[int, int, bytes]]: ...
    def mode_changes(self) -> AsyncGenerator[bytes, None]: ...
    async def append_audit(self, entry: bytes) -> None: ...
    async def read_audit(self, limit: int) -> list[bytes]: ...


class Follower(Protocol):
    """Something else that replicas share: `service.coordination.shared_value.Shared`."""

    async def refresh(self) -> None: ...
    def away(self) -> None: ...


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

    def stored(self) -> tuple[int, int, bytes]:
        """As Redis keeps it: version, changed at in ms, body."""
        return self.version, self.changed_at_ms, self.body()

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
            "expires_at": iso(self.expires_at),
            "changed_at": iso(self.changed_at_ms / 1000) if self.version else None,
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
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._poll_s = poll_s
        self._copy = copy
        self._now = SharedClock(wall_clock, monotonic)
        self._mode, self._pending_audit = _load(copy) or (Mode(), [])
        self._stored_age = (-1, -1)  # of the mode that Redis had at the last exchange
        self._by_own_clock = False  # a change was made before Redis's clock was known
        self._wake = asyncio.Event()
        self.in_sync = False
        """Whether the last exchange with Redis worked."""
        self.followers: list[Follower] = []
        """What else is shared by the same exchanges."""

    def now(self) -> float:
        """Redis's clock, in epoch seconds, as far as it was heard."""
        return self._now()

    @property
    def mode(self) -> Mode:
        """What holds now: an expired mode is `auto`."""
        mode = self._mode
        if mode.expires_at is not None and self._now() >= mode.expires_at:
            return Mode(version=mode.version, changed_at_ms=mode.changed_at_ms)
        return mode

    @property
    def shared(self) -> bool:
        """Whether Redis has the mode that holds here. If not, other replicas may go by another one, and this one is
        shared when Redis is back."""
        return self.in_sync and self._stored_age >= self._mode.age

    def current(self) -> ModeName:
        return self.mode.mode

    def to_json(self) -> dict[str, Any]:
        """What holds now, and whether it is shared."""
        return {**self.mode.to_json(), "shared": self.shared}

    async def set(self, mode: ModeName, *, reason: str | None, actor: str, expires_in_s: float | None = None) -> Mode:
        """Change the mode everywhere. With Redis away it holds here, and is shared when Redis is back."""
        entry_id = uuid.uuid4().hex
        if not self._now.heard_once:
            with contextlib.suppress(StoreUnavailable):
                await self.refresh()
        known = self._mode.version
        for _ in range(_TRIES if self._now.heard_once else 0):
            change = self._change(known + 1, mode, reason, actor, expires_in_s)
            entry = self.entry(actor, "fallback", change.to_json(), entry_id)
            try:
                asked = self._now.stamp()
                server_s, stored = await self._store.write_mode(*change.stored(), audit=entry)
            except StoreUnavailable:
                break
            self._heard(server_s, asked, stored)
            self.in_sync = True
            if stored == change.stored():
                self._adopt_newer(change)
                return self.mode
            known = max(stored[0], self._mode.version)
        # Later than whatever was adopted meanwhile.
        change = self._change(self._mode.version + 1, mode, reason, actor, expires_in_s)
        self.in_sync = False
        self._by_own_clock = not self._now.heard_once
        self._adopt(change)
        self.keep_for_later(self.entry(actor, "fallback", change.to_json(), entry_id))
        return self.mode

    async def refresh(self) -> None:
        """One exchange with Redis: adopt what is newer there, share what is newer here.

        Raises StoreUnavailable.
        """
        try:
            asked = self._now.stamp()
            server_s, stored = await self._store.read_mode()
            self._heard(server_s, asked, stored)
            theirs = Mode() if stored is None else Mode.parse(stored)
            if theirs is not None and theirs.age < self._mode.age:
                asked = self._now.stamp()
                server_s, stored = await self._store.write_mode(*self._mode.stored())
                self._heard(server_s, asked, stored)
                theirs = Mode.parse(stored)
            if theirs is not None:
                self._adopt_newer(theirs)
            await self._share_audit()
        except StoreUnavailable:
            self.in_sync = False
            # Another worker may have been told meanwhile.
            theirs, _ = _load(self._copy) or (None, [])
            if theirs is not None and theirs.age > self._mode.age:
                self._mode = theirs
            raise
        self.in_sync = True

    async def exchange(self) -> None:
        """`refresh`, for the mode and for all else that is shared. Raises StoreUnavailable."""
        try:
            await self.refresh()
            for follower in self.followers:
                await follower.refresh()
        except StoreUnavailable:
            for follower in self.followers:
                follower.away()
            raise

    async def run(self) -> None:
        """Follow the shared mode until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poll())
            group.create_task(self._listen())

    async def record(self, actor: str, action: str, details: dict[str, Any]) -> None:
        """Audit a change other than of the mode; kept here while Redis is away."""
        entry = self.entry(actor, action, details)
        try:
            await self._store.append_audit(entry)
        except StoreUnavailable:
            self.keep_for_later(entry)

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
                entries[entry["id"]] = {**entry, "at": str(entry["at"])}
        # What was kept here while Redis was away is shared later than it happened.
        return sorted(entries.values(), key=lambda entry: entry["at"], reverse=True)[:limit]

    async def _poll(self) -> None:
        while True:
            self._wake.clear()
            pause_s = self._poll_s
            try:
                await self.exchange()
            except StoreUnavailable:
                pause_s *= _RETRY_SHARE
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(StoreUnavailable):
                async with contextlib.aclosing(self._store.mode_changes()) as changes:
                    async for _ in changes:
                        self._wake.set()
            await asyncio.sleep(self._poll_s)

    def _change(self, version: int, mode: ModeName, reason: str | None, actor: str, expires_in_s: float | None) -> Mode:
        now = self._now()
        return Mode(mode, reason, actor, None if expires_in_s is None else now + expires_in_s, version, int(now * 1000))

    def _heard(self, server_s: float, asked: float, stored: tuple[int, int, bytes] | None) -> None:
        """Redis said what time it is, and which mode it has."""
        moved = self._now.heard(server_s, asked)
        self._stored_age = (0, 0) if stored is None else stored[:2]
        if self._by_own_clock:
            self._by_own_clock = False
            ours = self._mode
            expires_at = None if ours.expires_at is None else ours.expires_at + moved
            self._adopt(replace(ours, expires_at=expires_at, changed_at_ms=ours.changed_at_ms + int(moved * 1000)))

    def _adopt_newer(self, mode: Mode) -> None:
        """At the same age Redis's is taken: two changes of one millisecond must not divide the replicas."""
        if mode.age >= self._mode.age and mode != self._mode:
            self._adopt(mode)

    def _adopt(self, mode: Mode) -> None:
        self._mode = mode
        self._save()

    def _save(self) -> None:
        if self._copy is not None:
            _save(self._copy, self._mode, self._pending_audit)

    async def _share_audit(self) -> None:
        if not self._pending_audit:
            return
        while self._pending_audit:
            entry = self._pending_audit[0]
            await self._store.append_audit(entry)
            if self._pending_audit and self._pending_audit[0] is entry:
                self._pending_audit.pop(0)
        self._save()

    def entry(self, actor: str, action: str, details: dict[str, Any], entry_id: str = "") -> bytes:
        """An entry of the audit, to be written with a change or to be kept for later."""
        head = {"id": entry_id or uuid.uuid4().hex, "at": iso(self._now()), "actor": actor, "action": action}
        return orjson.dumps({**head, **details})

    def keep_for_later(self, entry: bytes) -> None:
        """Redis did not get this entry: it is shared when it is back."""
        self._pending_audit.append(entry)
        del self._pending_audit[:-_PENDING_AUDIT_MAX]
        self._save()


def _save(path: Path, mode: Mode, pending_audit: Sequence[bytes]) -> None:
    """Best effort: a full disk must not keep an operator from forcing the fallback."""
    version, changed_at_ms, body = mode.stored()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        entries = [entry.decode() for entry in pending_audit]
        write_aside(path, orjson.dumps([version, changed_at_ms, body.decode(), entries]))


def _load(path: Path | None) -> tuple[Mode, list[bytes]] | None:
    """The mode, and the audit entries that Redis did not get."""
    if path is None:
        return None
    try:
        version, changed_at_ms, body, pending_audit = orjson.loads(path.read_bytes())
        mode = Mode.parse((int(version), int(changed_at_ms), body.encode()))
        return None if mode is None else (mode, [entry.encode() for entry in pending_audit])
    except (OSError, ValueError, TypeError, AttributeError):
        return None
