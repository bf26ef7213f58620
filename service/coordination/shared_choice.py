"""A shared value of free fields: the served model, the decoding policies. Only its owner knows what they mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from service.coordination.audit import Audit
from service.coordination.clock import SharedClock, iso
from service.coordination.shared_value import SharedStore, SharedValue, Stored


@dataclass(frozen=True, slots=True)
class Choice:
    """What operators chose.

    Attributes:
        fields: The choice itself.
        actor: Name of the operator.
        reason: Why.
        version: Number of changes so far; 0 if nobody ever chose anything.
        changed_at_ms: Time of the last change, epoch milliseconds.
    """

    fields: dict[str, Any]
    actor: str | None = None
    reason: str | None = None
    version: int = 0
    changed_at_ms: int = 0

    def body(self) -> bytes:
        """Returns the choice without its version, as Redis has it."""
        return orjson.dumps({"fields": self.fields, "actor": self.actor, "reason": self.reason})

    @classmethod
    def parse(cls, stored: Stored) -> Choice | None:
        """Reads a stored choice; None if its body is damaged."""
        version, changed_at_ms, text = stored
        try:
            body = orjson.loads(text)
            fields, actor, reason = body["fields"], body["actor"], body["reason"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return None
        valid = isinstance(fields, dict) and isinstance(actor, str | None) and isinstance(reason, str | None)
        return cls(fields, actor, reason, version, changed_at_ms) if valid else None

    def to_json(self) -> dict[str, Any]:
        """Returns who changed it, why, when, and how often it was changed; not the fields."""
        return {
            "actor": self.actor,
            "reason": self.reason,
            "changed_at": iso(self.changed_at_ms / 1000) if self.version else None,
            "version": self.version,
        }


class SharedChoice(SharedValue[Choice]):
    """This replica's copy of one choice.

    Args:
        store: Redis.
        name: Name of the choice in Redis and in the audit.
        clock: The clock that the replicas share.
        audit: Where changes are recorded.
        usable: Whether this release can use the fields of a choice: another release may have written them.
        copy: File for the copy; None for no file.
    """

    def __init__(
        self,
        store: SharedStore,
        name: str,
        clock: SharedClock,
        audit: Audit,
        *,
        usable: Callable[[dict[str, Any]], bool],
        copy: Path | None,
    ) -> None:
        super().__init__(
            store,
            name,
            clock,
            audit,
            action=name,
            initial=Choice({}),
            parse=Choice.parse,
            usable=lambda choice: usable(choice.fields),
            copy=copy,
        )

    @property
    def choice(self) -> Choice:
        """The choice in force on this replica."""
        return self._value

    async def set(self, fields: dict[str, Any], *, actor: str, reason: str | None, details: dict[str, Any]) -> Choice:
        """Changes the choice everywhere. While Redis is away, the change holds here and is written later.

        Args:
            fields: The new choice.
            actor: Name of the operator.
            reason: Why.
            details: More fields of the audit entry.
        """
        return await self.edit(lambda _: fields, actor=actor, reason=reason, details=details)

    async def edit(
        self,
        edit: Callable[[dict[str, Any]], dict[str, Any]],
        *,
        actor: str,
        reason: str | None,
        details: dict[str, Any],
    ) -> Choice:
        """Changes the choice as `set` does, to one that is made of the choice in force.

        Args:
            edit: Makes the new choice of the present one. It is called again if another change came first, and may
                raise, which changes nothing.
            actor: Name of the operator.
            reason: Why.
            details: More fields of the audit entry.
        """
        return await self._change(
            lambda version, now_s: Choice(edit(self._value.fields), actor, reason, version, int(now_s * 1000)),
            actor=actor,
            details=details,
        )
