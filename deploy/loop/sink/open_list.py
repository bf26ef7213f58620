"""A list that events may still belong to, and its events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]
Identity = tuple[Any, ...]


@dataclass(slots=True, eq=False)
class LiveEvent:
    """An event that counts.

    Attributes:
        row: The event.
        keeper: Among whose events it is: its subject's, or the user's that the session was merged into.
        identity: What tells it from others of its keeper.
        number: Its place among all events that were taken, which decides where two were received at one moment.
        list: The list that it belongs to; None if it belongs to none.
        position: Its position there, from 1; None for the list as a whole.
        later: Those of other subjects with its identity that came later, which count if it is erased and they are not.
    """

    row: Row
    keeper: str
    identity: Identity
    number: int
    list: OpenList | None = None
    position: int | None = None
    later: tuple[LiveEvent, ...] = ()

    @property
    def received_ms(self) -> int:
        """When it was received."""
        received_ms: int = self.row["received_ms"]
        return received_ms

    @property
    def order(self) -> tuple[int, int]:
        """Tells which of two events with one identity counts: the smaller one, which was received first."""
        return self.received_ms, self.number

    def precede(self, other: LiveEvent) -> None:
        """Remembers one with its identity that came later, and those that came after that one."""
        self.later += (other, *other.later)
        other.later = ()


@dataclass(slots=True, eq=False)
class OpenList:
    """A list that events may still belong to; `owner` and `merged_ms` as in the join."""

    list_id: str
    request_id: str | None
    subject: str
    time_ms: int
    positions: dict[str, int]
    groups: tuple[tuple[str, str], ...]
    owner: str | None = None
    merged_ms: int | None = None
    events: list[LiveEvent] = field(default_factory=list)

    @property
    def cluster(self) -> str:
        """The subject that it counts for; a list that was made for nobody counts for itself."""
        return self.owner or self.subject or self.list_id

    def __lt__(self, other: OpenList) -> bool:
        return (self.time_ms, self.list_id) < (other.time_ms, other.list_id)
