"""What the parts of the intake hand to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from service.common.errors import ServiceError

Header = tuple[str, bytes]


class DeliveryFailed(ServiceError):  # noqa: N818 - the name says what happened
    """The broker did not confirm a message that was written to a topic.

    Attributes:
        too_large: Whether it refused the message for its size; repeating it would not help.
    """

    status = 503
    reason = "delivery_failed"
    title = "The topic cannot be written"

    def __init__(self, detail: str, *, too_large: bool = False) -> None:
        super().__init__(detail)
        self.too_large = too_large


@dataclass(frozen=True, slots=True)
class Record:
    """A message as it was read.

    Attributes:
        topic: Its topic.
        partition: Its partition.
        offset: Its place in the partition.
        key: Its key; None without one.
        value: Its value; None for a tombstone.
        time_ms: Its timestamp in epoch milliseconds, by producer or broker; None without one.
        claim: Which assignment of the partition it was read under; after a rebalance there is another one.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    time_ms: int | None
    claim: int


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to write. Without a value it is a tombstone: compaction deletes what has the same key."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()


class Source(Protocol):
    """A consumer as the intake uses it. One method runs at a time."""

    async def take(self) -> list[Record]:
        """Returns the next messages; none if nothing comes for a moment."""

    async def hold(self, seconds: float) -> None:
        """Stays in the group for this time without reading on."""

    async def go_on(self) -> None:
        """Reads on after `hold`."""

    def owned(self, records: Sequence[Record]) -> list[Record]:
        """Returns the records whose partitions are still this process's own."""

    def stored(self, records: Sequence[Record]) -> None:
        """Notes that the records are done; commits from the next call on cover them."""


class Sender(Protocol):
    """A producer as the intake uses it."""

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Writes messages in this order; returns when the broker has confirmed all of them.

        Raises:
            DeliveryFailed: At least one was not confirmed. Any of them may be written; repeating is safe.
        """
