"""A list that events may still belong to, its events, and what they earned it so far."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]
Identity = tuple[Any, ...]

_COUNTED = {"click": "clicks", "cart": "carts", "purchase": "conversions"}
_SUMMED = {"purchase": "value", "view": "dwell"}


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
    """A list that events may still belong to; `owner`, `merged_ms` and `made` as in the join.

    What it earned is kept event by event: a list with many events is not counted anew for each of them.
    """

    list_id: str
    request_id: str | None
    subject: str
    time_ms: int
    positions: dict[str, int]
    groups: tuple[tuple[str, str], ...]
    owner: str | None = None
    merged_ms: int | None = None
    made: bool = False
    events: dict[LiveEvent, None] = field(default_factory=dict)
    _impressions: int = 0
    # By position and figure: how many events there are of it, and the sum of their values.
    _earned: dict[int, dict[str, tuple[int, float]]] = field(default_factory=dict)

    @property
    def viewed(self) -> bool:
        """Whether it, or an item of it, has an impression."""
        return self._impressions > 0

    def put(self, event: LiveEvent) -> None:
        """Takes an event in."""
        self.events[event] = None
        self._count(event, 1)

    def take_out(self, event: LiveEvent) -> None:
        """Gives an event up."""
        del self.events[event]
        self._count(event, -1)

    def by_position(self) -> dict[int, dict[str, float]]:
        """Returns what each position earned, as `model.online.outcomes.by_position` counts it."""
        counted = _COUNTED.values()
        return {
            place: {name: 1.0 if name in counted else total for name, (_, total) in earned.items()}
            for place, earned in self._earned.items()
        }

    def _count(self, event: LiveEvent, sign: int) -> None:
        self._impressions += sign * (event.row["type"] == "impression")
        if event.position is None:
            return
        earned = self._earned.setdefault(event.position, {})
        for name, value in _figures(event.row):
            events, total = earned.get(name, (0, 0.0))
            earned[name] = (events + sign, total + sign * value)
            if not events + sign:
                del earned[name]

    @property
    def cluster(self) -> str:
        """The subject that it counts for; a list that was made for nobody counts for itself."""
        return self.owner or self.subject or self.list_id

    @property
    def viewers(self) -> set[str]:
        """The subjects whose events it may have: none for a list that was made for nobody."""
        return {viewer for viewer in (self.subject, self.owner) if viewer}

    def __lt__(self, other: OpenList) -> bool:
        return (self.time_ms, self.list_id) < (other.time_ms, other.list_id)


def _figures(row: Row) -> Iterator[tuple[str, float]]:
    """The figures of a position that an event changes, and by how much where values are added up."""
    if (name := _COUNTED.get(row["type"])) is not None:
        yield name, 0.0
    value = row.get("value")
    if (name := _SUMMED.get(row["type"])) is not None and value is not None and math.isfinite(value):
        yield name, value
