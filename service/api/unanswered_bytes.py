"""Bounds what all clients of a process can make it hold together: requests not answered yet, and answers not read yet.

One connection is bounded by the largest body. Many of them are not, and a client that never sends its last byte, or
never reads its answer, makes the process hold it until its time is up. So the bytes are summed. When the sum passes its
bound, requests that are still on their way and answers that are not read are ended, those first that have held most for
longest, until a quarter of the bound is free.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from service.common.deadline import Clock
from service.common.errors import ServiceError, TooManyBodies
from service.common.request_errors import TooSlow
from service.metrics.service_metrics import Metrics

# What a segment costs beside its bytes, so that a body in segments of one byte is not free.
_SEGMENT = 64
# A sender that takes no longer than this is not slow. Such requests are ended only if there are no others.
_SLOW_S = 1.0
# Requests that are here completely, and are no larger than this, are always answered.
_SMALL = 16_384
# Part of the bound that is left when requests were ended, so that not every segment that follows ends another one.
_FILLED = 0.75

Refuse = Callable[[ServiceError], None]


class Held:
    """The bytes of one connection.

    Attributes:
        size: Bytes held, of the request and of an answer that is not read.
        unread: Those of the answer.
        since: When the first of them arrived, in monotonic seconds.
        partial: Whether more of the request is to come.
    """

    __slots__ = ("_all", "partial", "refuse", "since", "size", "unread")

    def __init__(self, everything: UnansweredBytes, refuse: Refuse) -> None:
        self._all, self.refuse = everything, refuse
        self.size, self.unread, self.since, self.partial = 0, 0, 0.0, False

    @property
    def waits(self) -> bool:
        """Whether the service waits for the client: to send more, or to read."""
        return self.partial or self.unread > 0

    def add(self, size: int, *, partial: bool) -> None:
        """Counts a segment of a request.

        Args:
            size: Its bytes.
            partial: Whether more of the request is to come.
        """
        self.partial = partial
        self._hold(size + _SEGMENT)

    def wait_for_reader(self, size: int) -> None:
        """Counts the bytes of an answer that the client does not read at present."""
        self.read()
        self.unread = size
        self._hold(size)

    def read(self) -> None:
        """Forgets the bytes of an answer: the client has read them."""
        self._forget(self.unread)
        self.unread = 0

    def release(self) -> None:
        """Forgets the bytes of a request: it was answered, or ended."""
        self._forget(self.size - self.unread)
        self.partial = False

    def close(self) -> None:
        """Forgets the bytes and the connection."""
        self.read()
        self.release()
        self._all.discard(self)

    def _hold(self, size: int) -> None:
        everything = self._all
        if not self.size:
            self.since = everything.clock()
        self.size += size
        everything.total += size
        if everything.total > everything.most:
            everything.make_room(self)

    def _forget(self, size: int) -> None:
        self.size -= size
        self._all.total -= size


class UnansweredBytes:
    """The bytes of all connections of a process.

    Args:
        most: Bound of the sum, in bytes.
        metrics: Counts the requests that are ended.
        clock: The monotonic clock, in seconds.

    Attributes:
        total: The sum, in bytes.
    """

    def __init__(self, most: int, metrics: Metrics, clock: Clock = time.monotonic) -> None:
        self.most, self.clock = most, clock
        self.total = 0
        self._metrics = metrics
        self._connections: set[Held] = set()
        metrics.unanswered_bytes.set_function(lambda: self.total)

    def connection(self, refuse: Refuse) -> Held:
        """Returns the count of a new connection; `refuse` ends its request with an error."""
        held = Held(self, refuse)
        self._connections.add(held)
        return held

    def discard(self, held: Held) -> None:
        """Forgets a connection."""
        self._connections.discard(held)

    def make_room(self, newest: Held) -> None:
        """Ends requests, since the bound is passed; `newest` is the connection whose segment passed it."""
        now = self.clock()

        def burden(held: Held) -> tuple[bool, float]:
            age = now - held.since
            return age > _SLOW_S, age * held.size

        for held in sorted((held for held in self._connections if held.waits), key=burden, reverse=True):
            self._end(held, slow=burden(held)[0])
            if self.total <= _FILLED * self.most:
                return
        if self.total > self.most and newest.size > _SMALL:
            self._end(newest, slow=False)

    def _end(self, held: Held, *, slow: bool) -> None:
        error = TooSlow("the body came too slowly while many others came") if slow else TooManyBodies()
        self._metrics.bodies_refused.labels(error.reason).inc()
        held.refuse(error)
        held.read()
        held.release()
