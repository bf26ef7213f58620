"""Events, and the queue in which they wait for the service."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gpt4rec_client.errors import ClientError, InvalidRequest, Problem

# Of one request; the service takes no more.
EVENTS_MAX = 1000
_TOO_LARGE = 413
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 30.0
# A later try may find another state: a key that was set, a route that is there. So events wait.
_OF_THE_SETUP = (401, 403, 404, 405)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that a user or an anonymous session did.

    It gets its time and its id when it is made, not when it is sent: sent twice, it counts once.

    Attributes:
        type: `view`, `click`, `cart`, `purchase`, `rating`, `search`, `impression`, or another name.
        item_id: The item; None in a search, or in an impression of a whole list.
        user_id: The user; this or `session_id` is required.
        session_id: The anonymous session.
        timestamp_ms: When it happened, in epoch milliseconds.
        event_id: Names the event among those of its user or session.
        list_id: The list that led to it (`Recommendation.event` sets it).
        request_id: The request whose list led to it; `list_id` is surer.
        value: Rating, price, dwell time …
        query: Text of a search.

    Raises:
        ValueError: It has no subject, or cannot be written as JSON.
    """

    type: str
    item_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    timestamp_ms: int = field(default_factory=_now_ms)
    event_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    list_id: str | None = None
    request_id: str | None = None
    value: float | None = None
    query: str | None = None

    def __post_init__(self) -> None:
        if self.user_id is None and self.session_id is None:
            raise ValueError("an event needs a user_id or a session_id")
        json.dumps(self.to_json(), allow_nan=False, ensure_ascii=False).encode()  # here, not where it is sent

    def to_json(self) -> dict[str, Any]:
        """Returns the event as the service takes it."""
        members = {name: getattr(self, name) for name in self.__slots__}
        members["timestamp"] = members.pop("timestamp_ms")
        return {name: value for name, value in members.items() if value is not None}


# Called with events that will not be sent any more, and why.
OnDrop = Callable[[Sequence[Event], str], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a batch that the service did not accept.

    Attributes:
        keep: Events to send again.
        drop: Events that no try will bring in.
        why: Why they are dropped.
        pause_s: Seconds until the next try.
        largest: Events of the next batch, at most.
    """

    keep: tuple[Event, ...]
    drop: tuple[Event, ...]
    why: str
    pause_s: float
    largest: int


def verdict(batch: Sequence[Event], error: ClientError, failures: int) -> Verdict:
    """Decides what becomes of a batch that was not accepted.

    A batch with an invalid event is refused as a whole, so the others are sent again without it.

    Args:
        batch: The events.
        error: What the call raised.
        failures: Failures in a row, this one included.
    """
    everything, largest = tuple(batch), EVENTS_MAX
    if isinstance(error, InvalidRequest):
        if error.status == _TOO_LARGE and len(batch) > 1:
            return Verdict(everything, (), "", 0.0, len(batch) // 2)
        bad = {fault.index for fault in error.faults if fault.index is not None and fault.index < len(batch)}
        if not bad:
            return Verdict((), everything, str(error), 0.0, largest)
        keep = tuple(event for n, event in enumerate(batch) if n not in bad)
        return Verdict(keep, tuple(batch[n] for n in sorted(bad)), str(error), 0.0, largest)
    asked = error.retry_after_s if isinstance(error, Problem) else None
    pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10))
    if isinstance(error, Problem) and error.status in _OF_THE_SETUP:
        pause_s = _LONGEST_PAUSE_S
    return Verdict(everything, (), "", pause_s if asked is None else asked, largest)


class Outbox:
    """A bounded queue of events. Pure: the clock is passed in. Its owner guards it against concurrent use.

    Args:
        most: Events that it holds at most, those on their way included.
        batch: Events of one request.
        interval_s: The longest that an event waits for others.
        on_drop: Is called with events that will not be sent.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self, *, most: int, batch: int, interval_s: float, on_drop: OnDrop, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not 1 <= batch <= EVENTS_MAX or most < batch or interval_s < 0:
            raise ValueError(
                f"a batch holds 1 to {EVENTS_MAX} events, a queue at least one batch, and time goes forward"
            )
        self._most, self._batch, self._interval_s = most, batch, interval_s
        self._on_drop, self._clock = on_drop, clock
        self._waiting: deque[Event] = deque()
        self._sent: tuple[Event, ...] = ()
        self._oldest_at = self._not_before = 0.0
        self._failures, self._largest = 0, batch
        # Ids of what a call carries of users who were erased since: it is not sent again.
        self._forgotten: set[str] = set()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent)

    @property
    def full(self) -> bool:
        """Whether a batch is complete."""
        return len(self._waiting) >= self._batch

    def add(self, event: Event) -> bool:
        """Adds an event; False if there is no room, after `on_drop` was told."""
        if len(self) >= self._most:
            self._on_drop((event,), f"the queue holds {self._most} events already")
            return False
        if not self._waiting:
            self._oldest_at = self._clock()
        self._waiting.append(event)
        return True

    def due_in(self, *, now: bool = False) -> float | None:
        """Returns the seconds until a batch must be sent; None if nothing waits, or a batch is on its way.

        Args:
            now: Whether to send before the batch is full or old.
        """
        if not self._waiting or self._sent:
            return None
        ready = 0.0 if now or self.full else self._oldest_at + self._interval_s - self._clock()
        return max(0.0, ready, self._not_before - self._clock())

    def take(self) -> list[Event]:
        """Returns the next batch; it is on its way until `accepted` or `refused` is called."""
        size = min(self._batch, self._largest, len(self._waiting))
        self._sent = tuple(self._waiting.popleft() for _ in range(size))
        return list(self._sent)

    def accepted(self) -> None:
        """The batch is stored."""
        self._sent, self._failures, self._largest = (), 0, self._batch
        self._forgotten.clear()
        self._oldest_at = self._clock()

    def refused(self, error: ClientError) -> None:
        """The batch is not stored, as far as this side knows."""
        self._failures += 1
        found = verdict(self._sent, error, self._failures)
        self._sent, self._largest = (), found.largest
        keep = [event for event in found.keep if event.event_id not in self._forgotten]
        self._waiting.extendleft(reversed(keep))
        self._not_before, self._oldest_at = self._clock() + found.pause_s, -math.inf
        if found.drop:
            self._on_drop(found.drop, found.why)
        if erased := [event for event in found.keep if event.event_id in self._forgotten]:
            self._on_drop(erased, "the user was erased")
        self._forgotten.clear()

    def belongs(self, session_id: str, user_id: str) -> None:
        """Gives what waits of a session to the user who logged in. The ids stay, so nothing counts twice."""

        def owned(event: Event) -> Event:
            ours = event.user_id is None and event.session_id == session_id
            return replace(event, user_id=user_id) if ours else event

        self._waiting = deque(map(owned, self._waiting))

    def forget(self, user_id: str) -> bool:
        """Drops what waits of a user who was erased; True if a call carries something of that user at this moment."""
        gone = [event for event in self._waiting if event.user_id == user_id]
        self._waiting = deque(event for event in self._waiting if event.user_id != user_id)
        carried = {event.event_id for event in self._sent if event.user_id == user_id}
        self._forgotten |= carried
        if gone:
            self._on_drop(gone, "the user was erased")
        return bool(carried)

    def abandon(self) -> int:
        """Drops everything, after `on_drop` was told; returns how many events that were."""
        left = [*self._sent, *self._waiting]
        self._sent, self._waiting = (), deque()
        if left:
            self._on_drop(left, "the client was closed before the service accepted them")
        return len(left)
