"""Sockets that the service listens on: its own, and one that several workers share."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from service.common import logs
from service.common.errors import StartupError

log = logs.get(__name__)

# Connections that the kernel keeps until a process accepts them.
BACKLOG = 2048
_PORT_TRIES = 20
_LAST_PORT = 65_535
# Pause after a connection could not be accepted because there are no descriptors left.
_FULL_PAUSE_S = 0.1
# How long a worker with more connections than another leaves a new one to it. It is longer than an event loop that is
# not overloaded takes to see the connection, and far shorter than anybody notices.
_YIELD_S = 0.002


def allow_connections() -> None:
    """Raises the limit of open files as far as the system allows: each connection needs one.

    The initial limit (usually 1,024) is meant for programs that use `select`; above it new connections are dropped.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # the initial limit still works
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def bind(host: str, port: int) -> socket.socket:
    """Returns a bound socket that does not listen yet.

    Args:
        host: The address.
        port: The port; 0 chooses a free one.

    Raises:
        StartupError: The address is taken, or does not belong to this machine.
    """
    if port > _LAST_PORT:  # getaddrinfo would use another port
        raise StartupError(f"cannot listen on {host}:{port}: ports end at {_LAST_PORT}")
    with contextlib.ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            sock = stack.enter_context(socket.socket(family, kind, protocol))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except OSError as error:
            raise StartupError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        stack.pop_all()
    return sock


def reserve(host: str, port: int, workers: int) -> socket.socket:
    """Returns a socket bound to the port that the workers share; the next ports, one for each worker, are free.

    Args:
        host: The address.
        port: The shared port; 0 chooses one.
        workers: How many ports above the shared one must be free.

    Raises:
        StartupError: One of the ports is taken; with port 0, after several tries.
    """
    for attempt in range(_PORT_TRIES):
        shared = bind(host, port)
        try:
            for number in range(workers):
                bind(host, shared.getsockname()[1] + 1 + number).close()
        except StartupError:
            shared.close()
            if port or attempt == _PORT_TRIES - 1:
                raise
        else:
            break
    return shared


class Counts(Protocol):
    """Numbers in shared memory, one for each worker."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> int: ...

    def __setitem__(self, number: int, count: int, /) -> None: ...


class ConnectionShare:
    """How many connections a worker has beside the others.

    Args:
        number: The worker's place.
        counts: Open connections of each worker.
        ready: 1 for each worker that accepts requests.
    """

    def __init__(self, number: int, counts: Counts, ready: Sequence[int] | Counts) -> None:
        self._number, self._counts, self._ready = number, counts, ready

    def tell(self, connections: int) -> None:
        """Tells the other workers how many connections this one has."""
        self._counts[self._number] = connections

    def ahead(self, connections: int) -> bool:
        """Returns whether a worker that accepts requests has fewer connections than so many."""
        return any(
            self._ready[number] and self._counts[number] < connections
            for number in range(len(self._counts))
            if number != self._number
        )


class SharedListener:
    """One worker's view of the socket that all workers accept from.

    There is one queue of new connections. A worker that hangs takes none, so it holds up only the connections that it
    had accepted before. (With a listener for each worker, SO_REUSEPORT, it would keep its part of the new ones waiting
    too.) One connection is taken for each turn of the event loop. Clients and proxies keep their connections, so who
    has more of them has more requests for as long: a worker that is ahead of another leaves it a moment to take the
    next one. uvicorn treats it as one of its servers.

    Args:
        sock: The bound socket.
        share: Of the connections.
        protocol: Makes the protocol of a connection.
        connections: Returns how many connections are open.
    """

    def __init__(
        self,
        sock: socket.socket,
        share: ConnectionShare,
        protocol: Callable[[], asyncio.BaseProtocol],
        connections: Callable[[], int],
    ) -> None:
        self._sock, self._share = sock, share
        self._protocol, self._connections = protocol, connections
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()
        self._closed = False

    def start(self) -> None:
        """Listens, and accepts from now on. Raises StartupError if another program listens on the port by now."""
        self._sock.setblocking(False)
        try:
            self._sock.listen(BACKLOG)
        except OSError as error:
            raise StartupError(f"cannot listen on port {self._sock.getsockname()[1]}: {error.strerror}") from error
        self._resume()

    def drain(self) -> None:
        """Accepts what waits in the queue."""
        while self._accept():
            pass

    def close(self) -> None:
        """Accepts no more. The queue stays open for the other workers."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    async def wait_closed(self) -> None:
        """Waits for connections that were accepted and are not open yet."""
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._sock.fileno(), self._accept_or_yield)

    def _accept_or_yield(self) -> None:
        """Takes one connection, at once or, where another worker has fewer, if that one does not."""
        if self._share.ahead(self._connections() + len(self._opening)):
            self._loop.remove_reader(self._sock.fileno())
            self._loop.call_later(_YIELD_S, self._accept_and_resume)
        else:
            self._accept()

    def _accept_and_resume(self) -> None:
        if not self._closed:
            self._resume()
            self._accept()

    def _accept(self) -> bool:
        """Takes one connection; returns whether there was one."""
        try:
            connection, _ = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return False  # another worker was faster, or the client has gone
        except OSError as error:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.call_later(_FULL_PAUSE_S, self._resume)
            log.error("connection_not_accepted", cause=error.strerror)
            return False
        connection.setblocking(False)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        self._share.tell(self._connections() + len(self._opening))
        return True
