"""Sends requests when they are due and notes the outcome of each, for `loadtests.load.open_loop_driver`."""

from __future__ import annotations

import asyncio
import gc
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from loadtests.load.arrivals import Arrival, Target
from loadtests.load.http_wire import Alarm, Connection, encode
from loadtests.load.outcomes import Outcomes

_SWEEP_S = 0.25
_COLLECT_FROM = 100
_RUNG = re.compile(rb'"rung":\s*"(\w+)"')
_REASON = re.compile(rb'"reason":\s*"(\w+)"')
_OWN_MS = re.compile(rb'"latency_ms":\s*([0-9.]+)')
# Epoch milliseconds, as a proxy writes them; the value is filled in when the request is sent.
_STAMP = "X-Request-Start"
_UNSTAMPED = b"0000000000000.000"


class Sender:
    """One run: when requests were sent, and what came back. Times are of `time.perf_counter`.

    Paced requests are sent when they are due, others when an answer has come. With `stamped`, each request carries the
    time at which it was due in the header in which a proxy states when a request arrived.
    """

    def __init__(
        self,
        to: Target,
        arrivals: Sequence[Arrival],
        *,
        connections: int,
        timeout_s: float,
        max_in_flight: int,
        headers: Mapping[str, str] | None,
        paced: bool,
        stamped: bool = False,
        keep: Callable[[bytes], None] | None = None,
        within_s: float | None = None,
    ) -> None:
        self.to = to
        self.outcomes = Outcomes(arrivals, paced=paced, connections=connections)
        self._due = self.outcomes.due
        self._keep, self._within_s = keep, within_s
        self._connections, self._paced = connections, paced
        self._timeout_s, self._max_in_flight = timeout_s, max_in_flight
        self._stamped = stamped
        sent = {**(headers or {}), _STAMP: _UNSTAMPED.decode()} if stamped else headers
        self._requests = [encode(a.method, to.named, a.path, a.body, sent) for a in arrivals]
        self._free: list[Connection] = []
        self._all: set[Connection] = set()
        self._waiting: deque[int] = deque()
        self._dialling: set[asyncio.Task[None]] = set()
        self._next = self._open = 0
        self._began = self._began_ms = 0.0

    async def go(self) -> None:
        """Runs to the end.

        Raises:
            OSError: If no connection can be opened at the start.
        """
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        try:
            await asyncio.gather(*(self._connect() for _ in range(self._connections)))
            if self._requests:
                await self._measured()
        finally:
            self._hang_up()

    async def _measured(self) -> None:
        # A garbage collection during a run would count as latency of the service; short runs need none.
        if len(self._requests) >= _COLLECT_FROM:
            gc.collect()
        gc.disable()
        self._alarm = Alarm(self._loop, self._ring)
        sweep = self._loop.create_task(self._give_up_late())
        cpu, self._began = time.process_time(), time.perf_counter()
        self.outcomes.began = self._began
        self._began_ms = time.time() * 1000.0
        try:
            if self._paced:
                self._ring()
            else:
                for _ in range(min(self._connections, len(self._requests))):
                    self._send_next()
            await self._done
        finally:
            self.outcomes.cpu, self.outcomes.took = time.process_time() - cpu, time.perf_counter() - self._began
            gc.enable()
            self._alarm.close()
            sweep.cancel()

    # -- sending

    def _ring(self) -> None:
        """Sends all that is due, and sets the alarm for the next."""
        now = time.perf_counter() - self._began
        while self._next < len(self._due) and self._due[self._next] <= now:
            number, self._next = self._next, self._next + 1
            self.outcomes.lag[number] = now - self._due[number]
            if self._open >= self._max_in_flight:
                self._open += 1
                self.failed(None, number, "not sent: too many are open")
                continue
            self._open += 1
            self.outcomes.most_open = max(self.outcomes.most_open, self._open)
            self._dispatch(number)
        if self._next < len(self._due):
            self._alarm.set(self._due[self._next] - (time.perf_counter() - self._began))

    def _send_next(self) -> None:
        now = time.perf_counter() - self._began
        if self._within_s is not None and now >= self._within_s:
            del self._due[self._next :]
        if self._next >= len(self._due):
            return
        number, self._next = self._next, self._next + 1
        self._due[number] = now
        self._open += 1
        self._dispatch(number)

    def _dispatch(self, number: int) -> None:
        while self._free:
            connection = self._free.pop()
            if connection.usable:
                connection.send(number, self._request(number))
                return
            self._replace(connection)
        self.outcomes.waited += 1
        self._waiting.append(number)

    def _request(self, number: int) -> bytes:
        request = self._requests[number]
        if not self._stamped:
            return request
        return request.replace(_UNSTAMPED, b"%017.3f" % (self._began_ms + 1000.0 * self._due[number]), 1)

    # -- what comes back

    def answered(self, connection: Connection, number: int, status: int, body: bytes) -> None:
        """Notes an answer."""
        self.outcomes.latency[number] = time.perf_counter() - self._began - self._due[number]
        self.outcomes.status[number] = status
        if self._keep is not None:
            self._keep(body)
        if (rung := _RUNG.search(body)) is not None:
            self.outcomes.rung[number] = rung[1]
            if (reason := _REASON.search(body)) is not None:
                self.outcomes.reason[number] = reason[1]
            if (own := _OWN_MS.search(body)) is not None:
                self.outcomes.own_ms[number] = own[1]
        self._ended(connection)

    def failed(self, connection: Connection | None, number: int, kind: str) -> None:
        """Notes a request without an answer."""
        self.outcomes.status[number] = kind
        self._ended(connection)

    def _ended(self, connection: Connection | None) -> None:
        self._open -= 1
        if connection is not None:
            if not connection.usable:
                self._replace(connection)
            elif self._waiting:
                number = self._waiting.popleft()
                connection.send(number, self._request(number))
            else:
                self._free.append(connection)
        if not self._paced:
            self._send_next()
        if not self._open and self._next >= len(self._due) and not self._done.done():
            self._done.set_result(None)

    async def _give_up_late(self) -> None:
        """Fails requests that wait longer than the time-out, for an answer or for a connection."""
        while True:
            await asyncio.sleep(min(_SWEEP_S, self._timeout_s / 4))
            now = time.perf_counter()
            for connection in list(self._all):
                if connection.number >= 0 and now - connection.sent_at > self._timeout_s:
                    connection.give_up("timeout")
            while self._waiting and now - self._began - self._due[self._waiting[0]] > self._timeout_s:
                self.failed(None, self._waiting.popleft(), "timeout")

    # -- connections

    async def _connect(self) -> None:
        _, connection = await self._loop.create_connection(lambda: Connection(self), self.to.host, self.to.port)
        self._all.add(connection)
        self._free.append(connection)
        if self._waiting:
            self._dispatch(self._waiting.popleft())

    def _replace(self, lost: Connection) -> None:
        self._all.discard(lost)
        task = self._loop.create_task(self._redial())
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    async def _redial(self) -> None:
        """Reconnects until it succeeds: requests that wait meanwhile fail by their time-out."""
        while True:
            try:
                await self._connect()
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return

    def _hang_up(self) -> None:
        for task in list(self._dialling):
            task.cancel()
        for connection in self._all:
            connection.close()
