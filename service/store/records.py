"""What the store keeps about a user: subjects, events, and the version of the log."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple
from urllib.parse import quote, unquote

from service.artifact.features import is_history_event
from service.store.seen_items import NOTHING_SEEN, SeenItems
from service.store.user_features import NO_FEATURES, UserFeatures

SEPARATOR = "\x1f"
_MARKS = ("\x1e", SEPARATOR)

# A score holds milliseconds and 10 bits of arrival order in one double, which has 53 bits of mantissa.
MAX_TIME_MS = 2**43
ARRIVALS = 1024


Kind = Literal["user", "session"]
_KINDS: dict[str, Kind] = {"u": "user", "s": "session"}


@dataclass(frozen=True)
class Subject:
    """The owner of a history: a known user, or an anonymous session.

    Attributes:
        kind: Which of the two.
        id: The caller's id, or a hash of it (`service.history.pseudonyms`).
    """

    kind: Kind
    id: str

    @cached_property
    def tag(self) -> str:
        """Hash tag of all keys of the subject: they share one slot of a Redis Cluster."""
        quoted = self.id if self.id.isascii() and self.id.isalnum() else quote(self.id, safe="")
        return f"{{{self.kind[0]}:{quoted}}}"

    @classmethod
    def of_tag(cls, tag: str) -> Subject | None:
        """Returns the subject of a tag, None if the text is not a tag."""
        letter, colon, quoted = tag.removeprefix("{").removesuffix("}").partition(":")
        kind = _KINDS.get(letter)
        if kind is None or not colon or not quoted:
            return None
        subject = cls(kind, unquote(quoted))
        return subject if subject.tag == tag else None


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append. `item_id` is None only for signals and searches.

    `kept_query` is the text of a search that belongs to the history although it has no item, as the log keeps it
    (`service.artifact.query_text.kept_query`); "" for every other event. `session` is the mark of its session
    (`service.artifact.session_marks`) where the history keeps marks, else "".

    Raises:
        ValueError: The log cannot order the time exactly, or a text contains a separator.
    """

    item_id: str | None
    type: str
    time_ms: int
    event_id: str | None = None
    value: float | None = None
    query: str | None = None
    request_id: str | None = None
    list_id: str | None = None
    kept_query: str = ""
    session: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.time_ms < MAX_TIME_MS:
            raise ValueError(f"time_ms must be at least 0 and less than {MAX_TIME_MS}, got {self.time_ms}")
        texts = (self.item_id, self.type, self.event_id, self.kept_query, self.session)
        if any(mark in text for text in texts if text for mark in _MARKS):
            raise ValueError("control characters are not allowed in an event")

    @property
    def in_history(self) -> bool:
        """Whether the event belongs to the log of its subject; all others are signals."""
        return bool(self.kept_query) or is_history_event(self.type, self.item_id)

    def identity(self, subject: Subject) -> str:
        """Returns the caller's event id, or a digest of the fields that identify the event."""
        if self.event_id:
            return self.event_id
        parts = (subject.tag, self.item_id or "", self.type, str(self.time_ms), self.query or "")
        return hashlib.blake2b(SEPARATOR.join(parts).encode(), digest_size=8).hexdigest()

    def member(self, subject: Subject) -> str:
        """Returns the member that stands for the event in the log; the number of its fields is its format."""
        return SEPARATOR.join(
            (self.identity(subject), self.item_id or "", self.type, *more_fields(self.kept_query, self.session))
        )


def more_fields(query: str, session: str) -> tuple[str, ...]:
    """Returns the fields of a member behind the type: none, the query, or the query and the mark of the session."""
    if session:
        return (query, session)
    return (query,) if query else ()


class StoredEvent(NamedTuple):
    """One event of the log. A tuple, because up to two hundred are built for every read.

    `score` orders the log: `time_ms` + arrival/1024, so that events of one millisecond keep the order of their arrival.
    A search without an item has the item id "" and its `query`; all other events have no query. `session` is the mark
    of the session, "" where the log keeps none.
    """

    item_id: str
    type: str
    time_ms: int
    event_id: str
    score: float
    query: str = ""
    session: str = ""


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A consistent snapshot of a subject.

    Attributes:
        version: Version of the log, 16 hex digits; "" if nothing was ever logged.
        events: The log, oldest first.
        blob: The packed encoder state of one model (`service.history.state_blob`), None if none is stored.
        seen: Items of events that the log no longer keeps, with their counts and times.
        features: The stored features of the subject.
    """

    version: str
    events: tuple[StoredEvent, ...]
    blob: bytes | None = None
    seen: SeenItems = NOTHING_SEEN
    features: UserFeatures = NO_FEATURES

    @property
    def stamp(self) -> str:
        """What tells the log, and the items seen before it, from those of any other moment."""
        return self.version + self.seen.stamp

    def same_as(self, version: str, seen_stamp: str) -> bool:
        """Returns whether the log has this version, and the seen items have this stamp."""
        return self.version == version and self.seen.stamp == seen_stamp

    @property
    def missing(self) -> Literal["log", "version", "both"] | None:
        """The part that is gone although another part says that it was written; None if all is there, or nothing."""
        if self.version:
            return None if self.events else "log"
        return "version" if self.events else "both" if self.blob else None


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What became of appended events.

    Attributes:
        accepted: Events that are in the store now, or are older than everything that a full log keeps.
        duplicates: Events that were in the store before.
        version: Version of the log after the call.
        reused: Ids of the duplicates that came before with another item or type.
        seen_stamp: Stamp of the items seen before the log begins, after the call.
        late: Accepted events that no state reads, because a checkpoint is newer (`service.history.trim_checkpoint`).
    """

    accepted: int
    duplicates: int
    version: str
    reused: tuple[str, ...] = ()
    seen_stamp: str = ""
    late: int = 0


class CheckpointWrite(NamedTuple):
    """A checkpoint to store.

    Attributes:
        blob: The packed state; empty leaves the stored one as it is, and lets it live as long as the log.
        score: Score of the newest event that it covers.
    """

    blob: bytes = b""
    score: float = 0.0


class StateWrite(NamedTuple):
    """A state to store.

    Attributes:
        version: Version of the log that it was computed from; if the log has another one now, nothing is written.
        blob: The packed state.
        checkpoint: What is to become of the checkpoint; None if the encoder has none.
    """

    version: str
    blob: bytes
    checkpoint: CheckpointWrite | None = None


def parse_events(flat: Sequence[bytes]) -> tuple[StoredEvent, ...]:
    """Parses a reply of alternating members and scores.

    Raises:
        ValueError: A member was not written by this service.
    """
    # One decode for all: this runs on every read, over up to a full log.
    if not flat:
        return ()
    members = b"\x1e".join(flat[::2]).decode().split("\x1e")
    events = []
    for member, text in zip(members, flat[1::2], strict=True):
        event_id, item_id, event_type, *more = member.split(SEPARATOR)
        score = float(text)
        events.append(StoredEvent(item_id, event_type, int(score), event_id, score, *more))
    return tuple(events)
