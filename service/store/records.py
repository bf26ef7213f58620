"""What the store keeps about a user: events, the version of the log, and whose they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple
from urllib.parse import quote, unquote

SEPARATOR = "\x1f"
_MARKS = ("\x1e", SEPARATOR)

# A score holds milliseconds and 10 bits of arrival order in one double (53 bits of mantissa).
MAX_TIME_MS = 2**43
ARRIVALS = 1024


Kind = Literal["user", "session"]
_KINDS: dict[str, Kind] = {"u": "user", "s": "session"}


@dataclass(frozen=True)
class Subject:
    """Whose history it is: a known user, or an anonymous session. Made by `service.history.pseudonyms`: `id` may be a hash."""

    kind: Kind
    id: str

    @cached_property
    def tag(self) -> str:
        """Hash tag of every key of the subject: one subject, one Redis Cluster slot."""
        return f"{{{self.kind[0]}:{quote(self.id, safe='')}}}"

    @classmethod
    def of_tag(cls, tag: str) -> Subject | None:
        """The inverse of `tag`; None for what is none."""
        letter, colon, quoted = tag.removeprefix("{").removesuffix("}").partition(":")
        kind = _KINDS.get(letter)
        if kind is None or not colon or not quoted:
            return None
        subject = cls(kind, unquote(quoted))
        return subject if subject.tag == tag else None


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append. `item_id` is None only for signals (a search without an item).

    Raises ValueError for a time the log cannot order exactly, or for a separator inside a text.
    """

    item_id: str | None
    type: str
    time_ms: int
    event_id: str | None = None
    value: float | None = None
    query: str | None = None
    request_id: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.time_ms < MAX_TIME_MS:
            raise ValueError(f"time_ms must lie between 0 and {MAX_TIME_MS}")
        texts = (self.item_id, self.type, self.event_id)
        if any(mark in text for text in texts if text for mark in _MARKS):
            raise ValueError("control characters are not allowed in an event")

    def identity(self, subject: Subject) -> str:
        """The caller's event id, or a digest of what makes the event itself."""
        if self.event_id:
            return self.event_id
        parts = (subject.tag, self.item_id or "", self.type, str(self.time_ms), self.query or "")
        return hashlib.blake2b(SEPARATOR.join(parts).encode(), digest_size=8).hexdigest()

    def member(self, subject: Subject) -> str:
        """The event's text in the log."""
        return SEPARATOR.join((self.identity(subject), self.item_id or "", self.type))


class StoredEvent(NamedTuple):
    """One event of the log. A tuple: two hundred of them are built for every read.

    `score` orders the log: `time_ms` + arrival/1024, so that events of one millisecond keep the order they
    arrived in.
    """

    item_id: str
    type: str
    time_ms: int
    event_id: str
    score: float


@dataclass(frozen=True, slots=True)
class UserRecord:
    """One consistent look at a subject.

    `version` is 16 hex digits, or "" when nothing was ever logged; `events` are oldest first; `blob` is the
    packed encoder state of the model that was asked for.
    """

    version: str
    events: tuple[StoredEvent, ...]
    blob: bytes | None = None


@dataclass(frozen=True, slots=True)
class AppendResult:
    """`accepted` are in the store now, or are older than everything a full log keeps; `duplicates` were
    there before. `version` is the log's after the call."""

    accepted: int
    duplicates: int
    version: str


def parse_events(flat: Sequence[bytes]) -> tuple[StoredEvent, ...]:
    """Events from a reply of alternating members and scores."""
    # One decode for all: this runs for every read, over up to a full log.
    if not flat:
        return ()
    members = b"\x1e".join(flat[::2]).decode().split("\x1e")
    events = []
    for member, text in zip(members, flat[1::2], strict=True):
        event_id, item_id, event_type = member.split(SEPARATOR)
        score = float(text)
        events.append(StoredEvent(item_id, event_type, int(score), event_id, score))
    return tuple(events)
