"""A message → its events and its dead letters. Pure: no I/O.

A message holds one event, or a batch as in the body of `POST /events`, and is parsed by the code of that route. Over
HTTP one bad event rejects the batch, because the caller can mend it and send it again. Nobody waits for the answer of a
message, so here the good events of a batch are stored, and each bad one becomes a dead letter of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from pydantic_core import from_json, to_json

from service.common.request_errors import BadRequest, BodyTooLarge, InvalidRequest, RequestError
from service.intake.records import Header, Outgoing, Record
from service.schemas.user_requests import Event, EventsRequest

_BATCH = "events"
_DETAIL_MAX = 2000


class Parser(Protocol):
    """The parsing half of `service.history.ingest.Ingest`."""

    def parse(self, raw: bytes, latest_ms: int) -> EventsRequest:
        """Parses a batch; raises RequestError."""

    def parse_event(self, raw: bytes, latest_ms: int) -> Event:
        """Parses a single event; raises RequestError."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What no event can be made of.

    Attributes:
        record: The message.
        value: The message, or the bad event of a batch.
        error: Why.
        place: Position of the event in its batch; None if it is the whole message.
    """

    record: Record
    value: bytes | None
    error: RequestError
    place: int | None = None

    def outgoing(self, topic: str, *, without_value: bool = False) -> Outgoing:
        """Returns the message for the dead-letter topic: value and key as they came, origin and reason as headers.

        Args:
            topic: The dead-letter topic.
            without_value: Leaves the value out, because the topic refuses its size; the origin says where it is.
        """
        origin = self.record
        headers: dict[str, object] = {
            "gpt4rec-reason": self.error.reason,
            "gpt4rec-detail": _detail(self.error),
            "gpt4rec-topic": origin.topic,
            "gpt4rec-partition": origin.partition,
            "gpt4rec-offset": origin.offset,
        }
        if origin.time_ms is not None:
            headers["gpt4rec-timestamp-ms"] = origin.time_ms
        if self.place is not None:
            headers["gpt4rec-event"] = self.place
        if without_value:
            headers["gpt4rec-value"] = "left out: the topic refuses its size"
        packed: tuple[Header, ...] = tuple((name, str(one).encode()) for name, one in headers.items())
        return Outgoing(topic, origin.key, b"" if without_value else self.value, packed)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A message, and what came of it."""

    record: Record
    events: Sequence[Event] = ()
    dead: Sequence[DeadLetter] = field(default=())

    @property
    def outcome(self) -> str:
        """One of `intake_metrics.OUTCOMES`."""
        return "stored" if not self.dead else "split" if self.events else "dead"


def parsed(record: Record, parser: Parser, latest_ms: int, bytes_max: int) -> Parsed:
    """Parses a message.

    Args:
        record: The message.
        parser: The code of `POST /events`.
        latest_ms: The latest timestamp that an event may have, in epoch milliseconds.
        bytes_max: Size of the largest message, that of the largest body.
    """
    raw = record.value
    try:
        if not raw:
            raise BadRequest("the message is empty; a tombstone erases nothing here: use DELETE /users/{id}")
        if len(raw) > bytes_max:
            raise BodyTooLarge(f"the message has more than {bytes_max} bytes")
        if not _is_batch(raw):
            return Parsed(record, (parser.parse_event(raw, latest_ms),))
        return Parsed(record, parser.parse(raw, latest_ms).events)
    except InvalidRequest as error:
        assert raw is not None  # noqa: S101 - a message without a value is a BadRequest
        return _split(record, raw, error, parser, latest_ms)
    except RequestError as error:
        return Parsed(record, dead=[DeadLetter(record, raw, error)])


def _is_batch(raw: bytes) -> bool:
    """Returns whether the message is an object with the member `events`, which a single event cannot have."""
    if b"events" not in raw and b"\\" not in raw:
        return False  # the usual case, without parsing twice
    try:
        found = from_json(raw)
    except ValueError:
        return False
    return isinstance(found, dict) and _BATCH in found


def _split(record: Record, raw: bytes, error: InvalidRequest, parser: Parser, latest_ms: int) -> Parsed:
    """Separates the events of a batch that have no fault from those that have."""
    faults: dict[int, list[Mapping[str, Any]]] = {}
    for fault in error.errors:
        place = _place(fault["loc"])
        if place is None and fault["type"] != "more_faults":
            return Parsed(record, dead=[DeadLetter(record, raw, error)])  # the batch itself is at fault
        if place is not None:
            faults.setdefault(place, []).append(fault)
    if not faults:
        return Parsed(record, dead=[DeadLetter(record, raw, error)])
    given = from_json(raw)[_BATCH]
    dead = [
        DeadLetter(
            record, to_json(given[place]), InvalidRequest("the event is not valid; see the errors", found), place
        )
        for place, found in sorted(faults.items())
    ]
    good = [event for place, event in enumerate(given) if place not in faults]
    events = parser.parse(to_json({_BATCH: good}), latest_ms).events if good else ()
    return Parsed(record, events, dead)


def _place(loc: Sequence[Any]) -> int | None:
    return loc[1] if len(loc) > 1 and loc[0] == _BATCH and isinstance(loc[1], int) else None


def _detail(error: RequestError) -> str:
    detail: dict[str, object] = {"title": error.title, "detail": error.public_detail}
    if error.errors:
        detail["errors"] = [dict(fault) for fault in error.errors]
    return orjson.dumps(detail, default=str).decode()[:_DETAIL_MAX]
