"""The forced mode (`auto`, `fallback`, `model`), shared by every replica.

It is a shared value (`service.coordination.shared_value`) that may expire. It expires by Redis's clock
(`service.coordination.clock`), so it ends on every replica at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import orjson

from service.coordination.audit import Audit
from service.coordination.clock import SharedClock, iso
from service.coordination.shared_value import SharedStore, SharedValue, Stored
from service.guard.guard import ModeName


@dataclass(frozen=True, slots=True)
class Mode:
    """A mode and its change.

    Attributes:
        mode: The mode.
        reason: Why it was set.
        actor: Name of the operator.
        expires_at: When it ends, in epoch seconds of the shared clock; None for never.
        version: Number of changes so far; 0 if nobody ever set a mode.
        changed_at_ms: Time of the last change, epoch milliseconds.
    """

    mode: ModeName = "auto"
    reason: str | None = None
    actor: str | None = None
    expires_at: float | None = None
    version: int = 0
    changed_at_ms: int = 0

    def body(self) -> bytes:
        """Returns the mode without its version, as Redis has it."""
        return orjson.dumps(
            {"mode": self.mode, "reason": self.reason, "actor": self.actor, "expires_at": self.expires_at}
        )

    @classmethod
    def parse(cls, stored: Stored) -> Mode | None:
        """Reads a stored mode; None if its body is damaged or has a mode that this release does not know."""
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
        """Returns the mode as /ops and the audit have it."""
        return {
            "mode": self.mode, "reason": self.reason, "actor": self.actor, "version": self.version,
            "expires_at": iso(self.expires_at),
            "changed_at": iso(self.changed_at_ms / 1000) if self.version else None,
        }  # fmt: skip


class ForcedMode(SharedValue[Mode]):
    """This replica's copy of the mode. `current` is read for every request.

    Its copy file also has the audit entries that wait for Redis, so that they survive a restart with it.
    """

    def __init__(self, store: SharedStore, clock: SharedClock, audit: Audit, *, copy: Path | None = None) -> None:
        super().__init__(
            store, "mode", clock, audit, action="fallback", initial=Mode(), parse=Mode.parse, copy=copy
        )  # fmt: skip
        self._set_by_own_clock = False  # before Redis's clock was known
        audit.restore(_pending_audit(self._read_copy()))
        audit.subscribe(self._save)

    @property
    def mode(self) -> Mode:
        """The mode in force: `auto` once the set mode has expired."""
        self._correct_times()
        mode = self._value
        if mode.expires_at is not None and self._clock() >= mode.expires_at:
            return Mode(version=mode.version, changed_at_ms=mode.changed_at_ms)
        return mode

    def now(self) -> float:
        """Returns the time by which modes expire, in epoch seconds of the shared clock."""
        return self._clock()

    def current(self) -> ModeName:
        """Returns the name of the mode in force."""
        return self.mode.mode

    def to_json(self) -> dict[str, Any]:
        """Returns the mode in force, and whether Redis has it."""
        return {**self.mode.to_json(), "shared": self.shared}

    async def set(self, mode: ModeName, *, reason: str | None, actor: str, expires_in_s: float | None = None) -> Mode:
        """Changes the mode everywhere. While Redis is away, the change holds here and is written later.

        Args:
            mode: The new mode.
            reason: Why.
            actor: Name of the operator.
            expires_in_s: After how many seconds it ends; None for never.

        Returns:
            The mode in force afterwards.
        """

        def changed(version: int, now_s: float) -> Mode:
            expires_at = None if expires_in_s is None else now_s + expires_in_s
            return Mode(mode, reason, actor, expires_at, version, int(now_s * 1000))

        await self._change(changed, actor=actor, details={})
        return self.mode

    def _heard(self, server_s: float, asked_s: float) -> None:
        super()._heard(server_s, asked_s)
        self._correct_times()

    def _hold(self, value: Mode) -> None:
        super()._hold(value)
        self._set_by_own_clock = not self._clock.heard_once

    def _correct_times(self) -> None:
        """Once Redis's clock is known, moves the times of a mode that was set before by the wall clock."""
        if self._set_by_own_clock and self._clock.heard_once:
            self._set_by_own_clock = False
            moved_s, ours = self._clock.first_correction_s, self._value
            expires_at = None if ours.expires_at is None else ours.expires_at + moved_s
            self._adopt(replace(ours, expires_at=expires_at, changed_at_ms=ours.changed_at_ms + int(moved_s * 1000)))

    def _copy_fields(self) -> list[Any]:
        return [*super()._copy_fields(), [entry.decode() for entry in self._audit.pending]]


def _pending_audit(copy_fields: list[Any]) -> list[bytes]:
    """Returns the audit entries that a copy file has beside the mode."""
    try:
        _, _, _, entries = copy_fields
        return [entry.encode() for entry in entries]
    except (ValueError, TypeError, AttributeError):
        return []
